"""RelayTransport: HTTP on aiohttp's public API.

Every error of aiohttp becomes the error of httpx that tells whether the request was sent.
"""

from __future__ import annotations

import asyncio
import functools
from base64 import b64encode
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict
from yarl import URL

from shared.client.connection_guard import GuardedConnector, is_reused
from shared.errors import BodyTooLargeError
from shared.rules.content_encoding import decoded_body, most_encoded

if TYPE_CHECKING:
    import ssl

NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""The errors of httpx that are raised before anything of the request has left: the server cannot have acted on it."""

MAX_BODY = 1024 * 1024
"""Bytes of a response's body after decompression: 16 times the largest record. A hundred may arrive at a time."""

CONNECT_TIMEOUT = 5.0
"""Seconds for a new connection, with TLS and the proxy's answer, unless the request has another limit."""

# Seconds that an idle connection is kept; most servers close theirs after 60 and more.
_KEEPALIVE = 30.0
# Content security policies and cookies of proxies are long. aiohttp's own limits are 8 KiB and 128 headers.
# Together they bound what a hundred responses can take.
_MAX_HEADER, _MAX_HEADERS = 32 * 1024, 250
# In it, every header that httpx has encoded can be decoded.
_ENCODING = "latin-1"
# What aiohttp raises while it sends a request or reads its response.
_CAUSES = (aiohttp.ClientError, HttpProcessingError, OSError)
# The first that fits counts. None: the operating system's text is shown. No text repeats what the server sent.
_FAULTS: tuple[tuple[type[BaseException], type[httpx.TransportError], str | None], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError, None),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError, "the proxy refuses to connect"),
    (aiohttp.ClientConnectorError, httpx.ConnectError, None),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, "no connection in time"),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol, "the URL is not usable"),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol, "the URL is not http or https"),
    (TimeoutError, httpx.ReadTimeout, "no response in time"),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError, "the server closed the connection without a response"),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (HttpProcessingError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (OSError, httpx.ReadError, None),
    (BaseException, httpx.ReadError, "the connection broke"),
)


class RelayTransport(httpx.AsyncBaseTransport):
    """Sends requests of one event loop over at most `max_connections` connections at once.

    `proxy` is the URL of the proxy on the way to https servers, with its credentials. Redirects are not followed,
    cookies not kept, bodies read whole and decoded to at most `max_body` bytes. Of the extension "timeout", "pool"
    bounds the wait for a free connection, "connect" that for a new one, and "read" the pauses of the response, all in
    seconds.

    A fault is one of `NOT_SENT` only if the request cannot have been sent: whoever trusts that sends it again.
    No fault repeats what the server sent, which may be an echo of the access token.
    """

    def __init__(
        self, *, max_connections: int, tls: ssl.SSLContext, proxy: str | None = None, max_body: int = MAX_BODY
    ) -> None:
        self._max_body = max_body
        # Not aiohttp's limit: a waiter that is cancelled as its turn comes takes the turn along.
        self._turns = asyncio.Semaphore(max_connections)
        self._tls = tls
        self._proxy_name, self._proxy_options = _proxy(proxy)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is bytes, and read the whole response.

        Raises:
            httpx.TransportError: there is none.
            ContentEncodingError: its body has more than `max_body` bytes, or is not encoded as it says.
        """
        limits = request.extensions.get("timeout", {})
        content = b"".join(cast("httpx.ByteStream", request.stream))
        await self._take_turn(limits.get("pool"))
        try:
            response = await self._send(request, content, limits)
            try:
                body = await self._body_of(response)
            except BaseException:
                response.close()  # and its connection
                raise
        finally:
            self._turns.release()
        # The lines of a repeated header are one list (RFC 9110 section 5.3).
        encoding = ", ".join(response.headers.getall("content-encoding", ()))
        body = decoded_body(body, encoding, self._max_body)
        headers = [pair for pair in response.raw_headers if pair[0].lower() != b"content-encoding"]
        return httpx.Response(response.status, headers=headers, stream=httpx.ByteStream(body))

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _take_turn(self, seconds: float | None) -> None:
        if not self._turns.locked():
            await self._turns.acquire()
            return
        try:
            async with asyncio.timeout(seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("all connections are in use") from None

    async def _send(
        self, request: httpx.Request, body: bytes, limits: dict[str, float | None]
    ) -> aiohttp.ClientResponse:
        session = self._session or self._open_session()
        is_proxied = self._proxy_name is not None and request.url.scheme == "https"
        options = self._proxy_options if is_proxied else {}
        if request.method != "POST":
            options = {**options, "middlewares": (_send_once,)}
        headers = [(name.decode(_ENCODING), text.decode(_ENCODING)) for name, text in request.headers.raw]
        try:
            return await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=CIMultiDict(headers),
                data=aiohttp.BytesPayload(body) if body else None,  # bytes are looked up among all kinds of payload
                allow_redirects=False,
                timeout=_timeout(limits.get("connect", CONNECT_TIMEOUT), limits.get("read")),
                **options,
            )
        except _CAUSES as exc:
            raise request_fault(exc, self._proxy_name if is_proxied else None) from None

    async def _body_of(self, response: aiohttp.ClientResponse) -> bytes:
        """Read a body as it is encoded: whatever happens, the request was sent."""
        body = bytearray()
        try:
            while not response.content.at_eof():
                body += await response.content.readany()
                if len(body) > most_encoded(self._max_body):
                    raise BodyTooLargeError(self._max_body)
        except _CAUSES as exc:
            raise body_fault(exc) from None
        return bytes(body)

    def _open_session(self) -> aiohttp.ClientSession:
        """Open the session on the running event loop, to which it belongs from then on."""
        self._session = aiohttp.ClientSession(
            connector=GuardedConnector(limit=0, keepalive_timeout=_KEEPALIVE, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            max_line_size=_MAX_HEADER,
            max_field_size=_MAX_HEADER,
            max_headers=_MAX_HEADERS,
            trust_env=False,  # else aiohttp reads .netrc for every request
        )
        return self._session


def request_fault(cause: BaseException, proxy: str | None = None) -> httpx.TransportError:
    """Return the fault of a request that got no response; `proxy` is the host and port of the proxy on the way."""
    kind, words = next((kind, words) for error, kind, words in _FAULTS if isinstance(cause, error))
    text = words or _system_text(cause)
    if proxy and isinstance(cause, aiohttp.ClientHttpProxyError):
        return kind(f"the proxy {proxy} answered {cause.status} to CONNECT")
    if proxy and isinstance(cause, aiohttp.ClientProxyConnectionError):
        return kind(f"the proxy {proxy} cannot be reached: {text}")
    return kind(f"{text} (through the proxy {proxy})" if proxy else text)


def body_fault(cause: BaseException) -> httpx.TransportError:
    """Return the fault of a response's body: the request was sent."""
    if isinstance(cause, TimeoutError):
        return httpx.ReadTimeout("the response's body stopped arriving")
    return httpx.ReadError("the response's body is broken or ends too soon")


def _system_text(cause: BaseException) -> str:
    """Return what the operating system or the TLS library says."""
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return f"{cause.host}:{cause.port}: {cause.certificate_error}"
    if isinstance(cause, aiohttp.ClientConnectorError):
        error = cause.os_error
        return f"{cause.host}:{cause.port}: {error.strerror or str(error) or type(error).__name__}"
    return (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__


@functools.cache
def _timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(connect=connect, sock_read=read)


async def _send_once(request: aiohttp.ClientRequest, send: Any) -> aiohttp.ClientResponse:  # noqa: ANN401, aiohttp's handler
    """Keep aiohttp from sending a request again on a new connection, after which nobody knows of the first.

    A GET may be sent again if its connection was an old one, which the server had closed meanwhile. A server that
    breaks new connections is down: it gets no call more than flow control counts.
    """
    try:
        response: aiohttp.ClientResponse = await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        if request.method == "GET" and is_reused():
            raise
        raise aiohttp.ClientPayloadError from exc
    return response


def _proxy(url: str | None) -> tuple[str | None, dict[str, Any]]:
    """Return a proxy's host and port, and the options that aiohttp takes for it: its credentials are a header."""
    if not url:
        return None, {}
    proxy = httpx.Proxy(url)
    headers = {}
    if proxy.raw_auth is not None:
        headers["Proxy-Authorization"] = f"Basic {b64encode(b':'.join(proxy.raw_auth)).decode()}"
    port = proxy.url.port or {"http": 80, "https": 443}[proxy.url.scheme]
    return f"{proxy.url.host}:{port}", {"proxy": URL(str(proxy.url)), "proxy_headers": headers}
