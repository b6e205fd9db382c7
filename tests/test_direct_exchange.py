from __future__ import annotations

import asyncio
import inspect
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import BaseConnector, Connection

from shared.api.business_api import NOT_SENT
from shared.api.transport import RelayClient, create_client
from tests.fakes.raw_server import RawServer, answering, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.raw_server import Connection as ServerConnection

CREATED = response(b"{}", status="201 Created")
# More than the buffers of a loopback connection take.
LARGE = b'"%s"' % (b"x" * 20_000_000)


@asynccontextmanager
async def calling(max_connections: int = 10) -> AsyncIterator[RelayClient]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with create_client(timeout=20, max_connections=max_connections, tls=tls) as client:
        yield client


# What is sent


@pytest.mark.parametrize("body", [b"", b"{}", LARGE], ids=["empty", "short", "large"])
async def test_all_of_the_body_is_sent_with_its_length(body: bytes) -> None:
    async with RawServer(answering(CREATED)) as server, calling() as client:
        post = client.exchange_with(server.url)
        for _ in range(2):
            assert (await post("POST", "/business/", {"content-type": "application/json"}, body)).status == 201
        assert server.connections == 1
        for request in server.requests:
            assert request.body == body
            assert request.values("content-length") == [str(len(body))]
            assert request.values("transfer-encoding") == []


async def test_a_header_that_would_be_two_reaches_nobody() -> None:
    async with RawServer(answering(CREATED)) as server, calling() as client:
        with pytest.raises(ValueError, match=r"^idempotency-key of a request has a character"):
            await client.exchange_with(server.url)("POST", "/", {"idempotency-key": "a\r\nx: y"}, b"{}")
        assert server.connections == 0


# Connections


async def test_a_connection_whose_request_was_not_read_to_its_end_is_not_used_again() -> None:
    async def serve(connection: ServerConnection) -> None:
        if connection.number > 1:
            await connection.read_request()
            await connection.send(response(b"whole"))
            return
        assert (await connection.read()).startswith(b"POST / HTTP/1.1\r\n")
        await connection.send(response(b"early", status="413 Content Too Large"))
        await connection.gone()

    async with RawServer(serve) as server, calling(max_connections=1) as client:
        post = client.exchange_with(server.url)
        reply = await post("POST", "/", {}, LARGE)
        assert (reply.status, reply.body) == (413, b"early")
        assert (await post("POST", "/", {}, b"{}")).body == b"whole"
        assert server.connections == 2


@pytest.mark.parametrize("end", ["Connection: close", "Upgrade: other\r\nConnection: upgrade"])
async def test_a_connection_that_serves_no_other_request_is_closed(end: str) -> None:
    status = "101 Switching Protocols" if "Upgrade" in end else "200 OK"

    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(response(b"", end, status=status))
        await connection.gone()

    async with RawServer(serve) as server, calling(max_connections=1) as client:
        exchange = client.exchange_with(server.url)
        for _ in range(2):
            async with asyncio.timeout(20):
                assert (await exchange("GET", "/", {})).status == int(status[:3])
        assert server.connections == 2


async def test_a_get_whose_connection_breaks_is_sent_once_more_and_not_twice() -> None:
    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        connection.reset()

    async with RawServer(serve) as server, calling(max_connections=1) as client:
        with pytest.raises(httpx.ReadError):
            await client.exchange_with(server.url)("GET", "/", {})
        assert len(server.requests) == 2


async def test_a_get_that_is_answered_by_no_http_is_not_sent_again() -> None:
    async with RawServer(answering(b"SSH-2.0-OpenSSH_9.9\r\n")) as server, calling() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.exchange_with(server.url)("GET", "/", {})
        assert len(server.requests) == 1


async def test_a_connection_that_was_lost_before_the_request_is_no_answer() -> None:
    async with RawServer(answering(CREATED)) as server, calling() as client:
        connector = client._relay.connector()  # noqa: SLF001, it is shown nowhere else
        connect = connector.connect

        async def connect_and_lose(
            req: aiohttp.ClientRequest,
            traces: list[object],
            timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109, aiohttp names it
        ) -> Connection:
            connection = await connect(req, traces, timeout)  # type: ignore[arg-type]  # it has no traces
            assert connection.transport is not None
            connection.transport.close()
            return connection

        connector.connect = connect_and_lose  # type: ignore[method-assign,assignment]  # this is the fake
        with pytest.raises(httpx.ReadError) as caught:
            await client.exchange_with(server.url)("POST", "/", {}, b"{}")
        assert server.requests == []
        connector.connect = connect  # type: ignore[method-assign]  # as it was
        assert (await client.exchange_with(server.url)("POST", "/", {}, b"{}")).status == 201
    assert not isinstance(caught.value, NOT_SENT)  # it takes the side of caution


async def test_a_closed_client_makes_no_connection() -> None:
    async with RawServer(answering(CREATED)) as server:
        async with calling() as client:
            exchange = client.exchange_with(server.url)
            await exchange("GET", "/", {})
        with pytest.raises(RuntimeError, match="the client is closed"):
            await exchange("GET", "/", {})
        assert server.connections == 1


async def test_every_end_gives_the_connection_back() -> None:
    answers = [CREATED, response(status="204 No Content"), response(b"x" * 5_000_000), b"no HTTP", b""]

    async def serve(connection: ServerConnection) -> None:
        await connection.read_request()
        await connection.send(answers[(connection.number - 1) % len(answers)])

    async with RawServer(serve) as server, calling(max_connections=1) as client:
        exchange = client.exchange_with(server.url)
        for _ in range(10):
            # With one connection, the next call comes to none if it was kept.
            async with asyncio.timeout(20):
                try:
                    await exchange("POST", "/", {}, b"{}")
                except httpx.TransportError as exc:
                    assert not isinstance(exc, NOT_SENT)  # noqa: PT017, there may be an answer as well


# What is used of aiohttp: with another it must be looked at again


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


async def test_the_direct_way_and_httpx_share_their_connections() -> None:
    async with RawServer(answering(CREATED)) as server, calling() as client:
        await client.exchange_with(server.url)("GET", "/", {})
        await client.get(server.url)
        await client.exchange_with(server.url + "/other")("GET", "/", {})
        assert server.connections == 1
