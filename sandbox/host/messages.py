"""The messages between the host and its worker process, and their framing.

They carry the fields of the Functions RPC protocol under its own names, so that the worker runtime can use these
classes for its protobuf messages. On the wire each message is one MessagePack map with a `type` tag, after its length
in bytes as four bytes, big-endian.
"""

from __future__ import annotations

import asyncio
import builtins  # noqa: TC003 - msgspec resolves the annotations
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH_BYTES = 4


class RpcHttpCookie(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A cookie that a function sets; `expires` is in seconds since the epoch, `max_age` in seconds."""

    name: str
    value: str
    domain: str | None = None
    path: str | None = None
    expires: int | None = None
    secure: bool | None = None
    http_only: bool | None = None
    same_site: str | None = None
    max_age: float | None = None


class RpcHttp(msgspec.Struct, omit_defaults=True, kw_only=True):
    """An HTTP request on its way to a function, or the response on its way back."""

    method: str = ""
    url: str = ""
    headers: dict[str, str] = {}
    params: dict[str, str] = {}
    query: dict[str, str] = {}
    body: TypedData | None = None
    status_code: str = ""
    cookies: list[RpcHttpCookie] | None = None
    enable_content_negotiation: bool = False


class TypedData(msgspec.Struct, omit_defaults=True, kw_only=True):
    """One value with its kind: exactly one field is set, or none for no value."""

    string: str | None = None
    json: str | None = None
    bytes: builtins.bytes | None = None
    http: RpcHttp | None = None
    int: builtins.int | None = None
    double: float | None = None

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - the name is protobuf's, the runtime calls it
        """Name the field that is set, as a protobuf message does."""
        for name in self.__struct_fields__:
            if getattr(self, name) is not None:
                return name
        return None


class RpcException(msgspec.Struct, kw_only=True):
    """What a function raised: `<type>: <message>`, and the traceback as text."""

    message: str
    stack_trace: str = ""


class TraceContext(msgspec.Struct, kw_only=True, frozen=True):
    """The W3C trace context of an invocation: the values of `traceparent` and `tracestate`."""

    trace_parent: str = ""
    trace_state: str = ""


class FunctionMetadata(msgspec.Struct, kw_only=True):
    """A function as the app declares it; each of `raw_bindings` is the JSON of one binding."""

    name: str
    function_id: str
    script_file: str
    raw_bindings: list[str]


class Initialize(msgspec.Struct, tag="initialize", kw_only=True):
    """To the worker, first: import the app in this directory and index its functions."""

    directory: str
    verbose: bool


class Initialized(msgspec.Struct, tag="initialized", kw_only=True):
    """From the worker: the app is imported, these are its functions."""

    functions: list[FunctionMetadata]


class NotInitialized(msgspec.Struct, tag="not_initialized", kw_only=True):
    """From the worker: the app cannot run; one line says why, `details` may have the traceback."""

    problem: str
    details: str = ""


class Invoke(msgspec.Struct, tag="invoke", kw_only=True):
    """To the worker: run a function with these inputs, one for each of its input bindings."""

    invocation_id: str
    function_id: str
    inputs: dict[str, TypedData]
    trace_context: TraceContext


class Answer(msgspec.Struct, tag="answer", kw_only=True):
    """From the worker: the function has returned, or raised `exception`."""

    invocation_id: str
    return_value: TypedData | None = None
    exception: RpcException | None = None


Message = Initialize | Initialized | NotInitialized | Invoke | Answer

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


class Channel(asyncio.Protocol):
    """One end of the socket between host and worker: whole messages out, whole messages in.

    `on_message` is called with each message, in order; `on_end` once, when the other end is gone.
    """

    def __init__(self, on_message: Callable[[Message], None], on_end: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_end = on_end
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport, for `send`."""
        if isinstance(transport, asyncio.WriteTransport):
            self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take bytes off the socket and hand on every message that is complete."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            first = start + LENGTH_BYTES
            end = first + int.from_bytes(self._buffer[start:first])
            if end > len(self._buffer):
                break
            message: Message = _decoder.decode(self._buffer[first:end])
            start = end
            self._on_message(message)
        del self._buffer[:start]

    def connection_lost(self, _exc: Exception | None) -> None:
        """Report that the other end is gone."""
        self._on_end()

    def send(self, message: Message) -> None:
        """Send a message; on a closed channel it is dropped, and `on_end` tells why."""
        body = _encoder.encode(message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(body).to_bytes(LENGTH_BYTES) + body)

    def close(self) -> None:
        """Close the channel; what is already sent still goes out."""
        if self._transport is not None:
            self._transport.close()
