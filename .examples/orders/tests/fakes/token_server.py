"""A token endpoint on a loopback socket: it numbers its tokens and keeps every request to the byte."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire; header names are in lower case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True, strict_parsing=bool(self.body)))

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))


@dataclass(frozen=True)
class Answer:
    """A response; `raw` instead of it is sent as it is, and the connection is closed after either.

    It is sent when `after` is set, and where it `drips` a byte at a time, every 20 ms.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    after: asyncio.Event | None = None
    drips: bool = False

    def __bytes__(self) -> bytes:
        if self.raw is not None:
            return self.raw
        headers = {"Content-Type": "application/json", "Content-Length": str(len(self.body))} | dict(self.headers)
        lines = [f"HTTP/1.1 {self.status} x", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode() + self.body


def json_answer(document: object, status: int = 200, **headers: str) -> Answer:
    """A JSON response; underscores in a header's name stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, json.dumps(document).encode(), named)


def refusal(error: str, description: str | None = None, status: int = 400) -> Answer:
    """An error response of RFC 6749 section 5.2."""
    return json_answer({"error": error} | ({"error_description": description} if description else {}), status)


DROPPED = Answer(raw=b"")
"""The connection is closed with no response."""


class TokenServer:
    """Answers `token-1`, `token-2`, … unless an answer was queued; `requests` has all that came, `came` is set by each.

    `respond` can be set to decide by the request instead; it is asked when no answer is queued.
    """

    def __init__(self, *, expires_in: object = 3600, tls: ssl.SSLContext | None = None) -> None:
        self.expires_in = expires_in
        self.requests: list[Request] = []
        self.came = asyncio.Event()
        self.queue: deque[Answer] = deque()
        self.respond: Callable[[Request], Answer | None] = lambda _request: None
        self.issued = 0
        self.port = 0
        self._tls = tls
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    @property
    def origin(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/token"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                request = await _read_request(reader)
                self.requests.append(request)
                self.came.set()
                answer = self.queue.popleft() if self.queue else self.respond(request) or self._next_token()
                if answer.after:
                    await answer.after.wait()
                await _send(writer, answer)
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _next_token(self) -> Answer:
        self.issued += 1
        return json_answer(
            {"access_token": f"token-{self.issued}", "token_type": "Bearer", "expires_in": self.expires_in}
        )


async def _send(writer: asyncio.StreamWriter, answer: Answer) -> None:
    octets = bytes(answer)
    step = 1 if answer.drips else max(1, len(octets))
    for start in range(0, len(octets), step):
        writer.write(octets[start : start + step])
        await writer.drain()
        if answer.drips:
            await asyncio.sleep(0.02)


async def _read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *lines = head.rstrip("\r\n").split("\r\n")
    method, target, _version = request_line.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(method, target, headers, await reader.readexactly(int(headers.get("content-length", "0"))))
