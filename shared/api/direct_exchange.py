"""DirectExchange: requests written to aiohttp's connections as ready bytes, and their whole responses read from there.

The pool, TLS, the proxy and the parser are aiohttp's. Its client around them (a session, a request, a writer and a
response for each call) takes as long again. What is used of aiohttp is named in tests/test_direct_exchange.py.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp import hdrs
from yarl import URL

from shared.api.reply import Reply, joined
from shared.api.request_head import RequestHead
from shared.api.response_body import whole_body
from shared.api.transport_faults import CAUSES, body_fault, raise_fault

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.connector import Connection
    from aiohttp.http import RawResponseMessage

    from shared.auth.bearer_auth import BearerAuth

_FIRST_ERROR = 400
# Of those that come before the response, the one that ends the talk (RFC 9110 section 15.2.2).
_SWITCHING_PROTOCOLS = 101
# A connection that the server has closed, for which it may have had its reasons before the request.
_BROKEN = (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError)


class DirectExchange:
    """The exchange (see `shared.api.http_exchange`) with the server of `base_url`, and with no other.

    `connector` gives the connections, on the event loop of the first call; `timeout` bounds how long one is waited for;
    `headers` go with each request, as does the access token of `auth`, which is refused here if it is for another
    origin. With `proxy` (the options that aiohttp has for it) the way is through one.
    """

    def __init__(  # noqa: PLR0913, each is one thing
        self,
        base_url: str,
        *,
        connector: Callable[[], aiohttp.BaseConnector],
        timeout: aiohttp.ClientTimeout,
        headers: Mapping[str, str],
        proxy: Mapping[str, Any],
        auth: BearerAuth | None,
    ) -> None:
        self._url = URL(base_url, encoded=True)
        if proxy and self._url.scheme != "https":
            raise ValueError("plain http does not go through a proxy, which would read the access token")
        if auth is not None:
            auth.check_origin(self._url)
        self._head = RequestHead(self._url, headers)
        self._connector = connector
        self._timeout = timeout
        self._proxy = proxy
        self._auth = auth
        self._server: _Server | None = None

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Coroutine[Any, Any, Reply]:
        """Give the response, whatever its status. Nothing bounds the whole of that: it is for the caller to end it."""
        send = partial(self._send, method, path, headers, body)
        return send() if self._auth is None else self._auth.send(send)

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, authorization: str | None = None
    ) -> Reply:
        length = None if body is None else len(body)
        request = self._head.encode(method, path, headers, length, authorization) + (body or b"")
        try:
            connection, message, content = await self._begin(request, may_repeat=method == hdrs.METH_GET)
        except CAUSES as exc:
            raise_fault(exc)
        try:
            answer = await whole_body(content)
        except CAUSES as exc:
            _give_up(connection)
            raise body_fault(exc) from None
        except BaseException:
            _give_up(connection)
            raise
        _give_back(connection)
        # That matters for errors alone.
        all_headers = message.headers if message.code < _FIRST_ERROR else joined(message.headers)
        return Reply(message.code, all_headers, answer, authorization)

    async def _begin(
        self, request: bytes, *, may_repeat: bool
    ) -> tuple[Connection, RawResponseMessage, aiohttp.StreamReader]:
        """Send a request, and read the response up to its body.

        With `may_repeat` it is sent once more where the connection breaks, which may have been idle for too long.
        """
        connection = await self._connect()
        try:
            return connection, *await _headers_of_response(connection, request)
        except _BROKEN as exc:
            if not may_repeat:
                raise
            broken = exc
        # Outside of the handler: what breaks now must not have what broke, with the server's words, for its context.
        with suppress(*CAUSES):
            connection = await self._connect()
            return connection, *await _headers_of_response(connection, request)
        # Of the first it is known that it may have been sent.
        raise broken

    async def _connect(self) -> Connection:
        connector = self._connector()
        if self._server is None:
            self._server = _Server(hdrs.METH_GET, self._url, **self._proxy)
        try:
            return await connector.connect(self._server, [], self._timeout)
        except TimeoutError as exc:
            raise aiohttp.ConnectionTimeoutError(f"Connection timeout to host {self._url.host}") from exc


class _Server(aiohttp.ClientRequest):
    """What aiohttp's connector wants to know of a server; as a request it is never sent."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """Its place in the pool. The connector writes into the headers for the proxy, of which the place is made."""
        return super().connection_key


async def _headers_of_response(
    connection: Connection, request: bytes
) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
    """Send a request, and read the response up to its body; whatever goes wrong, the connection is given up."""
    try:
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            raise aiohttp.ClientConnectionResetError("The connection was closed before the request")  # noqa: TRY301, it closes, too
        protocol.set_response_params(read_until_eof=True)
        transport.write(request)
        while True:
            message, content = await protocol.read()
            if not 100 <= message.code < 200 or message.code == _SWITCHING_PROTOCOLS:  # noqa: PLR2004, RFC 9110 section 15.2
                return message, content
    except BaseException:
        _give_up(connection)
        raise


def _give_back(connection: Connection) -> None:
    """Give a connection back, unless the response came before the whole request was sent."""
    transport = connection.transport
    if transport is None or transport.is_closing() or _unsent(transport):
        _give_up(connection)
    else:
        connection.release()


def _give_up(connection: Connection) -> None:
    """Close a connection. What is left of its request is not sent: its caller goes on as if it were not there."""
    transport = connection.transport
    if transport is not None and not transport.is_closing() and _unsent(transport):
        transport.abort()
    connection.close()


def _unsent(transport: Any) -> int:  # noqa: ANN401, what it asks TLS for is private
    """Give how many bytes are still to be sent; of those below TLS the transport above does not know."""
    above: int = transport.get_write_buffer_size()
    below = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None)
    return above if below is None else above + below.get_write_buffer_size()
