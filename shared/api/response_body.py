"""The body of a response: read whole and not without end, or as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
from aiohttp.hdrs import CONTENT_ENCODING

from shared.api.transport_faults import BODY_CAUSES, body_fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

MAX_BODY = 4 * 1024 * 1024
"""Bytes after decompression: 64 times the largest record."""


async def whole_body(response: aiohttp.ClientResponse) -> bytes:
    """Give the body of a response.

    Raises:
        httpx.ReadError: it has more than `MAX_BODY` bytes; the connection is closed.
    """
    announced = response.content_length
    if announced is not None and announced <= MAX_BODY and CONTENT_ENCODING not in response.headers:
        # A short one mostly comes with its headers: then it is all there, and its connection is free again.
        return response.content.read_nowait() if response.content.is_eof() else await response.read()
    body = bytearray()
    try:
        while part := await response.content.readany():
            body += part
            if len(body) > MAX_BODY:
                raise httpx.ReadError(f"the response has more than {MAX_BODY} bytes")  # noqa: TRY301, it closes, too
    except BaseException:
        response.close()
        raise
    await response.wait_for_close()
    return bytes(body)


class BodyStream(httpx.AsyncByteStream):
    """A response's body as it comes: whatever happens while it is read, the request was sent."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._response.content.iter_any():
                yield chunk
        except BODY_CAUSES as exc:
            raise body_fault(exc) from None

    async def aclose(self) -> None:
        """Give the connection up, unless the body was read to its end: then it has gone back already."""
        self._response.close()
