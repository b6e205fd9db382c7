"""The httpx client that goes to the partner: its transport, limits and timeouts, and errors that tell what was sent."""

from __future__ import annotations

from base64 import b64encode
from contextvars import ContextVar
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, cast

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError
from httpx_aiohttp import AiohttpTransport
from yarl import URL

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to be made."""

KEEPALIVE = 30.0
"""Seconds that an idle connection is kept; servers close theirs after 60 and more."""

POOL_SHARE = 0.8
"""The part of a call's timeout in which there must be a connection; aiohttp ends what is over 5 s up to 1 s late."""


class RelayTransport(httpx.AsyncBaseTransport):
    """aiohttp under httpx, with every fault named by what is known of the request.

    httpx-aiohttp calls a connection that broke after the request was sent a `ConnectTimeout`; whoever trusts that posts
    a record twice. Here a fault is a `ConnectError`, `ConnectTimeout` or `ProxyError` only where the request cannot
    have been sent. No fault repeats what the server sent, which may be an echo of the access token.
    """

    def __init__(self, *, max_connections: int, tls: ssl.SSLContext, proxy: str | None = None) -> None:
        def session() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=KEEPALIVE, ssl=tls),
                cookie_jar=aiohttp.DummyCookieJar(),
                middlewares=(_keep_url,),
                # With it aiohttp reads .netrc for every request, and refuses those that have a token already.
                trust_env=False,
            )

        self._inner = AiohttpTransport(verify=tls, client=session, proxy=_proxy(proxy) if proxy else None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the response's body is still to be read."""
        _url.set(str(request.url))
        try:
            response = await self._inner.handle_async_request(request)
        except httpx.TransportError as exc:
            cause = exc.__cause__ or exc
        except (aiohttp.ClientError, OSError) as exc:
            cause = exc
        else:
            response.stream = _Body(cast("httpx.AsyncByteStream", response.stream), request)
            return response
        fault, words = transport_fault(cause)
        # Without words of ours the text is the operating system's; else the cause must not stand in a traceback either.
        raise fault(words or str(cause) or type(cause).__name__, request=request) from None if words else cause

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Body(httpx.AsyncByteStream):
    """A response's body: whatever happens while it is read, the request was sent."""

    def __init__(self, body: httpx.AsyncByteStream, request: httpx.Request) -> None:
        self._body = body
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._body:
                yield chunk
        except (httpx.TimeoutException, TimeoutError):
            raise httpx.ReadTimeout("the response's body stopped coming", request=self._request) from None
        # HttpProcessingError: aiohttp's parser in Python lets it through where the one in C has a ClientPayloadError.
        except (httpx.TransportError, aiohttp.ClientError, HttpProcessingError, OSError):
            raise httpx.ReadError("the response's body is broken, or broken off", request=self._request) from None

    async def aclose(self) -> None:
        await self._body.aclose()


# In the order of the tests: a subclass comes before its superclass. Whatever is not here may have been sent.
_FAULTS: tuple[tuple[type[BaseException], type[httpx.TransportError], str | None], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError, None),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError, "the proxy refuses to connect"),
    (aiohttp.ClientConnectorError, httpx.ConnectError, None),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, None),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol, None),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol, None),
    (TimeoutError, httpx.ReadTimeout, None),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError, "the server closed the connection without a response"),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (OSError, httpx.ReadError, None),
)


def transport_fault(cause: BaseException) -> tuple[type[httpx.TransportError], str | None]:
    """Name a fault by what is known of the request; with it words of ours, None where the text of `cause` is safe."""
    for kind, fault, words in _FAULTS:
        if isinstance(cause, kind):
            return fault, words
    return httpx.ReadError, "the connection broke"


_url: ContextVar[str] = ContextVar("_url")


async def _keep_url(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send the URL as httpx has it: aiohttp decodes %3B, after which many a server cuts the path off (matrix URIs)."""
    request.url = URL(_url.get(), encoded=True)
    return await send(request)


def _proxy(url: str) -> httpx.Proxy:
    """Give the proxy with its credentials as a header, where aiohttp wants them."""
    proxy = httpx.Proxy(url)
    if proxy.raw_auth is None:
        return proxy
    credentials = b64encode(b":".join(proxy.raw_auth)).decode()
    return httpx.Proxy(proxy.url, headers={"proxy-authorization": f"Basic {credentials}"})


def create_client(
    *,
    timeout: float,
    max_connections: int,
    tls: ssl.SSLContext,
    proxy: str | None = None,
    auth: httpx.Auth | None = None,
) -> httpx.AsyncClient:
    """Make a client for one server: `timeout` seconds for a read, `CONNECT_TIMEOUT` to connect.

    Redirects are not followed and cookies not kept. A connection must be had in `POOL_SHARE` of the timeout, so that
    who ends a whole call after `timeout` learns before that it was not sent. `tls` is the process's one TLS context
    (making one costs 40 to 90 ms), `proxy` the URL of the proxy on the way.
    """
    return httpx.AsyncClient(
        transport=RelayTransport(max_connections=max_connections, tls=tls, proxy=proxy),
        timeout=httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout), pool=POOL_SHARE * timeout),
        auth=auth,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        follow_redirects=False,
        headers={"user-agent": "business-relay", "accept": "application/json, application/problem+json"},
    )
