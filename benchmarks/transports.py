"""What each transport makes of a server, a pool, a certificate or a proxy that does not do its part.

Speed is not all: a request that may have been sent must never pass for one that was not, whoever believes that posts a
record twice. Every transport goes under an httpx client and is asked the same; a wrong answer is set in bold.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import httpx

from shared.client.resource_api import ResourceApi
from shared.client.transport import NOT_SENT, RelayTransport
from shared.errors import ApiConnectError, ApiInterruptedError, ApiUnavailableError
from shared.rules.record import CheckedRecord
from tests.fakes.raw_server import RawServer, answering, answering_once, response
from tests.fakes.tls import tls_server
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from tests.fakes.raw_server import Connection, Serve

    Open = Callable[["Options"], AbstractAsyncContextManager["Client"]]
    # What happened, and whether that is right.
    Answer = tuple[str, bool]
    Probe = Callable[[Open], Awaitable[Answer]]

SHORT, PATIENT = 0.3, 5.0  # seconds
FEW = 2  # connections
AWAY = "https://partner.invalid/"
RECORD = CheckedRecord("P-1", b'{"parcelId":"P-1","weight":1.5}')


class Client(Protocol):
    """What posts: every httpx client does."""

    def post(self, url: str, *, timeout: httpx.Timeout = ...) -> Coroutine[Any, Any, httpx.Response]:
        """Return the response."""


@dataclass(frozen=True)
class Options:
    """What a client is made with: `trusted` is the PEM file of the one certificate that it trusts."""

    connections: int = 100
    trusted: Path | None = None

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context."""
        return ssl.create_default_context(cafile=self.trusted)

    def timeout(self) -> httpx.Timeout:
        """Return the timeouts."""
        return httpx.Timeout(SHORT, pool=SHORT)


class OwnCalls:
    """Posts as records are posted: the transport driven directly."""

    def __init__(self, transport: RelayTransport) -> None:
        self._transport = transport

    async def post(self, url: str, *, timeout: httpx.Timeout | None = None) -> httpx.Response:  # noqa: ASYNC109, as httpx has it
        """Return the response."""
        seconds = (timeout.read if timeout else None) or SHORT
        api = ResourceApi(self._transport, httpx.Auth(), url, timeout=seconds)
        answer = await api.post(PARCEL, RECORD, idempotency_key="k")
        return httpx.Response(answer.status, json=answer.content)


def own_transport(options: Options) -> RelayTransport:
    """Return our transport, with the proxy of the environment."""
    proxy = os.environ.get("HTTPS_PROXY")
    return RelayTransport(max_connections=options.connections, tls=options.tls(), proxy=proxy)


@asynccontextmanager
async def own(options: Options) -> AsyncIterator[OwnCalls]:
    """Ours, as records take it."""
    async with own_transport(options) as transport:
        yield OwnCalls(transport)


@asynccontextmanager
async def own_under_httpx(options: Options) -> AsyncIterator[httpx.AsyncClient]:
    """Ours, under an httpx client."""
    async with httpx.AsyncClient(transport=own_transport(options), timeout=options.timeout()) as client:
        yield client


@asynccontextmanager
async def over_httpcore(options: Options) -> AsyncIterator[httpx.AsyncClient]:
    """Httpx as it comes."""
    limits = httpx.Limits(max_connections=options.connections)
    async with httpx.AsyncClient(verify=options.tls(), limits=limits, timeout=options.timeout()) as client:
        yield client


@asynccontextmanager
async def over_aiohttp(options: Options) -> AsyncIterator[httpx.AsyncClient]:
    """Httpx over httpx-aiohttp."""
    from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415, a peer's library

    limits = httpx.Limits(max_connections=options.connections)
    transport = AiohttpTransport(verify=options.tls(), limits=limits)
    async with httpx.AsyncClient(transport=transport, timeout=options.timeout()) as client:
        yield client


@asynccontextmanager
async def over_reqwest(options: Options) -> AsyncIterator[httpx.AsyncClient]:
    """Httpx over pyreqwest, which takes certificates and no TLS context."""
    from pyreqwest.client import ClientBuilder  # noqa: PLC0415, a peer's library
    from pyreqwest.compatibility.httpx import HttpxTransport  # noqa: PLC0415, the same

    builder = ClientBuilder().max_connections(options.connections).pool_timeout(timedelta(seconds=SHORT))
    if options.trusted:
        builder = builder.add_root_certificate_pem(options.trusted.read_bytes())
    async with (
        builder.build() as reqwest,
        httpx.AsyncClient(transport=HttpxTransport(reqwest), timeout=options.timeout()) as client,
    ):
        yield client


TRANSPORTS: dict[str, Open] = {
    "httpx's own": over_httpcore,
    "httpx-aiohttp": over_aiohttp,
    "httpx over pyreqwest": over_reqwest,
    "ours, under httpx": own_under_httpx,
    "ours": own,
}


def compare() -> list[Sequence[str]]:
    """Ask every transport everything; return a table."""
    return asyncio.run(_compare())


async def _compare() -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("what happens", *TRANSPORTS)]
    for what, probe in PROBES.items():
        answers = [await asyncio.wait_for(probe(transport), 4 * PATIENT) for transport in TRANSPORTS.values()]
        rows.append((what, *(text if is_right else f"**{text}**" for text, is_right in answers)))
    return rows


def _fault_of(serve: Serve, *, is_kept: bool = False) -> Probe:
    """Ask for the error of a POST that the server has read; `is_kept`, on a connection that has served another."""

    async def probe(transport: Open) -> Answer:
        async with RawServer(serve) as server, transport(Options()) as client:
            if is_kept:
                await client.post(server.url)
            return await _error(client.post(server.url), was_sent=True)

    return probe


async def _error(call: Awaitable[object], *, was_sent: bool) -> Answer:
    try:
        await call
    except httpx.TransportError as exc:
        return type(exc).__name__, isinstance(exc, NOT_SENT) is not was_sent
    except (ApiConnectError, ApiInterruptedError) as exc:
        return type(exc.__cause__ or exc).__name__, isinstance(exc, ApiConnectError) is not was_sent
    except Exception as exc:  # noqa: BLE001, whatever a library raises: it is not what an httpx client raises
        return f"{type(exc).__module__.partition('.')[0]}'s {type(exc).__name__}", False
    return "no error", False


async def _reset(connection: Connection) -> None:
    await connection.read_request()
    connection.reset()


async def _never(connection: Connection) -> None:
    await connection.read_request()
    await connection.gone()


async def _once_more(connection: Connection) -> None:
    """Answer one request, and close the connection when another has been read."""
    await connection.read_request()
    await connection.send(response())
    await connection.read_request()


async def _refused(transport: Open) -> Answer:
    async with RawServer(_never) as server:
        url = server.url
    async with transport(Options()) as client:
        return await _error(client.post(url), was_sent=False)


async def _dropped_while_idle(transport: Open) -> Answer:
    """Tell whether a POST goes out on another connection when the server has closed the idle one."""
    closed = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.close()
        closed.set()

    async with RawServer(serve) as server, RawServer(answering(response())) as other, transport(Options()) as client:
        await client.post(server.url)
        await closed.wait()
        await client.post(other.url)  # meanwhile the client sees the end of the first connection
        try:
            await client.post(server.url)
        except (httpx.TransportError, ApiUnavailableError) as exc:
            return type(exc).__name__, False
        return "another connection", len(server.requests) == FEW


async def _answered_twice(transport: Open) -> Answer:
    """Tell whether a POST takes the second answer to the one before for its own."""
    stray = response(b'"stray"', status="201 Created")

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response(b'"%d"' % connection.number))
        await answered.wait()
        await connection.send(stray)
        strayed.set()
        await connection.read_request()
        await connection.gone()

    answered, strayed = asyncio.Event(), asyncio.Event()
    async with RawServer(serve) as server, RawServer(answering(response())) as other, transport(Options()) as client:
        await client.post(server.url)
        answered.set()
        await strayed.wait()
        await client.post(other.url)  # meanwhile the client sees the second answer
        try:
            answer = await client.post(server.url)
        except (httpx.TransportError, ApiInterruptedError) as exc:
            return type(exc.__cause__ or exc).__name__, True
        return ("another connection", True) if answer.json() == "2" else ("the second answer", False)


async def _pool_limit(transport: Open) -> Answer:
    async with RawServer(answering(response())) as server, transport(Options(connections=FEW)) as client:
        await asyncio.gather(*(client.post(server.url) for _ in range(10 * FEW)))
        return f"{server.connections} connections", server.connections <= FEW


async def _pool_exhausted(transport: Open) -> Answer:
    async with RawServer(_never) as server, transport(Options(connections=1)) as client:
        held = asyncio.create_task(client.post(server.url, timeout=httpx.Timeout(PATIENT)))
        await server.came.wait()
        answer = await _error(client.post(server.url), was_sent=False)
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        return answer


async def _cancelled(transport: Open) -> Answer:
    """Tell whether the connection of a cancelled call is closed: its response must be nobody else's."""
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.gone()
        gone.set()

    async with RawServer(serve) as server, transport(Options()) as client:
        call = asyncio.create_task(client.post(server.url, timeout=httpx.Timeout(PATIENT)))
        await server.came.wait()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        try:
            await asyncio.wait_for(gone.wait(), PATIENT)
        except TimeoutError:
            return "connection goes on", False
        return "connection closed", True


def _tls(*, is_trusted: bool) -> Probe:
    async def probe(transport: Open) -> Answer:
        with tempfile.TemporaryDirectory() as folder:
            context, trusted = tls_server(Path(folder))
            options = Options(trusted=trusted if is_trusted else None)
            async with RawServer(answering(response()), tls=context) as server, transport(options) as client:
                if not is_trusted:
                    return await _error(client.post(server.url), was_sent=False)
                return f"{(await client.post(server.url)).status_code}", True

    return probe


async def _proxy_of_the_environment(transport: Open) -> Answer:
    async with RawServer(answering_once(response(status="403 Forbidden"))) as proxy:
        before = os.environ.get("HTTPS_PROXY")
        os.environ["HTTPS_PROXY"] = proxy.url
        try:
            async with transport(Options()) as client:
                text, is_right = await _error(client.post(AWAY), was_sent=False)
        finally:
            del os.environ["HTTPS_PROXY"]
            if before is not None:
                os.environ["HTTPS_PROXY"] = before
        return (text, is_right) if proxy.requests else ("proxy is not asked", False)


PROBES: dict[str, Probe] = {
    "server closes without a response": _fault_of(answering_once(b"")),
    "server resets the connection": _fault_of(_reset),
    "server closes within the headers": _fault_of(answering_once(b"HTTP/1.1 200 OK\r\nA: b\r\n")),
    "server closes within the body": _fault_of(answering_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")),
    "server closes a connection that has served before": _fault_of(_once_more, is_kept=True),
    "server never answers": _fault_of(_never),
    "server speaks another protocol": _fault_of(answering_once(b"SSH-2.0-OpenSSH_9.9\r\n")),
    "nobody listens": _refused,
    "server has closed an idle connection": _dropped_while_idle,
    "server answers twice": _answered_twice,
    "20 calls at once, 2 connections allowed": _pool_limit,
    "all connections are in use for too long": _pool_exhausted,
    "the call is cancelled": _cancelled,
    "certificate is trusted": _tls(is_trusted=True),
    "certificate is not trusted": _tls(is_trusted=False),
    "`HTTPS_PROXY` names a proxy, which refuses": _proxy_of_the_environment,
}
