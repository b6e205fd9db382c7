"""A partner that costs next to nothing: its API and its token endpoint in a process of their own.

The sandbox's partner takes as long for a call as the clients that are measured; this one takes a part of that. It knows
HTTP just as far as they speak it. Each client has a room of its own, the first segment of the path:

    POST /<room>/…/auth/token     an access token
    POST /<room>/await            answers once there are `keys` idempotency keys with `prefix`, or after `seconds`, how
                                  many there are, and the seconds since the room's first call
    POST /<room>/control          changes the room's settings (see `room.Room`); answers with its counts
    POST /<room>/…                stores a record: 201
    GET /<room>/…                 looks one up: 404, no record is there before it is posted

Run: python -m benchmarks.server. It prints its port, and ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.room import ABORT, Room

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_BODIES = {201: b'{"stored":true}', 404: b'{"title":"not found"}'}
_WORK = (201, 404)


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
            room.counts.connections += 1
        if path.endswith(b"auth/token"):
            self._later(room.token_latency, lambda: self._give_token(room))
        elif path == b"await":
            self._wait(room, **json.loads(body))
        elif path == b"control":
            counts = room.counted()
            settings = json.loads(body or b"{}")
            room.change(settings.get("settings", {}), time.monotonic(), is_new=settings.get("isNew", False))
            self._write(200, json.dumps(counts).encode())
        else:
            self._take(room, head, path + body)

    def _take(self, room: Room, head: bytes, sent: bytes) -> None:
        is_post = not head.startswith(b"GET")
        authorization = _header(head, b"authorization") or b""
        status, headers = room.answer(is_post, sent, authorization, time.monotonic())
        if status == ABORT:
            self._transport.abort()
            return
        body = _BODIES.get(status, b'{"title":"refused"}')
        if status not in _WORK:
            self._write(status, body, headers)
            return
        key = (_header(head, b"idempotency-key") or b"").decode() if is_post else None

        def finish() -> None:
            room.finish(key)
            self._write(status, body, headers)

        self._later(room.latency, finish)

    def _give_token(self, room: Room) -> None:
        value = room.issue(time.monotonic())
        if value is None:
            self._write(503, b"{}")
            return
        token = {"access_token": value.decode(), "token_type": "Bearer", "expires_in": room.expires_in}
        self._write(200, json.dumps(token).encode())

    def _wait(self, room: Room, keys: int, seconds: float, prefix: str = "") -> None:
        def answer() -> None:
            timer.cancel()
            since_began = time.monotonic() - room.began
            self._write(200, json.dumps({"stored": room.count(prefix), "sinceBegan": since_began}).encode())

        def give_up() -> None:
            room.waiting.remove(wait)
            answer()

        wait = prefix, keys, answer
        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        if room.count(prefix) >= keys:
            answer()
        else:
            room.waiting.append(wait)

    def _later(self, seconds: float, write: Callable[[], None]) -> None:
        if seconds:
            asyncio.get_running_loop().call_later(seconds, write)
        else:
            write()

    def _write(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items()).encode()
        self._transport.write(
            b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), more, body)
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
