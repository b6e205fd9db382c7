from __future__ import annotations

import asyncio
import gzip
import itertools
import ssl
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from shared.client.connection_guard import close_connection
from shared.client.transport import MAX_BODY, NOT_SENT, RelayTransport, body_fault, request_fault
from shared.errors import BodyTooLargeError, ContentEncodingError
from tests.fakes.free_port import free_port
from tests.fakes.passing_time import let_pass
from tests.fakes.raw_server import Connection, RawServer, answering, answering_once, response
from tests.fakes.tls import tls_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.fakes.raw_server import Serve

OK = b"HTTP/1.1 200 OK\r\n"
TOKEN = "t0ken-with-s3cret"
# Long enough for a machine under load; what is to run out has a short one.
PATIENT, SHORT = 20.0, 0.2


@asynccontextmanager
async def calling(
    *,
    timeout: float = PATIENT,  # noqa: ASYNC109, it is the client's
    max_connections: int = 10,
    tls: ssl.SSLContext | None = None,
    proxy: str | None = None,
) -> AsyncIterator[httpx.AsyncClient]:
    transport = RelayTransport(
        max_connections=max_connections, tls=tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), proxy=proxy
    )
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=transport, timeout=timeout, headers=headers) as client:
        yield client


async def fault_of(serve: Serve, method: str = "POST") -> httpx.TransportError:
    """What a request to this server raises."""
    async with RawServer(serve) as server, calling() as client:
        with pytest.raises(httpx.TransportError) as caught:
            await client.request(method, server.url, content=b"{}")
        assert len(server.requests) == 1
    return caught.value


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


async def test_a_refused_connection_was_not_sent() -> None:
    async with calling() as client:
        with pytest.raises(httpx.ConnectError, match="Connect call failed"):
            await client.post(f"http://127.0.0.1:{free_port()}/")


async def test_a_call_that_gets_no_connection_in_time_was_not_sent_and_takes_no_turn_along() -> None:
    async with RawServer(hold) as server, calling(max_connections=1) as client:
        held = asyncio.create_task(client.post(server.url))
        await server.came.wait()
        with pytest.raises(httpx.PoolTimeout):
            await client.post(server.url, timeout=httpx.Timeout(PATIENT, pool=SHORT))
        cancelled, waiting = [asyncio.create_task(client.post(server.url)) for _ in range(2)]
        await asyncio.sleep(0)
        held.cancel()
        cancelled.cancel()
        server.came.clear()
        await server.came.wait()  # the other's turn has come
        waiting.cancel()
        await asyncio.gather(held, cancelled, waiting, return_exceptions=True)
        assert len(server.requests) == 2


async def test_a_connection_whose_tls_handshake_does_not_end_was_not_sent() -> None:
    async with RawServer(Connection.gone) as server, calling(timeout=SHORT) as client:
        with pytest.raises(httpx.ConnectTimeout):
            await client.post(server.url.replace("http:", "https:"))


async def test_a_server_whose_certificate_is_not_trusted_is_sent_nothing(tmp_path: Path) -> None:
    context, _ = tls_server(tmp_path)
    async with RawServer(hold, tls=context) as server, calling(tls=ssl.create_default_context()) as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.post(server.url)
        assert server.requests == []


async def test_a_server_whose_certificate_is_for_another_name_is_sent_nothing(tmp_path: Path) -> None:
    context, trusted = tls_server(tmp_path)
    tls = ssl.create_default_context(cafile=trusted)
    async with RawServer(hold, tls=context) as server, calling(tls=tls) as client:
        with pytest.raises(httpx.ConnectError, match="match"):
            await client.post(server.url.replace("127.0.0.1", "localhost"))
        assert server.requests == []


@pytest.mark.parametrize("octets", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""], ids=["plain http", "closed"])
async def test_a_server_that_does_not_speak_tls_is_sent_nothing(octets: bytes) -> None:
    async def serve(connection: Connection) -> None:
        await connection.read()
        await connection.send(octets)

    async with RawServer(serve) as server, calling() as client:
        with pytest.raises(httpx.ConnectError):
            await client.post(server.url.replace("http:", "https:"))


# What may have been sent


@pytest.mark.parametrize(
    ("serve", "fault"),
    [
        pytest.param(answering_once(b""), httpx.RemoteProtocolError, id="closed without a response"),
        pytest.param(reset_at_once, httpx.ReadError, id="reset without a response"),
        pytest.param(answering_once(OK), httpx.RemoteProtocolError, id="closed in the headers"),
        pytest.param(answering_once(b"SSH-2.0-OpenSSH_9.9\r\n"), httpx.RemoteProtocolError, id="another protocol"),
        pytest.param(answering_once(b"HTTP/1.1 abc\r\n\r\n"), httpx.RemoteProtocolError, id="no status"),
        pytest.param(
            answering_once(OK + b"a: " + b"b" * 100_000 + b"\r\n\r\n"), httpx.RemoteProtocolError, id="endless header"
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
    serve: Serve, fault: type[httpx.TransportError]
) -> None:
    caught = await fault_of(serve)
    assert type(caught) is fault
    assert not isinstance(caught, NOT_SENT)
    assert str(caught)


@pytest.mark.parametrize(
    "octets",
    [b"", OK, OK + b"Content-Length: 10\r\n\r\n", OK + b"Content-Length: 10\r\n\r\nabc"],
    ids=["no response", "in the headers", "before the body", "in the body"],
)
async def test_a_response_that_stops_coming_is_a_read_timeout(octets: bytes) -> None:
    caught = await fault_of(holding_after(octets))
    # Past httpx the caller's limit for the whole call ends it: `BusinessApi` says then that it may have been sent.
    assert type(caught) in {httpx.ReadTimeout, TimeoutError}


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
async def test_no_fault_repeats_a_token_that_a_broken_response_echoes(echo: bytes) -> None:
    caught = await fault_of(answering_once(echo))
    assert TOKEN not in "".join(traceback.format_exception(caught))


# Kept connections


async def test_a_post_over_a_connection_that_the_server_closes_is_not_sent_again() -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response())
        await connection.read_request()

    async with RawServer(serve) as server, calling() as client:
        await client.post(server.url)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.post(server.url)
        assert (server.connections, len(server.requests)) == (1, 2)


async def test_a_put_over_a_connection_that_the_server_closes_is_not_sent_again() -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        if connection.number == 1:
            await connection.send(response())
            await connection.read_request()
            server.stop_listening()  # a second attempt would find nobody, and say that nothing was sent

    async with RawServer(serve) as server, calling() as client:
        await client.put(server.url)
        with pytest.raises(httpx.TransportError) as caught:
            await client.put(server.url)
    assert not isinstance(caught.value, NOT_SENT)


async def test_the_connection_of_a_response_can_be_closed_after_its_body_was_read() -> None:
    async with RawServer(answering(response(b"ok"))) as server, calling() as client:
        await client.post(server.url)
        close_connection()
        await client.post(server.url)
        assert server.connections == 2


async def test_a_get_over_a_connection_that_the_server_closes_is_sent_once_more() -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(response(b"%d" % connection.number))
        await connection.read_request()

    async with RawServer(serve) as server, calling() as client:
        await client.get(server.url)
        assert (await client.get(server.url)).content == b"2"
        assert (server.connections, len(server.requests)) == (2, 3)


async def test_a_get_that_the_server_breaks_on_a_new_connection_is_not_sent_again() -> None:
    async with RawServer(answering_once(b"")) as server, calling() as client:
        with pytest.raises(httpx.TransportError):
            await client.get(server.url)
        assert len(server.requests) == 1


async def test_concurrent_calls_share_as_many_connections_as_are_allowed() -> None:
    async with RawServer(answering(response())) as server, calling(max_connections=2) as client:
        await asyncio.gather(*(client.post(server.url) for _ in range(20)))
        assert server.connections == 2


async def test_closing_the_client_closes_its_connections() -> None:
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
async def test_a_cancelled_call_closes_its_connection_and_leaves_nothing_behind(octets: bytes) -> None:
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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_and_the_token_not_sent_on(status: int) -> None:
    async with RawServer(answering(response())) as elsewhere:
        redirect = response(b"", f"Location: {elsewhere.url}/", status=f"{status} Moved")
        async with RawServer(answering(redirect)) as server, calling() as client:
            assert (await client.post(server.url)).status_code == status
        assert elsewhere.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # some jars keep none of an address
@pytest.mark.parametrize("cookie", ["session=1; Path=/", "\xff=\xfe", ";;;=", "a=b; Domain=127.0.0.1; Max-Age=60"])
async def test_cookies_are_not_kept(cookie: str, host: str) -> None:
    transport = RelayTransport(max_connections=1, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    async with RawServer(answering(response(b"", f"Set-Cookie: {cookie}"))) as server, transport:
        for _ in range(2):
            request = httpx.Request("POST", server.url.replace("127.0.0.1", host))
            assert (await transport.handle_async_request(request)).status_code == 200
        assert [request.values("cookie") for request in server.requests] == [[], []]


async def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async with RawServer(answering_once(OK + b"\r\nall of it")) as server, calling() as client:
        assert (await client.post(server.url)).content == b"all of it"


async def test_a_body_is_decoded_once() -> None:
    zipped = response(gzip.compress(gzip.compress(b"text")), "Content-Encoding: x-gzip")
    async with RawServer(answering(zipped)) as server, calling() as client:
        answer = await client.post(server.url)
    assert gzip.decompress(answer.content) == b"text"
    assert "content-encoding" not in answer.headers


async def test_the_codings_of_several_header_lines_are_one_list() -> None:
    lines = "Content-Encoding: identity", "Content-Encoding: gzip"
    async with RawServer(answering(response(gzip.compress(b"text"), *lines))) as server, calling() as client:
        assert (await client.post(server.url)).content == b"text"
    twice = response(gzip.compress(b"text"), *lines, "Content-Encoding: br")
    async with RawServer(answering(twice)) as server, calling() as client:
        with pytest.raises(ContentEncodingError):
            await client.post(server.url)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
async def test_no_more_of_a_body_is_read_than_may_decode_to_the_limit(encoding: str) -> None:
    sent = asyncio.Event()

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        head = f"Content-Encoding: {encoding}\r\nContent-Length: 1000000000\r\n\r\n"
        await connection.send(OK + head.encode() + b"x" * (MAX_BODY + 4096))
        await connection.gone()
        sent.set()

    async with RawServer(serve) as server, calling() as client:
        with pytest.raises(BodyTooLargeError):
            await client.post(server.url)
        await sent.wait()


async def test_long_headers_and_many_are_read() -> None:
    policy = "default-src 'self' " + "https://cdn.example " * 1_500
    many = [f"X-{number}: {number}" for number in range(200)]
    answer = response(b"ok", f"Content-Security-Policy: {policy}", *many)
    async with RawServer(answering(answer)) as server, calling() as client:
        headers = (await client.post(server.url)).headers
    assert headers["content-security-policy"] == policy.strip()
    assert headers["x-199"] == "199"


# Proxies


async def test_a_proxy_that_is_not_there_was_sent_nothing_and_is_named_without_its_password() -> None:
    port = free_port()
    async with calling(proxy=f"http://user:s3cret@127.0.0.1:{port}") as client:
        with pytest.raises(httpx.ProxyError, match=f"the proxy 127.0.0.1:{port} cannot be reached") as caught:
            await client.post("https://partner.invalid/")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("status", ["407 Proxy Authentication Required", "502 Bad Gateway", "204 No Content", "999 X"])
async def test_a_proxy_that_refuses_to_connect_was_sent_no_request_and_is_named_with_its_status(status: str) -> None:
    async with RawServer(answering(response(status=status))) as server, calling(proxy=server.url) as client:
        with pytest.raises(httpx.ProxyError, match=rf"the proxy 127.0.0.1:{server.port} answered {status[:3]}"):
            await client.post("https://partner.invalid/", content=b"{}")
        (request,) = server.requests
    assert (request.method, request.target, request.body) == ("CONNECT", "partner.invalid:443", b"")
    assert request.values("authorization") == []


@pytest.mark.parametrize("octets", [b"", b"HTTP/1.1", b"SSH-2.0-OpenSSH_9.9\r\n", OK, b"\x00" * 50])
async def test_a_proxy_that_breaks_off_was_sent_no_request(octets: bytes) -> None:
    async with RawServer(answering_once(octets)) as server, calling(proxy=server.url) as client:
        with pytest.raises(httpx.ProxyError, match=f"the proxy 127.0.0.1:{server.port} cannot be reached"):
            await client.post("https://partner.invalid/", content=b"{}")


async def test_a_connection_that_ends_within_tls_is_a_fault_with_a_reason() -> None:
    async with RawServer(answering_once(OK + b"\r\n")) as server, calling(proxy=server.url) as client:
        with pytest.raises(httpx.ConnectError, match=r"^partner.invalid:443: ConnectionResetError \(through the proxy"):
            await client.post("https://partner.invalid/", content=b"{}")


async def test_plain_http_does_not_go_through_the_proxy_which_would_read_the_token() -> None:
    async with RawServer(answering(response(b"hi"))) as server, RawServer(hold) as proxy:
        async with calling(proxy=proxy.url) as client:
            assert (await client.post(server.url)).content == b"hi"
        assert proxy.connections == 0


async def test_the_credentials_of_a_proxy_are_for_the_proxy_alone_and_its_connection_is_kept(tmp_path: Path) -> None:
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


# Every error of aiohttp


def subclasses(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


AIOHTTP_ERRORS = sorted(
    {error for error in subclasses(aiohttp.ClientError) if error.__module__.startswith("aiohttp")},
    key=lambda error: error.__qualname__,
)
# Of these and their subclasses alone it is certain that no byte of the request has left.
BEFORE_SENDING = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


def made(error: Any) -> Any:  # noqa: ANN401, each has arguments of its own
    key = ConnectionKey(
        "partner.example", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=0
    )
    if issubclass(error, aiohttp.ClientConnectorCertificateError):
        return error(key, ssl.CertificateError("bad"))
    if error.__name__ == "UnixClientConnectorError":
        return error("path", key, OSError(5, "why"))
    if issubclass(error, aiohttp.ClientConnectorError):
        return error(key, OSError(5, "why"))
    if issubclass(error, aiohttp.ClientResponseError):
        url = URL("https://partner.example")
        request = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
        return error(request, (), status=407, message="s3cret")
    return error.__new__(error)


@pytest.mark.parametrize(
    "error",
    [*AIOHTTP_ERRORS, HttpProcessingError, OSError, TimeoutError, ConnectionResetError, ssl.SSLError, EOFError],
)
@pytest.mark.parametrize("proxy", [None, "proxy.example:3128"])
def test_every_error_becomes_a_fault_that_tells_whether_the_request_was_sent(
    error: type[BaseException], proxy: str | None
) -> None:
    assert len(AIOHTTP_ERRORS) >= 25
    fault = request_fault(made(error), proxy)
    assert isinstance(fault, httpx.TransportError)
    assert isinstance(fault, NOT_SENT) is issubclass(error, BEFORE_SENDING)
    assert not isinstance(body_fault(made(error)), NOT_SENT)
    assert str(fault)
    assert "s3cret" not in str(fault)
    assert proxy is None or proxy in str(fault)
