from __future__ import annotations

import asyncio
import itertools
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import pytest

from shared.client.connection_guard import GuardedConnector
from tests.fakes.raw_server import RawServer, answering, response
from tests.fakes.tls import tls_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.raw_server import Connection

CREATED = response(b'"stray"', status="201 Created")
# What nobody asked for, and what follows it once another request has arrived.
STRAYS = {
    "a duplicate": (CREATED, b""),
    "408 and close": (response(b"", "Connection: close", status="408 Request Timeout"), b""),
    "100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n", CREATED),
    "half a body": (CREATED[:-3], CREATED[-3:]),
    "half the headers": (CREATED[:30], CREATED[30:]),
    "half a status line": (CREATED[:12], CREATED[12:]),
    "garbage": (b"x", b""),
}
strays = pytest.mark.parametrize(("stray", "rest"), STRAYS.values(), ids=STRAYS.keys())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    of_server, trusted = tls_server(tmp_path_factory.mktemp("tls"))
    return of_server, ssl.create_default_context(cafile=trusted)


@asynccontextmanager
async def session(connector: aiohttp.BaseConnector) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=connector) as session:
        yield session


async def post(session: aiohttp.ClientSession, url: str, body: bytes = b"{}") -> bytes:
    async with session.post(url, data=body) as answer:
        return await answer.read()


class Straying:
    """A server of numbered answers, `"1.2"` the second on the first connection."""

    def __init__(self, rest: bytes = b"") -> None:
        self._rest = rest
        self.first: Connection

    async def serve(self, connection: Connection) -> None:
        for number in itertools.count(1):
            await connection.read_request()
            if connection.number == 1:
                self.first = connection
                if number > 1:
                    await connection.send(self._rest)
            await connection.send(response(f'"{connection.number}.{number}"'.encode()))


@strays
@pytest.mark.parametrize("is_seen", [True, False], ids=["seen", "not yet read"])
@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
async def test_bytes_on_an_idle_connection_answer_no_request(
    stray: bytes, rest: bytes, certificates: tuple[ssl.SSLContext, ssl.SSLContext], *, is_seen: bool, is_tls: bool
) -> None:
    straying = Straying(rest)
    tls = certificates[0] if is_tls else None
    async with (
        RawServer(straying.serve, tls=tls) as server,
        RawServer(answering(response(b'"0"'))) as other,
        session(GuardedConnector(ssl=certificates[1])) as client,
    ):
        assert await post(client, server.url) == b'"1.1"'
        await straying.first.send(stray)
        if is_seen:
            await post(client, other.url)  # meanwhile the client reads it
        assert await post(client, server.url) == b'"2.1"'
        assert await post(client, server.url) == b'"2.2"'
        assert len(server.requests) == 3


@strays
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_bytes_behind_a_response_answer_no_request(stray: bytes, rest: bytes, *, is_chunked: bool) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        body = b'"%d"' % connection.number
        if is_chunked:
            head, body = b"Transfer-Encoding: chunked", b"3\r\n" + body + b"\r\n0\r\n\r\n"
        else:
            head = b"Content-Length: 3"
        await connection.send(b"HTTP/1.1 201 Created\r\n" + head + b"\r\n\r\n" + body + stray)
        await connection.read_request()
        await connection.send(rest + CREATED)

    async with RawServer(serve) as server, session(GuardedConnector()) as client:
        for number in (b'"1"', b'"2"'):
            # An error leaves the fate of a record unknown, which is safe; another record's answer is not.
            try:
                assert await post(client, server.url) == number
            except aiohttp.ClientError:
                assert number == b'"2"' or stray == b"x"


async def test_a_clean_connection_is_used_again_whatever_the_response(
    certificates: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    big = response(b'"' + b"x" * 1_000_000 + b'"')
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n""\r\n0\r\n\r\n'
    answers = [response(b'"1"'), early + response(b'"1"'), big, chunked, response(status="204 No Content")]

    async def serve(connection: Connection) -> None:
        for answer in [*answers, *answers]:
            await connection.read_request()
            await connection.send(answer)

    for tls in (None, certificates[0]):
        async with RawServer(serve, tls=tls) as server, session(GuardedConnector(ssl=certificates[1])) as client:
            for _ in range(2 * len(answers)):
                await post(client, server.url)
            assert server.connections == 1


@pytest.mark.filterwarnings("ignore:Sending a large body")
async def test_the_rest_of_a_request_that_nobody_waits_for_is_not_sent() -> None:
    begun, given_up, done = asyncio.Event(), asyncio.Event(), asyncio.Event()
    size, received = 50_000_000, 0

    async def serve(connection: Connection) -> None:
        nonlocal received
        received = len(await connection.read())
        begun.set()
        await given_up.wait()
        try:
            while octets := await connection.read():
                received += len(octets)
        finally:
            done.set()

    async with RawServer(serve) as server, session(GuardedConnector()) as client:
        call = asyncio.create_task(post(client, server.url, b"x" * size))
        await begun.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        given_up.set()
        await done.wait()
    assert received < size


async def test_aiohttp_still_needs_the_guard() -> None:
    """If this fails, aio-libs/aiohttp#13656 is fixed: delete the guard."""
    straying = Straying()
    async with (
        RawServer(straying.serve) as server,
        RawServer(answering(response(b'"0"'))) as other,
        session(aiohttp.TCPConnector()) as client,
    ):
        await post(client, server.url)
        await straying.first.send(CREATED)
        await post(client, other.url)
        assert await post(client, server.url) == b'"stray"'
