"""Decodes a body within a limit: the one decoder for everything that this app reads from anybody.

The limit holds before and after decompression: a few kilobytes cannot fill the memory, and megabytes that decode to
nothing cannot take the time. A body beyond it raises BodyTooLargeError, one that is not what its encoding says, or has
an encoding that is not accepted, ContentEncodingError.
"""

from __future__ import annotations

import zlib

from shared.errors import BodyTooLargeError, ContentEncodingError

ACCEPTED = "gzip, deflate"
"""The value of Accept-Encoding that names what `decoded_body` decodes."""

# RFC 9110 section 8.4.1: "x-gzip" means "gzip", and "deflate" is zlib's format.
_CODINGS = {"gzip", "x-gzip", "deflate"}
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
# What does not compress becomes longer by less than this part (RFC 1951 section 3.2.4) and the bytes around it.
_OVERHEAD, _AROUND = 1 / 1000, 1024
# zlib copies what is left of a piece at the end of each member: of a short one, little.
_SLICE = 4096


def longest_encoded(limit: int) -> int:
    """Return the most bytes of an encoded body that may decode to `limit` bytes."""
    return int(limit * (1 + _OVERHEAD)) + _AROUND


def decoded_body(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return a whole body decoded; `encoding` is its Content-Encoding, `limit` the most bytes it may decode to."""
    codings = [name.strip().lower() for name in (encoding or "").split(",")]
    codings = [name for name in codings if name not in {"", "identity"}]
    if len(codings) > 1 or not _CODINGS.issuperset(codings):
        raise ContentEncodingError(f"the content encoding is {', '.join(codings)[:60]!r}; accepted are {ACCEPTED}")
    if codings and body:
        if len(body) > longest_encoded(limit):
            raise BodyTooLargeError(limit)
        body = _decompressed(body, codings[0], limit + 1)  # one byte above the limit is enough to know
    if len(body) > limit:
        raise BodyTooLargeError(limit)
    return body


def _decompressed(body: bytes, coding: str, most: int) -> bytes:
    """Return at most `most` bytes of what a body decodes to."""
    decoded = bytearray()
    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        for start in range(0, len(body), _SLICE):
            rest = body[start : start + _SLICE]
            while rest and len(decoded) < most:
                if stream.eof:
                    # A gzip body may have several members (RFC 1952 section 2.2), and zeros after the last.
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    stream = zlib.decompressobj(_GZIP_OR_ZLIB)
                decoded += stream.decompress(rest, most - len(decoded))
                rest = stream.unused_data if stream.eof else stream.unconsumed_tail
    except zlib.error:
        raise ContentEncodingError(f"the body is not {coding}") from None
    if len(decoded) < most and not stream.eof:
        raise ContentEncodingError(f"the {coding} body ends in the middle")
    return bytes(decoded)
