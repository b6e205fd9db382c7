"""The path of a request as Kestrel, the web server of the Functions host, reads it."""

from __future__ import annotations

import re

_ENCODED = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_ENCODED_SLASH = re.compile("(%2[Ff])")
# A byte that is not UTF-8, as "surrogateescape" decodes it.
_UNDECODED = re.compile("[\udc80-\udcff]")


def _decode(found: re.Match[str]) -> str:
    """Decode a run of escapes: an escaped slash stays, and so do bytes that are not UTF-8."""
    text = ""
    for part in _ENCODED_SLASH.split(found[0]):
        if _ENCODED_SLASH.fullmatch(part):
            text += part
            continue
        decoded = bytes.fromhex(part.replace("%", "")).decode("utf-8", "surrogateescape")
        text += "".join(_escape(char, part) if _UNDECODED.match(char) else char for char in decoded)
    return text


def _escape(undecoded: str, written: str) -> str:
    """Return the escape of a byte that is not UTF-8, in the case in which it was written."""
    escape = f"%{ord(undecoded) - 0xDC00:02x}"
    return escape if escape in written else escape.upper()


def _without_dot_segments(path: str) -> str:
    """Resolve "." and ".." (RFC 3986 section 5.2.4)."""
    segments: list[str] = []
    parts = path.split("/")[1:]
    for position, part in enumerate(parts, start=1):
        if part == ".." and segments:
            segments.pop()
        if part not in (".", ".."):
            segments.append(part)
        elif position == len(parts):
            segments.append("")
    return "/" + "/".join(segments)


def decoded_path(raw_path: bytes) -> str:
    """Decode the path of a request target.

    Escapes are decoded as UTF-8, but `%2F` stays as it is and so splits no segment: a route parameter has it still
    encoded. Dot segments are resolved after that, so `/a/%2E%2E/b` is `/b`.
    """
    path = _ENCODED.sub(_decode, raw_path.partition(b"?")[0].decode("latin-1"))
    return _without_dot_segments(path)
