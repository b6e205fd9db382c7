"""The body of a response: read whole and not without end, or as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

from shared.api.transport_faults import CAUSES, body_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

MAX_BODY = 4 * 1024 * 1024
"""Bytes after decompression: 64 times the largest record."""


async def whole_body(content: aiohttp.StreamReader) -> bytes:
    """Read a response's body to its end.

    Raises:
        httpx.ReadError: it has more than `MAX_BODY` bytes.
    """
    if content.is_eof():
        # A short one mostly comes with its headers: then it is all there.
        body = content.read_nowait()
    else:
        parts = bytearray()
        while len(parts) <= MAX_BODY and (part := await content.readany()):
            parts += part
        body = bytes(parts)
    if len(body) > MAX_BODY:
        raise httpx.ReadError(f"the response has more than {MAX_BODY} bytes")
    return body


class BodyStream(httpx.AsyncByteStream):
    """A response's body as it comes: whatever happens while it is read, the request was sent."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except CAUSES as exc:
            raise body_fault(exc) from None

    async def aclose(self) -> None:
        """Give the connection up, unless the body was read to its end: then it has gone back already."""
        self._response.close()
