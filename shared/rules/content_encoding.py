"""Decodes a body within a limit: the one decoder for everything that this app reads from anybody.

The limit holds before and after decompression: a few kilobytes cannot fill the memory, and megabytes that decode to
nothing cannot take the time. A body beyond it raises BodyTooLargeError, one that is not what its encoding says, or has
an encoding that is not accepted, ContentEncodingError.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any, cast

from shared.errors import BodyTooLargeError, ContentEncodingError

if TYPE_CHECKING:
    import httpx

ACCEPTED = "gzip, deflate"
"""The value of Accept-Encoding that names what `BodyDecoder` decodes."""

# RFC 9110 section 8.4.1: "x-gzip" means "gzip", and "deflate" is zlib's format.
_CODINGS = {"gzip", "x-gzip", "deflate"}
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
# What does not compress becomes longer by less than this part (RFC 1951 section 3.2.4) and the bytes around it.
_OVERHEAD, _AROUND = 1 / 1000, 1024
# zlib copies what is left of a piece at the end of each member: of a short one, little.
_SLICE = 4096


class BodyDecoder:
    """Decodes a body piece by piece; `encoding` is its Content-Encoding, `limit` the most bytes it may decode to."""

    def __init__(self, encoding: str | None, limit: int) -> None:
        self._limit = limit
        self._size = self._encoded_size = 0
        codings = [name.strip().lower() for name in (encoding or "").split(",")]
        codings = [name for name in codings if name not in {"", "identity"}]
        if len(codings) > 1 or not _CODINGS.issuperset(codings):
            raise ContentEncodingError(f"the content encoding is {', '.join(codings)[:60]!r}; accepted are {ACCEPTED}")
        self._coding = codings[0] if codings else None
        # Its type has no public name.
        self._zlib: Any = zlib.decompressobj(_GZIP_OR_ZLIB) if codings else None

    def feed(self, piece: bytes) -> bytes:
        """Return what the next piece of the body decodes to."""
        if self._zlib is not None:
            self._encoded_size += len(piece)
            if self._encoded_size > self._limit * (1 + _OVERHEAD) + _AROUND:
                raise BodyTooLargeError(self._limit)
            try:
                piece = self._decompressed(piece)
            except zlib.error:
                raise ContentEncodingError(f"the body is not {self._coding}") from None
        self._size += len(piece)
        if self._size > self._limit:
            raise BodyTooLargeError(self._limit)
        return piece

    def end(self) -> None:
        """Check that the body is complete."""
        if self._encoded_size and not self._zlib.eof:
            raise ContentEncodingError(f"the {self._coding} body ends in the middle")

    def _decompressed(self, piece: bytes) -> bytes:
        decoded = bytearray()
        # One byte above the limit is enough to know.
        most = self._limit - self._size + 1
        for start in range(0, len(piece), _SLICE):
            rest = piece[start : start + _SLICE]
            while rest and len(decoded) < most:
                if self._zlib.eof:
                    # A gzip body may have several members (RFC 1952 section 2.2), and zeros after the last.
                    rest = rest.lstrip(b"\0")
                    if not rest:
                        break
                    self._zlib = zlib.decompressobj(_GZIP_OR_ZLIB)
                decoded += self._zlib.decompress(rest, most - len(decoded))
                rest = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail
        return bytes(decoded)


def decoded_body(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return a whole body decoded."""
    decoder = BodyDecoder(encoding, limit)
    decoded = decoder.feed(body)
    decoder.end()
    return decoded


async def body_of(response: httpx.Response, limit: int) -> bytes:
    """Return the decoded body of a response that is still to be read, and close it; httpx decodes without a limit."""
    stream = cast("httpx.AsyncByteStream", response.stream)
    try:
        decoder = BodyDecoder(response.headers.get("content-encoding"), limit)
        body = b"".join([decoder.feed(piece) async for piece in stream])
        decoder.end()
        return body
    finally:
        await stream.aclose()
