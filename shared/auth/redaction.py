"""Removes secrets from the words of others before they reach a log, an error or a caller.

Servers echo what they were sent, and not always as it was sent. The text is decoded to a canonical form that knows for
each character where it came from; a secret is looked for in the same form. Pure.
"""

from __future__ import annotations

import base64
import html
import re
import unicodedata
from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from shared.rules.outcome import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable

REDACTED = "[redacted]"
LEAST_SECRET = 6
"""Characters. A shorter secret is part of ordinary words, and a text without them would say nothing."""

_MAX_WORDS = 300  # characters of a server's own words that an error repeats
# An escape of an escape of an escape: what wraps deeper is not an echo.
_ROUNDS = 4
# Over UTF-8, a character for each byte. White space and invisible characters are dropped, escapes decoded.
_SPECIAL = re.compile(
    r"(?P<dropped>[\x00-\x20\x7f]+|\\+[nrt]|<br ?/?>|\xc2[\x80-\xa0\xad]|\xe2\x80[\x80-\x8f\xa8-\xaf]"
    r"|\xe2\x81[\x9f-\xaf]|\xe3\x80\x80|\xef\xbb\xbf)"
    r"|(?:%|\\+x)(?P<byte>[0-9A-Fa-f]{2})"
    r"|\\+u(?P<unicode>[0-9A-Fa-f]{4}(?:\\+u[0-9A-Fa-f]{4})?)|(?P<entity>&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|\w{2,8});)"
    r"|\\+"
)


class Redactor:
    """Replaces secrets in texts.

    A secret is found as it is, percent-encoded (wholly or in part), form-encoded, escaped for HTML, JSON or Python, in
    base64 or base64url, and split by white space. One shorter than `LEAST_SECRET` is ignored.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = {secret for secret in secrets if len(secret) >= LEAST_SECRET}
        forms = set()
        for secret in self._secrets:
            octets = secret.encode("utf-8", "surrogatepass")
            encoded = base64.b64encode(octets).decode()
            urlsafe = base64.urlsafe_b64encode(octets).decode()
            forms |= {_canonical(form)[0].rstrip("=") for form in (secret, quote_plus(octets), encoded, urlsafe)}
        self._forms = {form for form in forms if len(form) >= LEAST_SECRET}
        self._shortest = min(map(len, self._forms | self._secrets), default=0)

    def redact(self, text: str) -> str:
        """Return the text with `[redacted]` in place of each secret."""
        # No escape stands for twice its length, and a character for at most four bytes: a text this short holds none.
        if not self._secrets or 8 * len(text) < self._shortest:
            return text
        spans = [(start, start + len(secret)) for secret in self._secrets for start in _places(text, secret)]
        canonical, starts, ends = _canonical(text)
        for form in self._forms:
            spans += [(starts[at], ends[at + len(form) - 1]) for at in _places(canonical, form)]
        pieces, done = [], 0
        for start, end in sorted(spans):
            if start >= done:
                pieces += [text[done:start], REDACTED]
            done = max(done, end)
        return "".join([*pieces, text[done:]])


def safe_words(words: object, redactor: Redactor) -> str | None:
    """Return a server's words fit for an error: redacted, printable, at most 300 characters. None if there are none."""
    if not isinstance(words, str):
        return None
    safe = redactor.redact(words)
    safe = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in safe).split())
    return shortened(safe, _MAX_WORDS) or None


def _places(text: str, sought: str) -> Iterable[int]:
    at = text.find(sought)
    while at >= 0:
        yield at
        at = text.find(sought, at + len(sought))


def _canonical(text: str) -> tuple[str, list[int], list[int]]:
    """Return the decoded text, a character for each byte of UTF-8, and where in `text` each begins and ends."""
    octets = text.encode("utf-8", "surrogatepass").decode("latin-1")
    if len(octets) == len(text):
        starts = list(range(len(text)))
    else:
        starts = [at for at, char in enumerate(text) for _ in char.encode("utf-8", "surrogatepass")]
    ends = [start + 1 for start in starts]
    for _ in range(_ROUNDS):
        decoded, next_starts, next_ends, done = [], list[int](), list[int](), 0
        for match in _SPECIAL.finditer(octets):
            start, end = match.span()
            decoded.append(octets[done:start])
            next_starts += starts[done:start]
            next_ends += ends[done:start]
            meant = _meant(match)
            decoded.append(meant)
            next_starts += [starts[start]] * len(meant)
            next_ends += [ends[end - 1]] * len(meant)
            done = end
        if not done:
            break
        octets = "".join([*decoded, octets[done:]])
        starts, ends = next_starts + starts[done:], next_ends + ends[done:]
    return octets, starts, ends


def _meant(escape: re.Match[str]) -> str:
    """Return what an escape stands for, as bytes of UTF-8. A backslash before anything else stands for nothing."""
    if byte := escape["byte"]:
        return chr(int(byte, 16))
    if escape["entity"]:
        char = html.unescape(escape["entity"])
    elif escape["unicode"]:
        units = [int(unit, 16) for unit in re.findall("[0-9A-Fa-f]{4}", escape["unicode"])]
        char = b"".join(unit.to_bytes(2) for unit in units).decode("utf-16-be", "surrogatepass")
    else:
        char = ""
    return char.encode("utf-8", "surrogatepass").decode("latin-1")
