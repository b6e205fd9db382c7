"""Text for people and identifiers that callers send. Pure."""

from __future__ import annotations

import re
import unicodedata

IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
"""An Idempotency-Key, from callers and to the partner. The IETF draft leaves the length to the server."""

MAX_ID = 256
"""Characters of a record's id. It stands in URLs and log lines."""


def shortened(text: str, most: int) -> str:
    """Return the text, cut off with an ellipsis if it has more than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def id_problem(id_: str) -> str | None:
    """Say what keeps a record's id from standing in a URL's path or a log line, None if nothing does."""
    if not 1 <= len(id_) <= MAX_ID:
        return f"must have 1 to {MAX_ID} characters"
    if id_ in {".", ".."}:
        return 'must not be "." or "..": a URL resolves them as path segments'
    # A printable text has no control characters: most ids need no look at each character.
    if not id_.isprintable() and any(unicodedata.category(char) in {"Cc", "Cs"} for char in id_):
        return "must not have control characters"
    return None
