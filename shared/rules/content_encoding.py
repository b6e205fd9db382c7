"""Decodes a body within a limit: the one decoder for everything that this app reads from anybody.

The limit holds before and after decompression: a few kilobytes cannot fill the memory, and megabytes that decode to
nothing cannot take the time. A body beyond it raises BodyTooLargeError, one that is not what its encoding says, or has
an encoding that is not accepted, ContentEncodingError.
"""

from __future__ import annotations

import zlib

from shared.errors import BodyTooLargeError, ContentEncodingError

ACCEPTED = "gzip, deflate"
"""The value of Accept-Encoding that names what is decoded."""

# RFC 9110 section 8.4.1: "x-gzip" means "gzip", and "deflate" is zlib's format.
_CODINGS = {"gzip", "x-gzip", "deflate"}
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
# What does not compress becomes longer by less than this part (RFC 1951 section 3.2.4) and the bytes around it.
_OVERHEAD, _AROUND = 1 / 1000, 1024
# A gzip body may have several members (RFC 1952 section 2.2), and zeros after the last. zlib copies what is left at the
# end of each: of a megabyte of empty ones, gigabytes. A writer may end one after each of a batch's 1,000 records.
_MEMBERS = 2_000


def most_encoded(limit: int) -> float:
    """Return the most bytes of an encoded body that may decode to `limit` bytes."""
    return limit * (1 + _OVERHEAD) + _AROUND


def decoded_body(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return a body decoded; `encoding` is its Content-Encoding, `limit` the most bytes that it may decode to."""
    codings = [name.strip().lower() for name in (encoding or "").split(",")]
    codings = [name for name in codings if name not in {"", "identity"}]
    if len(codings) > 1 or not _CODINGS.issuperset(codings):
        raise ContentEncodingError(f"the content encoding is {', '.join(codings)[:60]!r}; accepted are {ACCEPTED}")
    if len(body) > (most_encoded(limit) if codings else limit):
        raise BodyTooLargeError(limit)
    return _decompressed(body, codings[0], limit) if codings and body else body


def _decompressed(body: bytes, coding: str, limit: int) -> bytes:
    decoded, rest = bytearray(), body
    for _ in range(_MEMBERS):
        unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
        try:
            # One byte above the limit is enough to know.
            decoded += unpacking.decompress(rest, limit + 1 - len(decoded))
        except zlib.error:
            raise ContentEncodingError(f"the body is not {coding}") from None
        if len(decoded) > limit:
            raise BodyTooLargeError(limit)
        if not unpacking.eof:
            raise ContentEncodingError(f"the {coding} body ends in the middle")
        rest = unpacking.unused_data.lstrip(b"\0")
        if not rest:
            return bytes(decoded)
    raise ContentEncodingError(f"the {coding} body has more than {_MEMBERS} members")
