from __future__ import annotations

import warnings

import aiohttp
import pytest

from shared.api.request_body import RequestBody
from tests.fakes.raw_server import RawServer, answering, response

# More than a socket takes at once, and than aiohttp sends without a warning where it is handed mere bytes.
LARGE = b'"%s"' % ("é" * 1_000_000).encode()


@pytest.mark.parametrize("octets", [b"", b"{}", LARGE])
async def test_all_of_it_is_sent_with_its_length_and_type(octets: bytes) -> None:
    async with RawServer(answering(response())) as server, aiohttp.ClientSession() as session:
        with warnings.catch_warnings(action="error"):
            async with session.post(server.url, data=RequestBody(octets)) as answer:
                await answer.read()
        request = server.requests[0]

    assert request.body == octets
    assert request.values("content-length") == [str(len(octets))]
    assert request.values("content-type") == ["application/json"]
    assert request.values("transfer-encoding") == []


async def test_it_can_be_sent_again() -> None:
    body = RequestBody(b"{}")
    async with RawServer(answering(response())) as server, aiohttp.ClientSession() as session:
        for _ in range(2):
            async with session.post(server.url, data=body) as answer:
                await answer.read()

        assert [request.body for request in server.requests] == [b"{}", b"{}"]


def test_its_text_is_shown_as_it_is() -> None:
    assert RequestBody('"é"'.encode()).decode() == '"é"'
