from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
import ssl
import traceback
import zlib
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
import pytest
from aiohttp.compression_utils import HAS_BROTLI, HAS_ZSTD
from aiohttp.http_exceptions import HttpProcessingError

from shared.api.business_api import NOT_SENT
from shared.api.time_limit import TimeLimit
from shared.api.transport import create_client
from shared.api.transport_faults import transport_fault
from tests.fakes.passing_time import let_pass
from tests.fakes.raw_server import Connection, RawServer, answering, answering_once, response
from tests.fakes.tls import tls_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from shared.api.transport import RelayClient
    from tests.fakes.raw_server import Serve

    Calling = Callable[..., AbstractAsyncContextManager["Caller"]]

OK = b"HTTP/1.1 200 OK\r\n"
TOKEN = "t0ken-with-s3cret"
# Long enough for a machine under load; what is to run out has a short one.
PATIENT, SHORT = 20.0, 0.2


@dataclass(frozen=True)
class Answer:
    """A response, whichever way it came."""

    status_code: int
    content: bytes


def origin_and_path(url: str) -> tuple[str, str]:
    scheme, rest = url.split("//")
    authority, slash, path = rest.partition("/")
    return f"{scheme}//{authority}", (slash or "/") + path


@dataclass(frozen=True)
class Caller:
    """Calls through an httpx client, as token requests do, or past it, as each record does."""

    client: RelayClient
    is_past_httpx: bool

    async def request(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109, it is the client's
    ) -> Answer:
        headers = {**(headers or {}), "authorization": f"Bearer {TOKEN}"}
        if self.is_past_httpx:
            server, path = origin_and_path(url)
            with TimeLimit(PATIENT):
                reply = await self.client.exchange_with(server)(method, path, headers, content)
            return Answer(reply.status, reply.body)
        limits = self.client.timeout if timeout is None else httpx.Timeout(timeout)
        response = await self.client.request(method, url, headers=headers, content=content, timeout=limits)
        return Answer(response.status_code, response.content)

    def post(self, url: str, **options: Any) -> Coroutine[Any, Any, Answer]:  # noqa: ANN401, they are those of `request`
        return self.request("POST", url, **options)

    def get(self, url: str) -> Coroutine[Any, Any, Answer]:
        return self.request("GET", url)


@pytest.fixture(params=["httpx", "exchange"])
def calling(request: pytest.FixtureRequest) -> Calling:
    """Give what makes a caller, the one or the other way: all that follows holds for both."""

    @asynccontextmanager
    async def calling(
        *,
        timeout: float = PATIENT,  # noqa: ASYNC109, it is the client's
        max_connections: int = 10,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> AsyncIterator[Caller]:
        tls = tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with create_client(timeout=timeout, max_connections=max_connections, tls=tls, proxy=proxy) as client:
            yield Caller(client, is_past_httpx=request.param == "exchange")

    return calling


async def fault_of(calling: Calling, serve: Serve) -> Exception:
    """What a POST to this server raises."""
    async with RawServer(serve) as server, calling() as client:
        with pytest.raises((httpx.TransportError, TimeoutError)) as caught:
            await client.post(server.url, content=b"{}")
        assert len(server.requests) == 1
    return caught.value


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


async def hold(connection: Connection) -> None:
    """Read a request, and never answer."""
    await connection.read_request()
    await connection.gone()


async def reset_at_once(connection: Connection) -> None:
    await connection.read_request()
    connection.reset()


async def reset_in_body(connection: Connection) -> None:
    await connection.read_request()
    await connection.send(OK + b"Content-Length: 10\r\n\r\nabc")
    connection.reset()


def holding_after(octets: bytes) -> Serve:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(octets)
        await let_pass(PATIENT)
        await connection.gone()

    return serve


# What was not sent


async def test_a_refused_connection_was_not_sent(calling: Calling) -> None:
    async with calling() as client:
        with pytest.raises(httpx.ConnectError, match="Cannot connect"):
            await client.post(f"http://127.0.0.1:{unused_port()}/")


async def test_an_unknown_host_was_not_sent(calling: Calling) -> None:
    async with calling() as client:
        with pytest.raises(httpx.ConnectError):
            await client.post("http://no-such-host.invalid/")


async def test_a_call_that_gets_no_connection_of_the_pool_in_time_was_not_sent(calling: Calling) -> None:
    async with RawServer(hold) as server, calling(timeout=SHORT, max_connections=1) as client:
        held = asyncio.create_task(client.post(server.url, timeout=PATIENT))
        async with asyncio.timeout(PATIENT):
            await server.came.wait()
        with pytest.raises(httpx.ConnectTimeout):
            await client.post(server.url)
        assert len(server.requests) == server.connections == 1
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held


async def test_a_connection_whose_tls_handshake_does_not_end_was_not_sent(calling: Calling) -> None:
    async with RawServer(Connection.gone) as server, calling(timeout=SHORT) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.post(server.url.replace("http:", "https:"))


async def test_a_server_whose_certificate_is_not_trusted_is_sent_nothing(calling: Calling, tmp_path: Path) -> None:
    context, _ = tls_server(tmp_path)
    async with RawServer(hold, tls=context) as server, calling(tls=ssl.create_default_context()) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.post(server.url)
        assert server.requests == []


async def test_a_server_whose_certificate_is_for_another_name_is_sent_nothing(calling: Calling, tmp_path: Path) -> None:
    context, trusted = tls_server(tmp_path)
    tls = ssl.create_default_context(cafile=trusted)
    async with RawServer(hold, tls=context) as server, calling(tls=tls) as client:
        with pytest.raises(httpx.ConnectError, match="match"):
            await client.post(server.url.replace("127.0.0.1", "localhost"))
        assert server.requests == []


@pytest.mark.parametrize("octets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["plain http", "closed"])
async def test_a_server_that_does_not_speak_tls_is_sent_nothing(calling: Calling, octets: bytes) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read()
        await connection.send(octets)

    async with RawServer(serve) as server, calling() as client:
        with pytest.raises(httpx.ConnectError):
            await client.post(server.url.replace("http:", "https:"))


async def test_a_trusted_server_is_called_over_tls(calling: Calling, tmp_path: Path) -> None:
    context, trusted = tls_server(tmp_path)
    tls = ssl.create_default_context(cafile=trusted)
    async with RawServer(answering(response(b"hi")), tls=context) as server, calling(tls=tls) as client:
        assert (await client.post(server.url)).content == b"hi"


# What may have been sent


@pytest.mark.parametrize(
    ("serve", "fault"),
    [
        pytest.param(answering_once(b""), httpx.RemoteProtocolError, id="closed without a response"),
        pytest.param(reset_at_once, httpx.ReadError, id="reset without a response"),
        pytest.param(answering_once(OK), httpx.RemoteProtocolError, id="closed in the headers"),
        pytest.param(answering_once(OK + b"a: b\r\n"), httpx.RemoteProtocolError, id="closed after a header"),
        pytest.param(answering_once(b"SSH-2.0-OpenSSH_9.9\r\n"), httpx.RemoteProtocolError, id="another protocol"),
        pytest.param(answering_once(b"\x00\xff" * 50), httpx.RemoteProtocolError, id="no text at all"),
        pytest.param(answering_once(b"HTTP/1.1 abc\r\n\r\n"), httpx.RemoteProtocolError, id="no status"),
        pytest.param(
            answering_once(OK + b"a: " + b"b" * 100_000 + b"\r\n\r\n"), httpx.RemoteProtocolError, id="endless header"
        ),
        pytest.param(
            answering_once(OK + b"Content-Length: -1\r\n\r\n"), httpx.RemoteProtocolError, id="negative length"
        ),
        pytest.param(
            answering_once(OK + b"Content-Length: 10\r\n\r\nabc"), httpx.ReadError, id="less body than its length"
        ),
        pytest.param(reset_in_body, httpx.ReadError, id="reset in the body"),
        pytest.param(
            answering_once(OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab"), httpx.ReadError, id="less than a chunk"
        ),
        pytest.param(
            answering_once(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), httpx.ReadError, id="no last chunk"
        ),
    ],
)
async def test_a_fault_after_the_request_was_read_never_says_that_it_was_not_sent(
    calling: Calling, serve: Serve, fault: type[httpx.TransportError]
) -> None:
    caught = await fault_of(calling, serve)
    assert type(caught) is fault
    assert not isinstance(caught, NOT_SENT)
    assert str(caught)


@pytest.mark.parametrize(
    "octets",
    [b"", OK, OK + b"Content-Length: 10\r\n\r\n", OK + b"Content-Length: 10\r\n\r\nabc"],
    ids=["no response", "in the headers", "before the body", "in the body"],
)
async def test_a_response_that_stops_coming_is_a_read_timeout(calling: Calling, octets: bytes) -> None:
    caught = await fault_of(calling, holding_after(octets))
    # Past httpx the caller's limit for the whole call ends it: `BusinessApi` says then that it may have been sent.
    assert type(caught) in {httpx.ReadTimeout, TimeoutError}


@dataclass
class Breaking:
    """A session, and its connector, whose responses fail: aiohttp's own causes cannot all be had from a server."""

    session: aiohttp.ClientSession
    cause: Exception
    is_in_body: bool

    async def request(self, *args: Any, **options: Any) -> aiohttp.ClientResponse:  # noqa: ANN401, it hands them on
        response = await self.session.request(*args, **options)
        if not self.is_in_body:
            response.close()
            raise self.cause
        response.content.set_exception(self.cause)
        return response

    @property
    def connector(self) -> Breaking:
        return self

    @property
    def closed(self) -> bool:
        return self.session.closed

    async def connect(self, *args: Any) -> Any:  # noqa: ANN401, it hands them on
        assert self.session.connector is not None
        connection = await self.session.connector.connect(*args)
        protocol = connection.protocol
        assert protocol is not None
        read = protocol.read

        async def read_and_fail() -> Any:  # noqa: ANN401, it hands on what it has read
            message, content = await read()
            if not self.is_in_body:
                raise self.cause
            content.set_exception(self.cause)
            return message, content

        protocol.read = read_and_fail  # type: ignore[method-assign]  # this is the fake
        return connection

    async def close(self) -> None:
        await self.session.close()


CAUSES = [
    OSError("why"),
    ConnectionResetError("why"),
    ssl.SSLError("why"),
    TimeoutError(),
    aiohttp.ClientPayloadError("why"),
]


@pytest.mark.parametrize(
    ("cause", "is_in_body"),
    # aiohttp wraps the last while it reads the headers.
    [
        *((cause, False) for cause in CAUSES),
        *((cause, True) for cause in [*CAUSES, HttpProcessingError(message="why")]),
    ],
    ids=lambda value: "in the body" if value is True else "before the body" if value is False else type(value).__name__,
)
async def test_every_cause_that_may_come_is_a_fault_that_may_have_been_sent(
    calling: Calling, cause: Exception, *, is_in_body: bool
) -> None:
    async with RawServer(answering(OK + b"Content-Length: 9\r\n\r\n{")) as server, calling() as caller:
        relay = caller.client._relay  # noqa: SLF001, a session is handed in nowhere else
        session = relay._open_session()  # noqa: SLF001, the same
        relay._session = cast("aiohttp.ClientSession", Breaking(session, cause, is_in_body))  # noqa: SLF001, the same
        with pytest.raises(httpx.TransportError) as caught:
            await caller.post(server.url, content=b"{}")
        assert len(server.requests) == 1
    assert not isinstance(caught.value, NOT_SENT)


@pytest.mark.parametrize(
    "echo",
    [
        OK + f"x: Bearer {TOKEN}\x00\r\n\r\n".encode(),
        f"Bearer {TOKEN}\r\n\r\n".encode(),
        OK + f"x: Bearer {TOKEN}\r\n".encode(),
        OK + f"Content-Length: {TOKEN}\r\n\r\n".encode(),
        OK + f"Transfer-Encoding: chunked\r\n\r\n{TOKEN}\r\n".encode(),
        OK + f"Transfer-Encoding: chunked\r\n\r\n1;{TOKEN}\r\n".encode(),
    ],
    ids=["header", "status line", "headers broken off", "length", "chunk", "chunk extension"],
)
async def test_no_fault_repeats_a_token_that_a_broken_response_echoes(calling: Calling, echo: bytes) -> None:
    caught = await fault_of(calling, answering_once(echo))
    assert TOKEN not in "".join(traceback.format_exception(caught))


def subclasses(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


AIOHTTP_ERRORS = sorted(
    {error for error in subclasses(aiohttp.ClientError) if error.__module__.startswith("aiohttp")},
    key=lambda error: error.__qualname__,
)
# Of these alone it is certain that no byte of the request has left.
BEFORE_SENDING = {
    "ClientConnectorCertificateError",
    "ClientConnectorDNSError",
    "ClientConnectorError",
    "ClientConnectorSSLError",
    "ClientHttpProxyError",
    "ClientProxyConnectionError",
    "ClientSSLError",
    "ConnectionTimeoutError",
    "InvalidURL",
    "InvalidUrlClientError",
    "InvalidUrlRedirectClientError",
    "NonHttpUrlClientError",
    "NonHttpUrlRedirectClientError",
    "UnixClientConnectorError",
}


@pytest.mark.parametrize(
    "cause",
    [*AIOHTTP_ERRORS, OSError, TimeoutError, ConnectionResetError, BrokenPipeError, ssl.SSLError, EOFError, ValueError],
)
def test_every_error_becomes_a_transport_error_that_tells_what_was_sent(cause: type[BaseException]) -> None:
    fault, _ = transport_fault(cause.__new__(cause))
    assert issubclass(fault, httpx.TransportError)
    assert issubclass(fault, NOT_SENT) is (cause.__name__ in BEFORE_SENDING)


def test_all_errors_of_aiohttp_were_looked_at() -> None:
    assert len(AIOHTTP_ERRORS) >= 25
    assert {error.__name__ for error in AIOHTTP_ERRORS} >= BEFORE_SENDING


# Kept connections


async def test_a_post_over_a_connection_that_the_server_closes_is_not_sent_again(calling: Calling) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.read_request()

    async with RawServer(serve) as server, calling() as client:
        await client.post(server.url)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(server.url)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_get_over_a_connection_that_the_server_closes_is_sent_once_more(calling: Calling) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response(b"%d" % connection.number))
        await connection.read_request()

    async with RawServer(serve) as server, calling() as client:
        await client.get(server.url)
        assert (await client.get(server.url)).content == b"2"
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_connection_that_the_server_has_closed_before_is_not_used(calling: Calling) -> None:
    closed = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.close()
        closed.set()

    async with RawServer(serve) as server, RawServer(answering(response())) as other, calling() as client:
        await client.post(server.url)
        await closed.wait()
        await client.post(other.url)  # meanwhile the client sees the end of the first connection
        await client.post(server.url)
        assert (server.connections, len(server.requests)) == (2, 2)


async def test_one_connection_serves_one_call_after_the_other(calling: Calling) -> None:
    async with RawServer(answering(response())) as server, calling() as client:
        for _ in range(3):
            await client.post(server.url)
        assert server.connections == 1


async def test_concurrent_calls_share_as_many_connections_as_are_allowed(calling: Calling) -> None:
    async with RawServer(answering(response())) as server, calling(max_connections=2) as client:
        await asyncio.gather(*(client.post(server.url) for _ in range(20)))
        assert server.connections == 2


async def test_closing_the_client_closes_its_connections(calling: Calling) -> None:
    gone = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.gone()
        gone.set()

    async with RawServer(serve) as server:
        async with calling() as client:
            await client.post(server.url)
        async with asyncio.timeout(PATIENT):
            await gone.wait()


@pytest.mark.parametrize(
    "octets", [b"", OK + b"Content-Length: 10\r\n\r\nabc"], ids=["before the response", "in the body"]
)
async def test_a_cancelled_call_closes_its_connection_and_leaves_nothing_behind(
    calling: Calling, octets: bytes
) -> None:
    come, gone = asyncio.Event(), asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        if connection.number > 1:
            await connection.send(response(b"next"))
            return
        await connection.send(octets)
        come.set()
        await connection.gone()
        gone.set()

    async with RawServer(serve) as server, calling(max_connections=1) as client:
        call = asyncio.create_task(client.post(server.url))
        async with asyncio.timeout(PATIENT):
            await come.wait()
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            await gone.wait()
            assert (await client.post(server.url)).content == b"next"
    assert asyncio.all_tasks() == {asyncio.current_task()}


# What is sent, and what is kept


async def test_a_request_is_sent_as_it_was_made(calling: Calling) -> None:
    async with RawServer(answering(response())) as server, calling() as client:
        await client.post(f"{server.url}/a?b=c", content=b'{"d":1}', headers={"content-type": "application/json"})
        (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/a?b=c", b'{"d":1}')
    assert request.values("connection") in ([], ["keep-alive"])  # it is what HTTP/1.1 means anyway
    assert sorted(header for header in request.headers if header[0] != "connection") == [
        ("accept", "application/json, application/problem+json"),
        ("accept-encoding", "gzip, deflate"),
        ("authorization", f"Bearer {TOKEN}"),
        ("content-length", "7"),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{server.port}"),
        ("user-agent", "business-relay"),
    ]


async def test_concurrent_calls_keep_their_own_url_to_the_byte(calling: Calling) -> None:
    paths = [f"/{number}%3B%2F%C3%A4+%2B;=" for number in range(20)]
    async with RawServer(answering(response())) as server, calling(max_connections=3) as client:
        await asyncio.gather(*(client.get(server.url + path) for path in paths))
        assert sorted(request.target for request in server.requests) == sorted(paths)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_token_not_sent_on(calling: Calling, status: int) -> None:
    async with RawServer(answering(response())) as elsewhere:
        redirect = response(b"", f"Location: {elsewhere.url}/", status=f"{status} Moved")
        async with RawServer(answering(redirect)) as server, calling() as client:
            assert (await client.post(server.url)).status_code == status
        assert elsewhere.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # some jars keep none of an address
@pytest.mark.parametrize("cookie", ["session=1; Path=/", "\xff=\xfe", ";;;=", "a=b; Domain=127.0.0.1; Max-Age=60"])
async def test_cookies_are_not_kept(calling: Calling, cookie: str, host: str) -> None:
    async with RawServer(answering(response(b"", f"Set-Cookie: {cookie}"))) as server, calling() as client:
        for _ in range(2):
            assert (await client.post(server.url.replace("127.0.0.1", host))).status_code == 200
        assert [request.values("cookie") for request in server.requests] == [[], []]


async def test_informational_responses_are_passed_over(calling: Calling) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with RawServer(answering(early + response(b"late"))) as server, calling() as client:
        assert (await client.post(server.url)).content == b"late"


async def test_a_body_without_a_length_ends_with_its_connection(calling: Calling) -> None:
    async with RawServer(answering_once(OK + b"\r\nall of it")) as server, calling() as client:
        assert (await client.post(server.url)).content == b"all of it"


@pytest.mark.parametrize(
    ("encoding", "body"),
    # Without its time in it, for all test processes must give this test one name.
    [("gzip", gzip.compress(b"text", mtime=0)), ("deflate", zlib.compress(b"text")), ("x-none", b"text")],
    ids=["gzip", "deflate", "unknown"],
)
async def test_an_encoded_body_is_decoded(calling: Calling, encoding: str, body: bytes) -> None:
    encoded = response(body, f"Content-Encoding: {encoding}")
    async with RawServer(answering(encoded)) as server, calling() as client:
        assert (await client.post(server.url)).content == b"text"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_that_is_not_encoded_as_it_says_is_an_error(calling: Calling, encoding: str) -> None:
    lie = response(b"plain text", f"Content-Encoding: {encoding}")
    async with RawServer(answering(lie)) as server, calling() as client:
        with pytest.raises((httpx.DecodingError, httpx.ReadError)) as caught:
            await client.post(server.url)
    assert not isinstance(caught.value, NOT_SENT)


@pytest.mark.parametrize(("encoding", "header"), [("br", "br"), ("br", "BR"), ("zstd", "zstd")])
async def test_an_encoding_that_was_not_asked_for_is_named_or_left(
    calling: Calling, encoding: str, header: str
) -> None:
    if {"br": HAS_BROTLI, "zstd": HAS_ZSTD}[encoding]:
        pytest.skip("this environment decodes it")
    encoded = response(b"text", f"Content-Encoding: {header}", f"X-Echo: {TOKEN}")
    async with RawServer(answering(encoded)) as server, calling() as client:
        if not client.is_past_httpx:
            assert (await client.post(server.url)).content == b"text"
            return
        with pytest.raises(httpx.RemoteProtocolError) as caught:
            await client.post(server.url)
        assert len(server.requests) == 1
    assert str(caught.value) == f"the response is encoded in '{encoding}', which was not asked for"
    assert not isinstance(caught.value, NOT_SENT)
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


# Proxies


async def test_a_proxy_that_is_not_there_was_sent_nothing(calling: Calling) -> None:
    async with calling(proxy=f"http://127.0.0.1:{unused_port()}") as client:
        with pytest.raises(httpx.ProxyError):
            await client.post("https://partner.invalid/")


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway", "204 No Content"])
async def test_a_proxy_that_refuses_to_connect_was_sent_no_request(calling: Calling, status: str) -> None:
    async with RawServer(answering(response(status=status))) as server, calling(proxy=server.url) as client:
        with pytest.raises(httpx.ProxyError, match="the proxy refuses to connect"):
            await client.post("https://partner.invalid/", content=b"{}")
        (request,) = server.requests
    assert (request.method, request.target, request.body) == ("CONNECT", "partner.invalid:443", b"")
    assert request.values("authorization") == []


async def test_the_credentials_of_a_proxy_are_for_the_proxy_alone_and_its_connection_is_kept(
    calling: Calling, tmp_path: Path
) -> None:
    context, trusted = tls_server(tmp_path)
    tls = ssl.create_default_context(cafile=trusted)

    async def tunnel(connection: Connection) -> None:
        request = await connection.read_request()
        host, _, port = request.target.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def back() -> None:
            while octets := await reader.read(65_536):
                await connection.send(octets)

        task = asyncio.create_task(back())
        try:
            while octets := await connection.read():
                writer.write(octets)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            writer.close()

    async with RawServer(tunnel) as proxy, RawServer(answering(response(b"hi")), tls=context) as server:
        url = proxy.url.replace("//", "//user:p%40ss@")
        async with calling(tls=tls, proxy=url) as client:
            for _ in range(3):
                assert (await client.post(server.url, content=b"{}")).content == b"hi"
        assert proxy.connections == server.connections == 1
        assert [request.values("proxy-authorization") for request in proxy.requests] == [["Basic dXNlcjpwQHNz"]]
        assert [request.values("proxy-authorization") for request in server.requests] == [[]] * 3
        assert list(itertools.chain(*(request.values("authorization") for request in proxy.requests))) == []
