"""A server on a loopback socket that can read a request; what goes back is said byte for byte by the test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    Serve = Callable[["Connection"], Awaitable[None]]


@dataclass(frozen=True)
class RawRequest:
    """A request as its bytes were; header names are in lower case, in their order, repeated where they came twice."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for header, value in self.headers if header == name]


class Connection:
    """One connection, the `number`-th of its server (from 1)."""

    def __init__(
        self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: RawServer
    ) -> None:
        self.number = number
        self._server = server
        self._reader = reader
        self._writer = writer

    async def read_request(self) -> RawRequest:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _version = request_line.split(" ")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        length = int(dict(headers).get("content-length", "0"))
        request = RawRequest(method, target, headers, await self._reader.readexactly(length))
        self._server.requests.append(request)
        self._server.came.set()
        return request

    async def read(self) -> bytes:
        """Read what has come, b"" where the client has closed the connection."""
        return await self._reader.read(65_536)

    async def send(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self.read():
                pass

    def reset(self) -> None:
        """Send RST in place of FIN."""
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def response(body: bytes = b"", *headers: str, status: str = "200 OK") -> bytes:
    """A response after which the connection may go on."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def answering(octets: bytes) -> Serve:
    """Read one request after the other, and answer each with these bytes."""

    async def serve(connection: Connection) -> None:
        while True:
            await connection.read_request()
            await connection.send(octets)

    return serve


def answering_once(octets: bytes) -> Serve:
    """Read one request, and answer it with these bytes; the connection is closed after that."""

    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(octets)

    return serve


class RawServer:
    """Hands each connection to `serve`, and closes it after that. `requests` are those that it has read.

    `came` is set by each of them.
    """

    def __init__(self, serve: Serve, *, tls: ssl.SSLContext | None = None) -> None:
        self.connections = 0
        self.requests: list[RawRequest] = []
        self.came = asyncio.Event()
        self.port = 0
        self._serve = serve
        self._tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def stop_listening(self) -> None:
        """Refuse new connections; those that are there go on."""
        self._server.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        connection = Connection(self.connections, reader, writer, self)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._serve(connection)
        finally:
            self._tasks.discard(task)
            await connection.close()
