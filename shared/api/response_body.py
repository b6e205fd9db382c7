"""The body of a response, read whole and not without end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    import aiohttp

MAX_BODY = 4 * 1024 * 1024
"""Bytes after decompression: 64 times the largest record."""


async def whole_body(response: aiohttp.ClientResponse) -> bytes:
    """Give the body of a response.

    Raises:
        httpx.ReadError: it has more than `MAX_BODY` bytes; the connection is closed.
    """
    announced = response.content_length
    if announced is not None and announced <= MAX_BODY and "content-encoding" not in response.headers:
        return await response.read()
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
