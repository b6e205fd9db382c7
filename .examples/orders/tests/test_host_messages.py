from __future__ import annotations

import asyncio
import itertools
import socket

from hypothesis import given
from hypothesis import strategies as st

from sandbox.host.messages import (
    Answer,
    Channel,
    Initialize,
    Invoke,
    Message,
    RpcException,
    RpcHttp,
    TraceContext,
    TypedData,
)

INVOKE = Invoke(
    invocation_id="1",
    function_id="f",
    inputs={"req": TypedData(http=RpcHttp(method="POST", headers={"a": "b"}, body=TypedData(bytes=b"\x00\xff")))},
    trace_context=TraceContext(trace_parent="p", trace_state="s"),
)


class Recorder(asyncio.WriteTransport):
    """Takes down what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def written(*messages: Message) -> bytes:
    channel, transport = Channel(lambda _: None, lambda: None), Recorder()
    channel.connection_made(transport)
    for message in messages:
        channel.send(message)
    return transport.written


@given(st.lists(st.integers(min_value=0, max_value=400), max_size=8))
def test_gives_whole_messages_however_the_bytes_are_cut(cuts: list[int]) -> None:
    sent: list[Message] = [INVOKE, Answer(invocation_id="1"), Initialize(directory="ä", verbose=True), INVOKE]
    stream = written(*sent)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    got: list[Message] = []
    channel = Channel(got.append, lambda: None)
    for start, end in itertools.pairwise(places):
        channel.data_received(stream[start:end])
    assert got == sent


def test_keeps_the_kind_of_a_value_on_the_way() -> None:
    got: list[Message] = []
    values = [
        TypedData(string=""),
        TypedData(json="null"),
        TypedData(bytes=b""),
        TypedData(int=0),
        TypedData(double=1.5),
    ]
    channel = Channel(got.append, lambda: None)
    for value in values:
        channel.data_received(written(Answer(invocation_id="1", return_value=value)))
    kinds = [each.return_value.WhichOneof("data") for each in got if isinstance(each, Answer) and each.return_value]
    assert kinds == ["string", "json", "bytes", "int", "double"]
    assert TypedData().WhichOneof("data") is None


def test_drops_what_is_sent_before_it_is_open_and_after_it_is_closed() -> None:
    channel, transport = Channel(lambda _: None, lambda: None), Recorder()
    channel.send(INVOKE)
    channel.close()
    channel.connection_made(transport)
    channel.close()
    channel.send(INVOKE)
    assert transport.written == b""


async def test_says_once_that_the_other_end_is_gone() -> None:
    ours, theirs = socket.socketpair()
    ended = asyncio.Event()
    channel = Channel(lambda _: None, ended.set)
    await asyncio.get_running_loop().create_connection(lambda: channel, sock=ours)
    theirs.close()
    await asyncio.wait_for(ended.wait(), 5)


async def test_carries_a_large_message_between_two_ends() -> None:
    ours, theirs = socket.socketpair()
    got: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    left, right = Channel(lambda _: None, lambda: None), Channel(got.set_result, lambda: None)
    await asyncio.get_running_loop().create_connection(lambda: left, sock=ours)
    await asyncio.get_running_loop().create_connection(lambda: right, sock=theirs)
    answer = Answer(invocation_id="1", exception=RpcException(message="x" * 3_000_000))
    left.send(answer)
    assert await asyncio.wait_for(got, 10) == answer
    left.close()
    right.close()
