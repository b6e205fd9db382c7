"""The connection under a request: what HTTP frameworks keep a handler from doing to it."""

from __future__ import annotations

import asyncio
import socket
import struct
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from asyncio import Transport

    from starlette.types import Receive, Scope, Send

    from sandbox.partner.answers import Answer

_TRANSPORT = "sandbox.transport"
# With this the kernel resets the connection in place of closing it in good order: socket(7), SO_LINGER.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class PartnerProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which also hands its transport to the application."""

    def on_message_begin(self) -> None:
        """Put the transport into the scope of the request that begins."""
        super().on_message_begin()
        extensions: dict[str, dict[object, object]] = {_TRANSPORT: {_TRANSPORT: self.transport}}
        self.scope["extensions"] = extensions


class Wire:
    """The connection of one request, served by a `PartnerProtocol`."""

    __slots__ = ("_receive", "_send", "_transport")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._transport: Transport = scope["extensions"][_TRANSPORT][_TRANSPORT]
        self._receive = receive
        self._send = send

    @property
    def client_gone(self) -> bool:
        """Whether the client has closed the connection."""
        return self._transport.is_closing()

    async def read_body(self, limit: int) -> bytes | None:
        """Return the request's body, of more than `limit` bytes only the start; None when the client has gone."""
        body: bytes = b""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if not message.get("more_body", False) or len(body) > limit:
                return body

    async def send(self, answer: Answer) -> None:
        """Send the answer, and the same bytes once more where it says so."""
        await self._send(_start(answer))
        await self._send({"type": "http.response.body", "body": answer.body})
        if answer.again_after is not None:
            asyncio.get_running_loop().call_later(answer.again_after, self._send_again, answer)

    def _send_again(self, answer: Answer) -> None:
        if self.client_gone:
            return
        lines = [b"HTTP/1.1 %d %s" % (answer.status, HTTPStatus(answer.status).phrase.encode())]
        lines += [b"%s: %s" % header for header in _start(answer)["headers"]]
        self._transport.write(b"\r\n".join([*lines, b"", answer.body]))

    async def send_half(self, answer: Answer) -> None:
        """Send all headers and half of the body, then close the connection."""
        await self._send(_start(answer))
        half = answer.body[: len(answer.body) // 2]
        await self._send({"type": "http.response.body", "body": half, "more_body": True})
        self._transport.close()
        await self.closed()

    async def drop(self, how: Literal["reset", "close"]) -> None:
        """Break the connection without an answer."""
        if how == "reset":
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
        else:
            self._transport.close()
        await self.closed()

    async def closed(self) -> None:
        """Wait until the connection has ended: uvicorn takes an earlier return for a defect and answers 500."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _start(answer: Answer) -> dict[str, Any]:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    return {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [
            (b"content-type", answer.content_type.encode()),
            (b"content-length", str(len(answer.body)).encode()),
            *headers,
        ],
    }
