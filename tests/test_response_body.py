from __future__ import annotations

import gzip
import ssl

import pytest

from shared.api.business_api import BusinessApi
from shared.api.response_body import MAX_BODY
from shared.api.transport import create_client
from shared.errors import ApiInterruptedError
from tests.fakes.raw_server import RawServer, answering, response


async def _get(body: bytes, *headers: str) -> object:
    async with RawServer(answering(response(body, *headers))) as server:
        client = create_client(timeout=20, max_connections=1, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        async with BusinessApi(client, server.url) as api:
            # The second call needs the connection of the first, or a new one.
            await api.get_business("x")
            return (await api.get_business("x")).content


async def test_a_body_that_comes_in_many_parts_is_read_whole() -> None:
    text = "x" * (MAX_BODY - 2)

    assert await _get(b'"%s"' % text.encode()) == text


async def test_a_compressed_body_is_read_whole() -> None:
    assert await _get(gzip.compress(b'"text"', mtime=0), "Content-Encoding: gzip") == "text"


async def test_an_empty_body_is_none() -> None:
    assert await _get(b"") is None


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("size", [MAX_BODY + 1, 2 * MAX_BODY])
async def test_a_body_that_is_too_long_is_given_up_and_its_fate_is_unknown(size: int, *, zipped: bool) -> None:
    body = b'"%s"' % (b"x" * (size - 2))
    octets, headers = (gzip.compress(body, mtime=0), ["Content-Encoding: gzip"]) if zipped else (body, [])

    with pytest.raises(ApiInterruptedError, match=f"more than {MAX_BODY} bytes"):
        await _get(octets, *headers)
