"""The external id of a record that nobody may have checked, for results and log lines. Pure."""

from __future__ import annotations

import json

# The model's bound, and the most that is repeated of what breaks it.
_MOST = 128


def shown_external_id(record: object) -> str:
    """Give a record's external id; of one that breaks the model's rules a short printable text."""
    text = str(record.get("externalId") if isinstance(record, dict) else None)
    # Nothing printable is one of these.
    if not text.isprintable() and any(
        char < " " or "\x7f" <= char <= "\x9f" or "\ud800" <= char <= "\udfff" for char in text[:_MOST]
    ):
        text = json.dumps(text[:_MOST])[1:-1]
    return text[:_MOST]
