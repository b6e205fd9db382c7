"""HTTP to the partner, straight on aiohttp: its transport, limits and timeouts."""

from __future__ import annotations

from base64 import b64encode
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, cast

import aiohttp
import httpx
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from shared.api.clean_connector import CleanConnector
from shared.api.direct_exchange import DirectExchange
from shared.api.response_body import BodyStream
from shared.api.transport_faults import CAUSES, raise_fault

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterable

    from shared.auth.bearer_auth import BearerAuth

CONNECT_TIMEOUT = 5.0
"""Seconds for a connection to be made."""

KEEPALIVE = 30.0
"""Seconds that an idle connection is kept; servers close theirs after 60 and more."""

POOL_SHARE = 0.8
"""The part of a call's timeout in which there must be a connection; aiohttp ends what is over 5 s up to 1 s late."""

HEADERS: dict[str, str] = {
    hdrs.ACCEPT: "application/json, application/problem+json",
    hdrs.ACCEPT_ENCODING: "gzip, deflate",  # what aiohttp decompresses with no other package
    hdrs.USER_AGENT: "business-relay",
}


class RelayTransport(httpx.AsyncBaseTransport):
    """aiohttp, under an httpx client or without one, with every fault named by what is known of the request.

    A fault is a `ConnectError`, `ConnectTimeout` or `ProxyError` only where the request cannot have been sent: whoever
    trusts that posts it again. No fault repeats what the server sent, which may be an echo of the access token.
    """

    def __init__(self, *, max_connections: int, tls: ssl.SSLContext, proxy: str | None = None) -> None:
        self._max_connections = max_connections
        self._tls = tls
        self._proxy = _proxy_options(proxy) if proxy else {}
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request of an httpx client; the response's body is still to be read."""
        session = self._session or self._open_session()
        headers = CIMultiDict(request.headers.multi_items())
        body: bytes | AsyncIterable[bytes]
        if isinstance(request.stream, httpx.ByteStream):
            body = await request.aread()
        else:
            body = cast("httpx.AsyncByteStream", request.stream)
            headers.popall("transfer-encoding", None)  # aiohttp adds its own
        limits = request.extensions.get("timeout", {})
        timeout = aiohttp.ClientTimeout(
            connect=limits.get("pool"), sock_connect=limits.get("connect"), sock_read=limits.get("read")
        )
        try:
            response = await session.request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=headers,
                data=body or None,
                allow_redirects=False,
                auto_decompress=False,
                timeout=timeout,
                **self._proxy,
            )
        except CAUSES as exc:
            raise_fault(exc)
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=BodyStream(response), request=request
        )

    def exchange_with(
        self, base_url: str, timeout: aiohttp.ClientTimeout, auth: BearerAuth | None = None
    ) -> DirectExchange:
        """Give a way to the server of `base_url` without the objects of a client around each call."""
        return DirectExchange(
            base_url, connector=self.connector, timeout=timeout, headers=HEADERS, proxy=self._proxy, auth=auth
        )

    def connector(self) -> aiohttp.BaseConnector:
        """Give the connections, which belong to the event loop of the first call.

        Raises:
            RuntimeError: they are closed.
        """
        connector = (self._session or self._open_session()).connector
        if connector is None:
            raise RuntimeError("the client is closed")
        return connector

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        """Open the session, on the event loop to which it then belongs."""
        self._session = aiohttp.ClientSession(
            connector=CleanConnector(limit=self._max_connections, keepalive_timeout=KEEPALIVE, ssl=self._tls),
            cookie_jar=aiohttp.DummyCookieJar(),
            # With it aiohttp reads .netrc for every request, and refuses those that have a token already.
            trust_env=False,
        )
        return self._session


def _proxy_options(url: str) -> dict[str, Any]:
    """Give the proxy as aiohttp wants it: its credentials are a header."""
    proxy = httpx.Proxy(url)
    headers = {}
    if proxy.raw_auth is not None:
        headers["proxy-authorization"] = f"Basic {b64encode(b':'.join(proxy.raw_auth)).decode()}"
    return {"proxy": URL(str(proxy.url)), "proxy_headers": headers}


class RelayClient(httpx.AsyncClient):
    """An httpx client, and a way past httpx: `exchange_with`. It follows no redirect and keeps no cookie."""

    def __init__(self, transport: RelayTransport, timeout: httpx.Timeout, auth: BearerAuth | None) -> None:
        super().__init__(
            transport=transport,
            timeout=timeout,
            auth=auth,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            headers=HEADERS,
        )
        self._relay = transport
        self._bearer = auth
        self._limits = aiohttp.ClientTimeout(connect=timeout.pool, sock_connect=timeout.connect)

    def exchange_with(self, base_url: str) -> DirectExchange:
        """Give the exchange with the server of `base_url`, with its access token.

        Raises:
            ValueError: the access token is for another origin.
        """
        return self._relay.exchange_with(base_url, self._limits, self._bearer)


def create_client(
    *,
    timeout: float,
    max_connections: int,
    tls: ssl.SSLContext,
    proxy: str | None = None,
    auth: BearerAuth | None = None,
) -> RelayClient:
    """Make a client for one server: `timeout` seconds for a read, `CONNECT_TIMEOUT` to connect.

    Redirects are not followed and cookies not kept. A connection must be had in `POOL_SHARE` of the timeout, so that
    who ends a whole call after `timeout` learns before that it was not sent. `tls` is the process's one TLS context
    (making one costs 40 to 90 ms), `proxy` the URL of the proxy on the way.
    """
    return RelayClient(
        RelayTransport(max_connections=max_connections, tls=tls, proxy=proxy),
        httpx.Timeout(timeout, connect=min(CONNECT_TIMEOUT, timeout), pool=POOL_SHARE * timeout),
        auth,
    )
