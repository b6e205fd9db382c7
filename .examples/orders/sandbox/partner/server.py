"""Serves the partners on a loopback port."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import uvicorn

from sandbox.partner.serving import PartnerApp
from sandbox.partner.state import PartnerSandbox
from sandbox.partner.wire import PartnerProtocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from sandbox.partner.state import PartnerConfig

HOST = "127.0.0.1"
# Seconds for which an idle connection is kept. Longer than clients keep theirs, so that no request meets a closing one.
_KEEP_ALIVE = 120
# Connections that may wait to be accepted: a burst must not look like a fault.
_BACKLOG = 4096


class PortInUseError(Exception):
    """The port cannot be had."""


@dataclass(frozen=True, slots=True)
class RunningPartners:
    """Partners that listen at `base_url` (no final slash), each below its `base_path`."""

    sandbox: PartnerSandbox
    base_url: str


class _Server(uvicorn.Server):
    """Uvicorn's server, which leaves the signals to its caller, and stops at once: what is under way is dropped."""

    def __init__(self, config: uvicorn.Config, sandbox: PartnerSandbox) -> None:
        super().__init__(config)
        self._sandbox = sandbox
        self._stopping = asyncio.Event()
        self.listening = asyncio.Event()

    def stop(self) -> None:
        self._stopping.set()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        while not self._stopping.is_set():
            # Brings the Date header up to date.
            await self.on_tick(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), timeout=1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002, closed by their servers
        for server in self.servers:
            server.close()
        self._sandbox.end_waits()
        for connection in self.server_state.connections:
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks)
        for server in self.servers:
            await server.wait_closed()


def _listener(port: int) -> socket.socket:
    # asyncio turns Nagle's algorithm off only for sockets that name their protocol, and socket.create_server's do not:
    # each answer, being written in two parts, would then wait 40 ms for the client's delayed ACK.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise PortInUseError(f"port {port} cannot be had: {exc.strerror}") from exc
    return listener


@asynccontextmanager
async def running(
    config: PartnerConfig, port: int = 0, *, clock: Callable[[], float] | None = None
) -> AsyncIterator[RunningPartners]:
    """Run the partners in this event loop as long as the context lasts; port 0 takes a free one.

    Raises:
        PortInUseError: the port cannot be had.
    """
    sandbox = PartnerSandbox(config) if clock is None else PartnerSandbox(config, clock)
    listener = _listener(port)
    server = _Server(
        uvicorn.Config(
            PartnerApp(sandbox),
            http=PartnerProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE,
            backlog=_BACKLOG,
        ),
        sandbox,
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    await server.listening.wait()
    try:
        yield RunningPartners(sandbox, f"http://{HOST}:{listener.getsockname()[1]}")
    finally:
        server.stop()
        await serving


async def serve(config: PartnerConfig, port: int, *, announce: Callable[[str], None]) -> None:
    """Run the partners until SIGINT or SIGTERM; `announce` gets its base URL when it listens.

    Raises:
        PortInUseError: the port cannot be had.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        async with running(config, port) as partners:
            announce(partners.base_url)
            await stop.wait()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
