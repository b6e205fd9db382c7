"""The httpx client that goes to the partner: its transport, limits and timeouts, and errors that tell what was sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

if TYPE_CHECKING:
    import ssl

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to be made."""

KEEPALIVE = 30.0
"""Seconds that an idle connection is kept; servers close theirs after 60 and more."""


class RelayTransport(httpx.AsyncBaseTransport):
    """aiohttp under httpx, with every fault named by what is known of the request.

    httpx-aiohttp calls a connection that broke after the request was sent a `ConnectTimeout`; whoever trusts that posts
    a record twice. Here a fault is a `ConnectError`, `ConnectTimeout` or `PoolTimeout` only where the request cannot
    have been sent.
    """

    def __init__(self, *, max_connections: int, tls: ssl.SSLContext, proxy: str | None = None) -> None:
        def session() -> aiohttp.ClientSession:
            connector = aiohttp.TCPConnector(limit=max_connections, keepalive_timeout=KEEPALIVE, ssl=tls)
            # With trust_env aiohttp reads .netrc for every request, and refuses those that have a token already.
            return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)

        self._inner = AiohttpTransport(verify=tls, client=session, proxy=httpx.Proxy(proxy) if proxy else None)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request; the response's body is still to be read."""
        try:
            return await self._inner.handle_async_request(request)
        except httpx.TransportError as exc:
            raise _fault(exc.__cause__)(str(exc), request=request) from exc
        except (aiohttp.ClientError, OSError, TimeoutError) as exc:
            raise _fault(exc)(str(exc) or type(exc).__name__, request=request) from exc

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


def _fault(cause: BaseException | None) -> type[httpx.TransportError]:
    """Name a fault by what is known of the request: sent, perhaps sent, or not sent."""
    for kind, name in _FAULTS:
        if isinstance(cause, kind):
            return name
    return httpx.ReadError


# In the order of the tests: a subclass comes before its superclass. Whatever is not here may have been sent.
_FAULTS: tuple[tuple[type[BaseException], type[httpx.TransportError]], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError),
    (aiohttp.ClientConnectorError, httpx.ConnectError),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout),
    (aiohttp.SocketTimeoutError, httpx.ReadTimeout),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError),
    (aiohttp.ClientPayloadError, httpx.ReadError),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol),
    (TimeoutError, httpx.ReadTimeout),
)


def create_client(
    *,
    timeout: float,
    max_connections: int,
    tls: ssl.SSLContext,
    proxy: str | None = None,
    auth: httpx.Auth | None = None,
) -> httpx.AsyncClient:
    """Make a client for one server: `timeout` seconds for a read, `CONNECT_TIMEOUT` to connect, no redirects followed.

    `tls` is the process's one TLS context (making one costs 40 to 90 ms), `proxy` the URL of the proxy on the way.
    """
    return httpx.AsyncClient(
        transport=RelayTransport(max_connections=max_connections, tls=tls, proxy=proxy),
        timeout=httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout), pool=timeout),
        auth=auth,
        follow_redirects=False,
        headers={"user-agent": "business-relay", "accept": "application/json, application/problem+json"},
    )
