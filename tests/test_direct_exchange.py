from __future__ import annotations

import asyncio
import contextlib
import inspect
import ssl
import traceback
from asyncio.sslproto import SSLProtocol
from functools import partial
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector, Connection

from shared.api.business_api import NOT_SENT
from shared.api.transport import CONNECT_TIMEOUT, POOL_SHARE, RelayClient, create_client
from tests.fakes.passing_time import let_pass
from tests.fakes.raw_server import RawServer, answering, response
from tests.fakes.tls import tls_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.fakes.raw_server import Connection as ServerConnection
    from tests.fakes.raw_server import Serve

    Serving = Callable[[Serve], RawServer]
    Calling = Callable[..., RelayClient]

CREATED = response(b"{}", status="201 Created")
TOKEN = "t0ken-with-s3cret"
# More than the buffers of a loopback connection take.
LARGE = b'"%s"' % (b"x" * 20_000_000)
# Longer than anything takes.
PATIENT = 20


@pytest.fixture(scope="module")
def of_server_and_client(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    of_server, trusted = tls_server(tmp_path_factory.mktemp("tls"))
    return of_server, ssl.create_default_context(cafile=trusted)


@pytest.fixture(params=["plain", "tls"])
def serving(request: pytest.FixtureRequest, of_server_and_client: tuple[ssl.SSLContext, ssl.SSLContext]) -> Serving:
    """Give what makes a server, with or without TLS: what follows holds for both."""
    return partial(RawServer, tls=of_server_and_client[0] if request.param == "tls" else None)


@pytest.fixture
def calling(of_server_and_client: tuple[ssl.SSLContext, ssl.SSLContext]) -> Calling:
    return partial(create_client, timeout=PATIENT, max_connections=1, tls=of_server_and_client[1])


def connector_of(client: RelayClient) -> aiohttp.BaseConnector:
    return client._relay.connector()  # noqa: SLF001, it is shown nowhere else


def losing(client: RelayClient, number: int) -> None:
    """Have the client's `number`-th connection, from 1, lost before the request is sent."""
    connector, connections = connector_of(client), 0
    connect = connector.connect

    async def connect_and_lose(
        req: aiohttp.ClientRequest,
        traces: list[object],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109, aiohttp names it
    ) -> Connection:
        nonlocal connections
        connections += 1
        connection = await connect(req, traces, timeout)  # type: ignore[arg-type]  # it has no traces
        if connections == number:
            assert connection.transport is not None
            connection.transport.close()
        return connection

    connector.connect = connect_and_lose  # type: ignore[method-assign,assignment]  # this is the fake


# What is sent


@pytest.mark.parametrize("body", [b"", b"{}", LARGE], ids=["empty", "short", "large"])
async def test_all_of_the_body_is_sent_with_its_length(serving: Serving, calling: Calling, body: bytes) -> None:
    async with serving(answering(CREATED)) as server, calling() as client:
        post = client.exchange_with(server.url)
        for _ in range(2):
            assert (await post("POST", "/business/", {"content-type": "application/json"}, body)).status == 201
        assert server.connections == 1
        for request in server.requests:
            assert request.body == body
            assert request.values("content-length") == [str(len(body))]
            assert request.values("transfer-encoding") == []


async def test_a_header_that_would_be_two_reaches_nobody(calling: Calling) -> None:
    async with RawServer(answering(CREATED)) as server, calling() as client:
        with pytest.raises(ValueError, match=r"^idempotency-key of a request has a character"):
            await client.exchange_with(server.url)("POST", "/", {"idempotency-key": "a\r\nx: y"}, b"{}")
        assert server.connections == 0


async def test_what_is_left_of_a_request_that_was_given_up_is_not_sent(serving: Serving, calling: Calling) -> None:
    came, given_up, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()
    received = 0

    async def serve(connection: ServerConnection) -> None:
        nonlocal received
        received += len(await connection.read())
        came.set()
        await given_up.wait()
        with contextlib.suppress(ConnectionError):
            while octets := await connection.read():
                received += len(octets)
        ended.set()

    async with serving(serve) as server, calling() as client:
        call = asyncio.create_task(client.exchange_with(server.url)("POST", "/", {}, LARGE))
        async with asyncio.timeout(PATIENT):
            await came.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            given_up.set()
            await ended.wait()
    assert 0 < received < len(LARGE)


def test_plain_http_does_not_go_through_a_proxy(calling: Calling) -> None:
    client = calling(proxy="http://127.0.0.1:9")
    with pytest.raises(ValueError, match="plain http does not go through a proxy"):
        client.exchange_with("http://127.0.0.1:8")


# Connections


async def test_a_connection_whose_request_was_not_read_to_its_end_is_not_used_again(
    serving: Serving, calling: Calling
) -> None:
    async def serve(connection: ServerConnection) -> None:
        if connection.number > 1:
            await connection.read_request()
            await connection.send(response(b"whole"))
            return
        assert (await connection.read()).startswith(b"POST / HTTP/1.1\r\n")
        await connection.send(response(b"early", status="413 Content Too Large"))
        await connection.gone()

    async with serving(serve) as server, calling() as client:
        post = client.exchange_with(server.url)
        reply = await post("POST", "/", {}, LARGE)
        assert (reply.status, reply.body) == (413, b"early")
        async with asyncio.timeout(PATIENT):
            assert (await post("POST", "/", {}, b"{}")).body == b"whole"
        assert server.connections == 2


async def test_what_comes_with_the_rest_of_a_body_ends_its_connection_alone(serving: Serving, calling: Calling) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\n12")
        for _ in range(20):  # until the client has read it
            await asyncio.sleep(0)
        await connection.send(b"34x")
        await connection.gone()

    async with serving(serve) as server, calling() as client:
        for _ in range(2):
            async with asyncio.timeout(PATIENT):
                reply = await client.exchange_with(server.url)("POST", "/", {}, b"{}")
            assert (reply.status, reply.body) == (201, b"1234")
        assert server.connections == 2


@pytest.mark.parametrize("end", ["Connection: close", "Upgrade: other\r\nConnection: upgrade"])
async def test_a_connection_that_serves_no_other_request_is_closed(
    serving: Serving, calling: Calling, end: str
) -> None:
    status = "101 Switching Protocols" if "Upgrade" in end else "200 OK"

    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(response(b"", end, status=status))
        await connection.gone()

    async with serving(serve) as server, calling() as client:
        exchange = client.exchange_with(server.url)
        for _ in range(2):
            async with asyncio.timeout(PATIENT):
                assert (await exchange("GET", "/", {})).status == int(status[:3])
        assert server.connections == 2


async def test_a_status_below_100_is_none_to_wait_behind(calling: Calling) -> None:
    async with RawServer(answering(response(status="099 What"))) as server, calling() as client:
        async with asyncio.timeout(PATIENT):
            assert (await client.exchange_with(server.url)("POST", "/", {}, b"{}")).status == 99


async def test_a_body_without_end_is_given_up(serving: Serving, calling: Calling) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            await connection.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

    async with serving(serve) as server, calling() as client:
        async with asyncio.timeout(PATIENT):
            with pytest.raises(httpx.ReadError, match="more than"):
                await client.exchange_with(server.url)("GET", "/", {})


async def test_a_get_whose_connection_breaks_is_sent_once_more_and_not_twice(calling: Calling) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        connection.reset()

    async with RawServer(serve) as server, calling() as client:
        with pytest.raises(httpx.ReadError):
            await client.exchange_with(server.url)("GET", "/", {})
        assert len(server.requests) == 2


async def test_a_get_that_is_answered_by_no_http_is_not_sent_again(calling: Calling) -> None:
    async with RawServer(answering(b"SSH-2.0-OpenSSH_9.9\r\n")) as server, calling() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.exchange_with(server.url)("GET", "/", {})
        assert len(server.requests) == 1


def breaking_off_with(token: str, server: list[RawServer]) -> Serve:
    """Break off within the headers, and let no other connection come where the server is given."""

    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        for each in server:
            each.stop_listening()
        await connection.send(f"HTTP/1.1 200 OK\r\nx: Bearer {token}\r\n".encode())

    return serve


async def test_a_get_that_was_read_is_never_one_that_was_not_sent(calling: Calling) -> None:
    stopping: list[RawServer] = []
    async with RawServer(breaking_off_with(TOKEN, stopping)) as server, calling() as client:
        stopping.append(server)
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.exchange_with(server.url)("GET", "/", {})
        assert len(server.requests) == server.connections == 1
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


async def test_a_get_that_is_sent_once_more_drags_no_word_of_the_server_along(calling: Calling) -> None:
    async with RawServer(breaking_off_with(TOKEN, [])) as server, calling() as client:
        losing(client, 2)
        with pytest.raises(httpx.TransportError) as caught:
            await client.exchange_with(server.url)("GET", "/", {})
        assert len(server.requests) == 1
    assert TOKEN not in "".join(traceback.format_exception(caught.value))
    assert not isinstance(caught.value, NOT_SENT)


@pytest.mark.parametrize("rest", [f"{TOKEN}\r\n", f"5\r\nabcde{TOKEN}\r\n", f"5;{TOKEN}\x00\r\n"])
async def test_a_body_that_is_broken_ends_at_once_and_drags_no_word_of_the_server_along(
    serving: Serving, calling: Calling, rest: str
) -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n")
        for _ in range(20):  # until the client has read it
            await asyncio.sleep(0)
        await connection.send(rest.encode())
        await connection.gone()

    async with serving(serve) as server, calling() as client:
        async with asyncio.timeout(PATIENT):
            with pytest.raises(httpx.ReadError, match="body is broken") as caught:
                await client.exchange_with(server.url)("POST", "/", {}, b"{}")
    assert caught.value.__cause__ is None
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


async def test_a_connection_that_was_lost_before_the_request_is_no_answer(serving: Serving, calling: Calling) -> None:
    async with serving(answering(CREATED)) as server, calling() as client:
        losing(client, 1)
        post = client.exchange_with(server.url)
        with pytest.raises(httpx.ReadError) as caught:
            await post("POST", "/", {}, b"{}")
        assert server.requests == []
        assert (await post("POST", "/", {}, b"{}")).status == 201
    assert not isinstance(caught.value, NOT_SENT)  # it takes the side of caution


async def test_a_closed_client_makes_no_connection(calling: Calling) -> None:
    async with RawServer(answering(CREATED)) as server:
        async with calling() as client:
            exchange = client.exchange_with(server.url)
            await exchange("GET", "/", {})
        with pytest.raises(RuntimeError, match="the client is closed"):
            await exchange("GET", "/", {})
        assert server.connections == 1


async def test_every_end_gives_the_connection_back(serving: Serving, calling: Calling) -> None:
    answers = [CREATED, response(status="204 No Content"), response(b"x" * 5_000_000), b"no HTTP", b""]

    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(answers[(connection.number - 1) % len(answers)])

    async with serving(serve) as server, calling() as client:
        exchange = client.exchange_with(server.url)
        for _ in range(2 * len(answers)):
            async with asyncio.timeout(PATIENT):
                try:
                    await exchange("POST", "/", {}, b"{}")
                except httpx.TransportError as exc:
                    assert not isinstance(exc, NOT_SENT)  # noqa: PT017, there may be an answer as well
            assert not connector_of(client)._acquired  # noqa: SLF001, it is shown nowhere else


async def test_a_call_that_is_cancelled_as_it_is_told_of_a_connection_leaves_it_to_the_next(calling: Calling) -> None:
    free = asyncio.Event()

    async def serve(connection: ServerConnection) -> None:
        while True:
            await connection.read_request()
            await free.wait()
            await connection.send(CREATED)

    async with RawServer(serve) as server, calling() as client:
        connector, post = connector_of(client), client.exchange_with(server.url)
        release_waiter = connector._release_waiter  # noqa: SLF001, there is no other place between
        first, second, third = (asyncio.create_task(post("POST", "/", {}, b"{}")) for _ in range(3))

        def tell_and_cancel() -> None:
            release_waiter()
            second.cancel()

        async with asyncio.timeout(PATIENT):
            await server.came.wait()
            connector._release_waiter = tell_and_cancel  # type: ignore[method-assign]  # noqa: SLF001, the same
            free.set()
            assert (await first).status == (await third).status == 201
            with pytest.raises(asyncio.CancelledError):
                await second
        assert server.connections == 1


async def test_making_a_connection_takes_no_longer_than_it_may_though_one_could_be_waited_for(calling: Calling) -> None:
    accepted = asyncio.Event()

    async def serve(connection: ServerConnection) -> None:
        accepted.set()
        await connection.gone()

    async with RawServer(serve) as server, calling() as client:
        assert CONNECT_TIMEOUT < 6
        assert POOL_SHARE * PATIENT > 14
        call = asyncio.create_task(client.exchange_with(server.url.replace("http:", "https:"))("POST", "/", {}, b"{}"))
        async with asyncio.timeout(14):
            await accepted.wait()
            await let_pass(6)
            with pytest.raises(httpx.ConnectTimeout):
                await call


# What is used of aiohttp, and of asyncio below TLS: with another it must be looked at again


def parameters(method: Callable[..., object]) -> list[str]:
    return list(inspect.signature(method).parameters)


def test_aiohttp_has_what_is_used() -> None:
    assert parameters(BaseConnector.connect) == ["self", "req", "traces", "timeout"]
    assert {"read_until_eof", "auto_decompress", "skip_payload"} <= {*parameters(ResponseHandler.set_response_params)}
    assert parameters(ResponseHandler.read) == ["self"]
    assert parameters(Connection.release) == parameters(Connection.close) == ["self"]
    assert isinstance(Connection.transport, property)
    assert isinstance(Connection.protocol, property)
    assert {"proxy", "proxy_headers"} <= {*parameters(aiohttp.ClientRequest)}
    assert isinstance(aiohttp.ClientRequest.connection_key, property)
    assert issubclass(aiohttp.ConnectionTimeoutError, TimeoutError)


async def test_asyncio_shows_what_is_below_tls(
    of_server_and_client: tuple[ssl.SSLContext, ssl.SSLContext], calling: Calling
) -> None:
    async with RawServer(answering(CREATED), tls=of_server_and_client[0]) as server, calling() as client:
        await client.get(server.url)
        [[(protocol, _)]] = connector_of(client)._conns.values()  # noqa: SLF001, this is the test of what is private
        tls = protocol.transport._ssl_protocol  # type: ignore[union-attr]  # noqa: SLF001, the same
        assert isinstance(tls, SSLProtocol)
        assert tls._transport.get_write_buffer_size() == 0  # type: ignore[union-attr]  # noqa: SLF001, the same


async def test_the_direct_way_and_httpx_share_their_connections(serving: Serving, calling: Calling) -> None:
    async with serving(answering(CREATED)) as server, calling() as client:
        await client.exchange_with(server.url)("GET", "/", {})
        await client.get(server.url)
        await client.exchange_with(server.url + "/other")("GET", "/", {})
        assert server.connections == 1
