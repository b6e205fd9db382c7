"""GuardedConnector: aiohttp's connections, of which none is used again once unsolicited bytes have arrived on it.

Unsolicited bytes belong to no request: a duplicate of the last response, a 408 when the server loses patience, a late
100 (Continue). aiohttp takes them for the response to the next request on that connection (aio-libs/aiohttp#13656), and
a record counts as stored that never was. This module uses public names only.
"""

from __future__ import annotations

import asyncio
import select
from contextvars import ContextVar
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

_latest: ContextVar[_Watch | None] = ContextVar("latest", default=None)


def is_reused() -> bool:
    """Return whether the connection that this task got last has served a request before."""
    watch = _latest.get()
    return watch is not None and watch.is_reused


def close_connection() -> None:
    """Close the connection that this task got last, even if the response's body has been read."""
    if watch := _latest.get():
        watch.close()


class GuardedConnector(aiohttp.TCPConnector):
    """A connector whose idle connections close when anything arrives on them."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109, it is aiohttp's
    ) -> Connection:
        """Return a connection on which nothing has arrived since its last response.

        Raises:
            aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, TimeoutError: there is none. Nothing was sent.
        """
        while True:
            try:
                connection = await super().connect(req, traces, timeout)
            except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, TimeoutError):
                raise
            except (aiohttp.ClientError, OSError):
                # What a proxy breaks would else look like a response that the server breaks.
                kind = aiohttp.ClientProxyConnectionError if req.proxy else aiohttp.ClientConnectorError
                raise kind(req.connection_key, OSError("no usable answer to CONNECT")) from None
            transport = connection.transport
            if transport is None or connection.protocol is None:  # lost already: aiohttp reports it
                return connection
            watch = transport.get_protocol()
            if not isinstance(watch, _Watch):
                watch = _Watch(connection.protocol, transport)
                transport.set_protocol(watch)
            elif watch.is_clean():
                watch.is_reused = True
            else:
                connection.close()
                continue
            _latest.set(watch)
            watch.is_idle = False
            connection.add_callback(watch.on_release)
            return connection


class _Watch(asyncio.Protocol):
    """Stands between a transport and aiohttp's protocol, and closes the transport if data arrives while it is idle."""

    def __init__(self, protocol: asyncio.Protocol, transport: asyncio.Transport) -> None:
        self.is_idle = self.is_reused = False
        self.close = transport.close
        self._protocol = protocol
        self._transport = transport
        # Everything but data is passed on as it is.
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]  # on purpose
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]  # on purpose
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]  # on purpose
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]  # on purpose

    def is_clean(self) -> bool:
        """Return whether the socket has nothing to read: bytes that the event loop has not seen yet are unsolicited."""
        sock = self._transport.get_extra_info("socket")
        if not hasattr(select, "poll"):  # Windows
            return not select.select([sock], [], [], 0)[0]
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return not poll.poll(0)

    def on_release(self) -> None:
        """Begin to watch: the response is complete, or nobody waits for it any more."""
        self.is_idle = True
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # the rest of a request that nobody waits for is not sent

    def data_received(self, data: bytes) -> None:
        """Pass the bytes of a response on."""
        if self.is_idle:
            self.close()
        else:
            self._protocol.data_received(data)
