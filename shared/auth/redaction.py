"""Removes secrets from the words of others before they reach a log, an error or a caller. Pure.

Servers echo what they were sent, and not always as it was sent. A secret in one of the usual forms (percent-
or form-encoded, escaped for HTML, JSON or Python, base64) is cut out. Where one is left in another form, escaped twice
or split by white space, none of the words are kept.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus, unquote

from shared.rules.outcome import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"
LEAST_SECRET = 6
"""Characters. A shorter secret is part of ordinary words."""

_MAX_WORDS = 300  # characters of a server's own words that an error repeats
_ROUNDS = 3  # an escape of an escape of an escape: what wraps deeper is not an echo
_CODE = re.compile(r"(?<!\\)\\++(?:u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2}))")
_BETWEEN = re.compile(r"(?<!\\)\\++[nrt]|<br ?/?>")
_NO_LETTER = re.compile(r"[^0-9A-Za-z]+")


class Redactor:
    """Replaces secrets in texts, as they are or encoded; one shorter than `LEAST_SECRET` is ignored."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = {secret for secret in secrets if len(secret) >= LEAST_SECRET}
        forms = {form for secret in known for form in _forms(secret)}
        # The longest first: a secret may be part of another.
        pattern = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
        self._forms = re.compile(pattern) if known else None
        self._letters = {letters for form in forms if len(letters := _letters(form)) >= LEAST_SECRET}
        # No form is shorter than its letters: most texts need no look.
        self._least = min(map(len, forms | self._letters), default=0)

    def redact(self, text: str) -> str:
        """Return the text with `[redacted]` in place of each secret, or of everything."""
        if self._forms is None or len(text) < self._least:
            return text
        text = self._forms.sub(REDACTED, text)
        seen = _letters(text)
        return REDACTED if any(letters in seen for letters in self._letters) else text


def _forms(secret: str) -> set[str]:
    octets = secret.encode("utf-8", "surrogatepass")
    encoded = base64.b64encode(octets).decode().rstrip("=")
    forms = {secret, secret.rstrip("="), quote(octets, safe=""), quote(octets), quote_plus(octets), html.escape(secret)}
    forms |= {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    forms |= {encoded, encoded.replace("+", "-").replace("/", "_")}
    return {form for form in forms if len(form) >= LEAST_SECRET}


def _letters(text: str) -> str:
    """Return the ASCII letters and digits of a text with its escapes decoded: they are the same in every form."""
    for _ in range(_ROUNDS):
        text = html.unescape(unquote(_CODE.sub(lambda code: chr(int(code[1] or code[2], 16)), text)))
    return _NO_LETTER.sub("", _BETWEEN.sub("", text))


def safe_words(words: object, redactor: Redactor) -> str | None:
    """Return a server's words fit for an error: redacted, printable, at most 300 characters. None if there are none."""
    return one_line(redactor.redact(words), _MAX_WORDS) or None if isinstance(words, str) else None
