"""Decodes a body within a limit: the one decoder for everything that this app reads from anybody.

The limit holds before and after decompression: a few kilobytes cannot fill the memory, and megabytes that decode to
nothing cannot take the time. At most one coding is accepted.
"""

from __future__ import annotations

import zlib
from typing import Any

from shared.errors import BodyTooLargeError, ContentEncodingError

ACCEPTED = "gzip, deflate"
"""The value of Accept-Encoding that names what `BodyDecoder` decodes."""

# RFC 9110 section 8.4.1.3: "x-gzip" means "gzip".
_GZIP = {"gzip", "x-gzip"}
_GZIP_WINDOW = 16 + zlib.MAX_WBITS
# The second byte of a zlib stream makes the first two a multiple of 31 (RFC 1950 section 2.2).
_ZLIB_CHECK = 31
_DEFLATED = 8
# What does not compress becomes longer by less than this part (RFC 1951 section 3.2.4) and the bytes around it.
_OVERHEAD, _AROUND = 1 / 1000, 1024
# zlib copies what is left of a piece at the end of each member: of a short one, little.
_SLICE = 4096


class BodyDecoder:
    """Decodes a body piece by piece; `encoding` is its Content-Encoding, `limit` the most bytes it may decode to.

    Raises:
        ContentEncodingError: the encoding is none of gzip, x-gzip, deflate and identity, or there is more than one.
    """

    def __init__(self, encoding: str | None, limit: int) -> None:
        self._limit = limit
        self._size = self._encoded_size = 0
        codings = [coding for part in (encoding or "").split(",") if (coding := part.strip().lower())]
        codings = [coding for coding in codings if coding != "identity"]
        if len(codings) > 1 or (codings and codings[0] not in {*_GZIP, "deflate"}):
            raise ContentEncodingError(f"the content encoding is {', '.join(codings)[:60]!r}; accepted are {ACCEPTED}")
        self._coding = codings[0] if codings else None
        self._zlib: Any = None  # a zlib decompressor, whose type has no public name
        self._head = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what the next piece of the body decodes to.

        Raises:
            BodyTooLargeError: the body decodes to more than the limit.
            ContentEncodingError: the piece is not what the encoding says.
        """
        if self._coding is None:
            return self._counted(piece)
        self._encoded_size += len(piece)
        if self._encoded_size > self._limit * (1 + _OVERHEAD) + _AROUND:
            raise BodyTooLargeError(self._limit)
        if self._zlib is None:
            self._head += piece
            if len(self._head) < 2:  # noqa: PLR2004, what tells zlib from raw deflate
                return b""
            piece, self._zlib = self._head, zlib.decompressobj(self._window())
        decoded = bytearray()
        try:
            for start in range(0, len(piece), _SLICE):
                self._decompress(piece[start : start + _SLICE], decoded)
        except zlib.error:
            raise ContentEncodingError(f"the body is not {self._coding}") from None
        return self._counted(bytes(decoded))

    def _decompress(self, piece: bytes, decoded: bytearray) -> None:
        while piece:
            if self._zlib.eof:
                # A gzip body may have several members (RFC 1952 section 2.2), and zeros after the last.
                piece = piece.lstrip(b"\0")
                if not piece or self._coding not in _GZIP:
                    return
                self._zlib = zlib.decompressobj(_GZIP_WINDOW)
            # One byte above the limit is enough to know.
            decoded += self._zlib.decompress(piece, self._limit - self._size - len(decoded) + 1)
            if self._size + len(decoded) > self._limit:
                raise BodyTooLargeError(self._limit)
            piece = self._zlib.unused_data if self._zlib.eof else self._zlib.unconsumed_tail

    def end(self) -> None:
        """Check that the body is complete.

        Raises:
            ContentEncodingError: it ends in the middle.
        """
        if self._coding is not None and (self._zlib is None or not self._zlib.eof) and (self._head or self._zlib):
            raise ContentEncodingError(f"the {self._coding} body ends in the middle")

    def _window(self) -> int:
        if self._coding in _GZIP:
            return _GZIP_WINDOW
        # RFC 9110 section 8.4.1.2: "deflate" is zlib's format; some servers send raw deflate.
        is_zlib = self._head[0] % 16 == _DEFLATED and int.from_bytes(self._head[:2]) % _ZLIB_CHECK == 0
        return zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS

    def _counted(self, decoded: bytes) -> bytes:
        self._size += len(decoded)
        if self._size > self._limit:
            raise BodyTooLargeError(self._limit)
        return decoded


def decoded_body(body: bytes, encoding: str | None, limit: int) -> bytes:
    """Return a whole body decoded.

    Raises:
        BodyTooLargeError: it decodes to more than `limit` bytes.
        ContentEncodingError: it is not what `encoding` says, or the encoding is not accepted.
    """
    decoder = BodyDecoder(encoding, limit)
    decoded = decoder.feed(body)
    decoder.end()
    return decoded
