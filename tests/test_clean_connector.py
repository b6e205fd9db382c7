from __future__ import annotations

import asyncio
import inspect
import itertools
import ssl
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector

from sandbox.sample import business
from shared.api.business import Business
from shared.api.business_api import NOT_SENT, BusinessApi
from shared.api.clean_connector import CleanConnector, WatchedConnection
from shared.api.transport import create_client
from shared.errors import ApiInterruptedError
from tests.fakes.raw_server import RawServer, answering, response
from tests.fakes.tls import tls_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from shared.api.transport import RelayClient
    from tests.fakes.raw_server import Connection

    # Posts a record to a URL, and gives the body of the answer.
    Post = Callable[[str], Awaitable[bytes]]

BUSINESS = Business.from_json(business("id-1"))
CREATED = response(b'"stray"', status="201 Created")
# What nobody has asked for, and what follows it when another request has come.
STRAYS = {
    "a duplicate": (CREATED, b""),
    "408 and close": (response(b"", "Connection: close", status="408 Request Timeout"), b""),
    "100 Continue": (b"HTTP/1.1 100 Continue\r\n\r\n", CREATED),
    "half a body": (CREATED[:-3], CREATED[-3:]),
    "half the headers": (CREATED[:30], CREATED[30:]),
    "half a status line": (CREATED[:12], CREATED[12:]),
}
strays = pytest.mark.parametrize(("stray", "rest"), STRAYS.values(), ids=STRAYS.keys())


@pytest.fixture(scope="module")
def of_server_and_client(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    of_server, trusted = tls_server(tmp_path_factory.mktemp("tls"))
    return of_server, ssl.create_default_context(cafile=trusted)


@pytest.fixture
async def client(of_server_and_client: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[RelayClient]:
    async with create_client(timeout=20, max_connections=10, tls=of_server_and_client[1]) as client:
        yield client


@pytest.fixture(params=["httpx", "exchange"])
def post(request: pytest.FixtureRequest, client: RelayClient) -> Post:
    async def over_httpx(url: str) -> bytes:
        return (await client.post(url, content=b"{}")).content

    async def over_exchange(url: str) -> bytes:
        answer = await BusinessApi(client, url).post_business(BUSINESS, idempotency_key="k")
        return f'"{answer.content}"'.encode()

    return over_httpx if request.param == "httpx" else over_exchange


class Straying:
    """A server of numbered answers, `"1.2"` the second on the first connection; `stray` sends on the first."""

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
async def test_what_comes_on_an_idle_connection_is_no_answer(  # noqa: PLR0913, they are parameters
    post: Post,
    stray: bytes,
    rest: bytes,
    *,
    is_seen: bool,
    is_tls: bool,
    of_server_and_client: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    straying = Straying(rest)
    tls = of_server_and_client[0] if is_tls else None
    async with RawServer(straying.serve, tls=tls) as server, RawServer(answering(response(b'"0"'))) as other:
        assert await post(server.url) == b'"1.1"'
        await straying.first.send(stray)
        if is_seen:
            await post(other.url)  # meanwhile the client reads it
        assert await post(server.url) == b'"2.1"'
        assert await post(server.url) == b'"2.2"'
        assert len(server.requests) == 3


@strays
@pytest.mark.parametrize("is_at_once", [True, False], ids=["in one packet", "with the body"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_what_comes_behind_an_answer_is_no_answer(
    post: Post, stray: bytes, rest: bytes, *, is_at_once: bool, is_chunked: bool
) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        number = str(connection.number).encode()
        head = b"HTTP/1.1 201 Created\r\n"
        if is_chunked:
            head, body = head + b"Transfer-Encoding: chunked\r\n\r\n", b'3\r\n"' + number + b'"\r\n0\r\n\r\n'
        else:
            head, body = head + b"Content-Length: 3\r\n\r\n", b'"' + number + b'"'
        if not is_at_once:
            await connection.send(head)
            for _ in range(5):  # until the client has read it
                await asyncio.sleep(0)
            head = b""
        await connection.send(head + body + stray)
        await connection.read_request()
        await connection.send(rest + CREATED)

    async with RawServer(serve) as server:
        assert await post(server.url) == b'"1"'
        assert await post(server.url) == b'"2"'
        assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize("status", ["201 Created", "204 No Content"])
@pytest.mark.parametrize("garbage", [b"x", b'{"more":1}', b"\x00" * 9])
async def test_garbage_behind_an_answer_leaves_the_fate_unknown_or_is_left(
    post: Post, status: str, garbage: bytes
) -> None:
    async with RawServer(answering(response(status=status) + garbage)) as server:
        for _ in range(2):
            try:
                await post(server.url)
            except (httpx.TransportError, ApiInterruptedError) as exc:
                assert not isinstance(exc, NOT_SENT)  # noqa: PT017, there may be an answer as well
        assert server.connections == len(server.requests) == 2


async def test_a_stray_answer_ends_its_connection_at_once(post: Post) -> None:
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response(b'"1"'))
        for _ in range(5):  # until the client has read it
            await asyncio.sleep(0)
        await connection.send(CREATED)
        await connection.gone()
        gone.set()

    async with RawServer(serve) as server:
        await post(server.url)
        async with asyncio.timeout(20):
            await gone.wait()


async def test_a_clean_connection_is_used_again_whatever_the_answer(post: Post) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    big = response(b'"' + b"x" * 1_000_000 + b'"')
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n""\r\n0\r\n\r\n'
    answers = [response(b'"1"'), early + response(b'"1"'), big, chunked, response(status="204 No Content")]

    async def serve(connection: Connection) -> None:
        for answer in [*answers, *answers]:
            await connection.read_request()
            await connection.send(answer)

    async with RawServer(serve) as server:
        for _ in range(2 * len(answers)):
            await post(server.url)
        assert server.connections == 1


# What is overridden: an aiohttp that has it no more would hand out everything again


def parameters(method: Callable[..., object]) -> list[str]:
    return list(inspect.signature(method).parameters)


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        (CleanConnector, BaseConnector, "_wait_for_available_connection"),
        (CleanConnector, BaseConnector, "_release"),
        (WatchedConnection, ResponseHandler, "data_received"),
        (WatchedConnection, ResponseHandler, "is_connected"),
    ],
)
def test_aiohttp_has_what_is_overridden(ours: type, theirs: type, name: str) -> None:
    assert name in vars(theirs)
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))


def test_what_takes_any_option_is_overridden_as_well() -> None:
    assert "set_response_params" in vars(ResponseHandler)
    options = list(inspect.signature(ResponseHandler.set_response_params).parameters.values())[1:]
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_nothing_else_is_overridden() -> None:
    for ours in (CleanConnector, WatchedConnection):
        theirs = {name for parent in ours.__mro__[1:-1] for name in vars(parent)}
        own = {name for name in vars(ours) if not name.startswith("__")}
        assert own & theirs <= {
            "_wait_for_available_connection",
            "_release",
            "set_response_params",
            "data_received",
            "is_connected",
        }


async def test_aiohttp_has_what_is_used() -> None:
    async with aiohttp.TCPConnector() as connector:
        connection = connector._factory()  # noqa: SLF001, this is the test of what is private
        assert type(connection) is ResponseHandler
        assert isinstance(ResponseHandler.should_close, property)
        connection.set_response_params()
        assert connection._parser is not None  # noqa: SLF001, the same
        assert connection._parser.feed_eof() is None  # noqa: SLF001, the same
        connection._parser.feed_data(b"HTTP/1.1 200 O")  # noqa: SLF001, the same
        assert connection._parser.feed_eof() is not None  # noqa: SLF001, the same
        assert parameters(connector._release_waiter) == []  # noqa: SLF001, the same
        assert connection.exception() is connection._exception is None  # noqa: SLF001, the same
        assert connection._payload is None  # noqa: SLF001, the same
    assert "_parser" in vars(BaseProtocol)
    assert "_parser" not in vars(WatchedConnection)


async def test_all_connections_are_watched(client: RelayClient) -> None:
    async with CleanConnector() as connector:
        assert type(connector._factory()) is WatchedConnection  # noqa: SLF001, this is the test of what is private
    session = client._relay._open_session()  # noqa: SLF001, it is shown nowhere else
    assert type(session.connector) is CleanConnector
