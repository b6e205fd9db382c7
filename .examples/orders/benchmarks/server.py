"""A partner that costs next to nothing: its API and its token endpoint in a process of their own.

The sandbox's partner takes as long for a call as the clients that are measured; this one takes a part of that, which
`make bench` measures and writes down, and knows HTTP just as far as they speak it. Each peer has a room of its own, the
first segment of the path:

    POST /<room>/auth/token            a token for `expires_in` s, after `token_latency` s; 503 while down
    POST /<room>/business/             201 after `latency` s, 401 where the token is none of the room's
    GET /<room>/business/…             404 after `latency` s: no record is there before it is posted
    POST /<room>/await                 answers with the counts once there are `keys` idempotency keys, or after
                                       `seconds`
    POST /<room>/control               changes the room's settings, answers with its counts, and with the µs of a
                                       processor that the whole process has taken

Run: python -m benchmarks.server. It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN_SIZE = 800  # characters, as many as a JSON Web Token of a large vendor has


@dataclass
class Room:
    """What one peer meets, and what it has done."""

    latency: float = 0.0
    token_latency: float = 0.0
    expires_in: int = 3600
    down_from: float | None = None  # seconds from `epoch`, as are the next two
    down_until: float | None = None
    revoke_at: float | None = None
    epoch: float = 0.0  # of the server's clock
    connections: int = 0
    token_requests: int = 0
    posts: int = 0
    look_ups: int = 0
    unauthorized: int = 0
    keys: set[bytes] = field(default_factory=set)
    waiting: list[tuple[int, Callable[[], None]]] = field(default_factory=list)  # for so many keys
    tokens: dict[bytes, tuple[float, float]] = field(default_factory=dict)  # requested at, expires at

    def is_down(self, now: float) -> bool:
        """Tell whether the token endpoint is down."""
        return self.down_from is not None and self.down_from <= now - self.epoch < (self.down_until or float("inf"))

    def accepts(self, authorization: bytes, now: float) -> bool:
        """Tell whether a token is one of ours that lives."""
        issued, expires = self.tokens.get(authorization, (0.0, 0.0))
        is_revoked = self.revoke_at is not None and issued < self.epoch + self.revoke_at <= now
        return now < expires and not is_revoked

    def issue(self, now: float) -> bytes:
        """Issue a token."""
        value = f"token-{len(self.tokens)}-".encode().ljust(TOKEN_SIZE, b"x")
        self.tokens[b"Bearer " + value] = now, now + self.expires_in
        return value

    def take_key(self, key: bytes) -> None:
        """Count a key, and answer who has waited for as many as there are now."""
        self.keys.add(key)
        for wait in [wait for wait in self.waiting if wait[0] <= len(self.keys)]:
            self.waiting.remove(wait)
            wait[1]()

    def counts(self) -> dict[str, int]:
        """Count what has been done."""
        return {
            "connections": self.connections,
            "token_requests": self.token_requests,
            "posts": self.posts,
            "look_ups": self.look_ups,
            "unauthorized": self.unauthorized,
            "keys": len(self.keys),
            "processor": round(time.process_time() * 1e6),
        }

    def set(self, settings: dict[str, float]) -> None:
        """Change settings; `epoch` becomes now, and the counts 0."""
        for name, value in settings.items():
            setattr(self, name, value)
        self.epoch = time.monotonic()
        self.connections = self.token_requests = self.posts = self.look_ups = self.unauthorized = 0
        self.keys.clear()


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each with a Content-Length or without a body."""

    def __init__(self, rooms: dict[bytes, Room]) -> None:
        self._rooms = rooms
        self._received = b""
        self._room: Room | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # a socket's transport writes

    def data_received(self, data: bytes) -> None:
        """Answer every request that is whole."""
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            length = int(_header(head, b"content-length") or b"0")
            if len(self._received) < end + 4 + length:
                return
            body = self._received[end + 4 : end + 4 + length]
            self._received = self._received[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        name, _, path = head[head.index(b"/") + 1 : head.index(b" HTTP/")].partition(b"/")
        room = self._rooms.setdefault(name, Room())
        if self._room is None:
            self._room = room
            room.connections += 1
        if path.startswith(b"business/"):
            self._take(room, head)
        elif path == b"auth/token":
            self._later(room.token_latency, lambda: self._give_token(room))
        elif path == b"await":
            self._wait(room, **json.loads(body))
        else:
            counts = room.counts()
            if body:
                room.set(json.loads(body))
            self._write(b"200 OK", json.dumps(counts).encode())

    def _take(self, room: Room, head: bytes) -> None:
        is_post = head.startswith(b"POST")
        room.posts += is_post
        room.look_ups += not is_post
        if not room.accepts(_header(head, b"authorization") or b"", time.monotonic()):
            room.unauthorized += 1
            challenge = b'WWW-Authenticate: Bearer error="invalid_token"\r\n'
            self._later(room.latency, lambda: self._write(b"401 Unauthorized", b'{"title":"unauthorized"}', challenge))
            return
        if not is_post:
            self._later(room.latency, lambda: self._write(b"404 Not Found", b'{"title":"not found"}'))
            return
        if key := _header(head, b"idempotency-key"):
            room.take_key(key)
        self._later(room.latency, lambda: self._write(b"201 Created", b'{"id":12345,"externalId":"business-1"}'))

    def _give_token(self, room: Room) -> None:
        room.token_requests += 1
        now = time.monotonic()
        if room.is_down(now):
            self._write(b"503 Service Unavailable", b"{}")
            return
        token = {"access_token": room.issue(now).decode(), "token_type": "Bearer", "expires_in": room.expires_in}
        self._write(b"200 OK", json.dumps(token).encode())

    def _wait(self, room: Room, keys: int, seconds: float) -> None:
        def answer() -> None:
            timer.cancel()
            self._write(b"200 OK", json.dumps(room.counts()).encode())

        def give_up() -> None:
            room.waiting.remove(wait)
            answer()

        wait = keys, answer
        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        if len(room.keys) >= keys:
            answer()
        else:
            room.waiting.append(wait)

    def _later(self, seconds: float, write: Callable[[], None]) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, write)
        else:
            write()

    def _write(self, status: bytes, body: bytes, headers: bytes = b"") -> None:
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), headers, body)
        )


def _header(head: bytes, name: bytes) -> bytes | None:
    """Find a header's value; `name` is in lower case."""
    start = head.lower().find(b"\r\n" + name + b":")
    if start < 0:
        return None
    return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip()


async def _serve() -> None:
    rooms: dict[bytes, Room] = {}
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(rooms), sock=listener, backlog=1024)
    print(listener.getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_serve())
