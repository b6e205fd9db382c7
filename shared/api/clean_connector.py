"""CleanConnector: aiohttp's connections, kept for the next request only if nothing more came than the answer.

What comes on an idle connection answers nothing: a duplicate of the last answer, a 408 at a server's timeout, a late
100. aiohttp gives it to the next request (aio-libs/aiohttp#13656), which may say that a record was stored that never
was, and every answer after that is the one before. What is overridden here is named in tests/test_clean_connector.py.
"""

from __future__ import annotations

import asyncio
import select
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.client_reqrep import ConnectionKey
    from aiohttp.tracing import Trace


class CleanConnector(aiohttp.TCPConnector):
    """A connector that gives no request a connection on which something came that no request has asked for.

    Nor does it leave a free connection to a call that was cancelled while it waited for one, as aiohttp's does.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401, they are those of aiohttp
        super().__init__(**options)
        self._factory: partial[ResponseHandler] = partial(WatchedConnection, loop=self._loop)  # type: ignore[assignment]

    async def _wait_for_available_connection(self, key: ConnectionKey, traces: list[Trace]) -> None:
        try:
            await super()._wait_for_available_connection(key, traces)
        except asyncio.CancelledError:
            # It may have been told of a free connection already: another has to be told instead.
            self._release_waiter()
            raise

    def _release(self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        super()._release(key, protocol, should_close=should_close)
        protocol.is_idle = True  # type: ignore[attr-defined]  # it is a WatchedConnection


class WatchedConnection(ResponseHandler):
    """A connection that ends when something comes while it is idle, and a body that ends when it breaks."""

    is_idle = False
    _has_come: Callable[[], object] | None = None

    def set_response_params(self, **options: Any) -> None:  # noqa: ANN401, they are those of aiohttp
        """Expect the response to a request, which is sent before anything else can happen."""
        self.is_idle = False
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        """Take what has come; b"" is what aiohttp has had and kept."""
        if not self.is_idle:
            super().data_received(data)
            if self._exception is not None:
                self._break_off_body()
        elif data:
            self.close()

    def _break_off_body(self) -> None:
        """Tell who reads a body that no more of it comes: aiohttp leaves them waiting where its chunks are none."""
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:
            body.set_exception(aiohttp.ClientPayloadError("the response is not HTTP"))

    def is_connected(self) -> bool:
        """Tell whether it is open; an idle one, also whether it may be used again."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        return not self.is_idle or self._is_clean()

    def _is_clean(self) -> bool:
        """Tell whether no more has come than the last answer: neither with it nor since, though not yet read."""
        if self.should_close or self._parser is None:
            return False
        try:
            # The beginning of a message, which only the parser knows of. It is not used again.
            if self._parser.feed_eof() is not None:
                return False
        except Exception:  # noqa: BLE001, whatever the parser has against it: it is no answer
            return False
        if self._has_come is None:
            self._has_come = _readable(self.transport)
        return not self._has_come()


def _readable(transport: Any) -> Callable[[], object]:  # noqa: ANN401, it is an asyncio.Transport, for aiohttp also None
    """Give what tells whether there is something to read, or the end."""
    sock = transport.get_extra_info("socket")
    if not hasattr(select, "poll"):  # on Windows
        return lambda: select.select([sock], [], [], 0)[0]
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return partial(poll.poll, 0)
