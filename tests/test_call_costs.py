"""What a call may cost, in things that can be counted: the same on every machine, whatever else it does."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
import tracemalloc
from collections import Counter
from contextlib import asynccontextmanager
from statistics import median_high
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sample import business
from shared.api.business import Business
from shared.api.business_api import BusinessApi
from shared.api.transport import create_client
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.raw_server import RawServer, answering, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import FrameType

RECORD = business("id-1", extra={"n": [1, 2.5, None, True]})
CREATED = response(b'{"id":7}', status="201 Created")
CALLS = 100


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """A collection of garbage comes when it will, and calls what others have left for it."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the timers that are set, and what is given to threads."""

    timers = 0
    threads = 0

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # noqa: ANN401 - hands on whatever it gets
        self.timers += 1
        return super().call_at(*args, **kwargs)

    def run_in_executor(self, *args: Any, **kwargs: Any) -> asyncio.Future[Any]:  # type: ignore[override]  # noqa: ANN401 - the same
        self.threads += 1
        return super().run_in_executor(*args, **kwargs)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(work)


def timers() -> int:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    return loop.timers


def module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def package(frame: FrameType) -> str:
    name = module(frame).partition(".")[0]
    if module(frame) == __name__:
        return "tests"
    return name if name in {*PACKAGES, "tests", "httpx"} else "others"


@asynccontextmanager
async def calling(
    server: RawServer, grant: NumberedGrant, record: object = RECORD
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, int]]]:
    """Give what posts a record; one has been posted, so the connection and the token are there."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    provider = TokenProvider(grant)
    client = create_client(timeout=20, max_connections=10, tls=tls, auth=BearerAuth(provider, origin=server.url))
    async with BusinessApi(client, server.url, timeout=20) as api:

        async def post() -> int:
            return (await api.post_business(Business.from_json(record), idempotency_key="k")).status

        assert await post() == 201
        yield post
    await provider.aclose()


def test_many_calls_need_one_token_and_one_connection() -> None:
    async def work() -> None:
        grant = NumberedGrant()
        async with RawServer(answering(CREATED)) as server, calling(server, grant) as post:
            assert {await post() for _ in range(CALLS)} == {201}
            assert (grant.requests, server.connections, len(server.requests)) == (1, 1, CALLS + 1)

    run(work())


def test_concurrent_calls_need_one_token_and_no_more_connections_than_are_allowed() -> None:
    async def work() -> None:
        grant = NumberedGrant()
        async with RawServer(answering(CREATED)) as server, calling(server, grant) as post:
            assert set(await asyncio.gather(*(post() for _ in range(CALLS)))) == {201}
            assert grant.requests == 1
            assert server.connections <= 10

    run(work())


def test_a_call_sets_no_timer_of_its_own() -> None:
    async def work() -> None:
        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:
            before = timers()
            for _ in range(CALLS):
                await post()
            assert timers() - before <= 2  # of aiohttp, for the connections that are idle

    run(work())


def test_a_call_makes_no_task_and_asks_no_thread() -> None:
    async def work() -> None:
        made: list[str] = []

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401, as asyncio has it
            made.append(coro.__qualname__)
            return asyncio.Task(coro, loop=loop, **options)

        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:
            loop = asyncio.get_running_loop()
            loop.set_task_factory(factory)
            for _ in range(CALLS):
                await post()
            loop.set_task_factory(None)
            assert isinstance(loop, CountingLoop)
            assert loop.threads == 0
        assert made == []

    run(work())


# The modules whose functions a call goes through, its server's among them: a thread, a TLS context, a copy or a second
# JSON brings in another.
MODULES = {
    "aiohttp.base_protocol",
    "aiohttp.client",
    "aiohttp.client_proto",
    "aiohttp.connector",
    "aiohttp.helpers",
    "aiohttp.streams",
    "asyncio.base_events",
    "asyncio.events",
    "asyncio.locks",
    "asyncio.selector_events",
    "asyncio.streams",
    "asyncio.tasks",
    "asyncio.transports",
    "asyncio.trsock",
    "functools",
    "selectors",
    "typing",
}
# The calls that one call makes, of functions in Python (a coroutine counts once more for each time that it goes on) and
# of those in C, by the package that makes them. They are the same each time and on every machine.
PACKAGES = ("shared", "aiohttp", "asyncio", "others")
COUNTED = {
    (3, 11): {"call": (39, 42, 67, 9), "c_call": (24, 18, 53, 20)},
    (3, 12): {"call": (39, 42, 65, 9), "c_call": (26, 18, 49, 18)},
    (3, 13): {"call": (39, 42, 65, 7), "c_call": (26, 18, 48, 16)},
}
SLACK = 2
"""What a release of Python or aiohttp may add to those that are not ours: a lock, a task or a copy adds more."""
LINES = 132
"""The lines of ours that run in a call: a loop in one of them runs its line each time."""


def test_a_call_goes_past_httpx_and_the_client_of_aiohttp_and_through_few_functions() -> None:
    async def work() -> None:
        counts: list[Counter[str]] = []
        modules: set[str] = set()

        def count(frame: FrameType, event: str, _argument: object) -> None:
            if event in {"call", "c_call"}:
                counts[-1][f"{package(frame)} {event}"] += 1
                modules.add(module(frame))

        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:
            for _ in range(CALLS):
                counts.append(Counter())
                sys.setprofile(count)
                try:
                    await post()
                finally:
                    sys.setprofile(None)
        most = COUNTED.get(sys.version_info[:2])
        for event in ("call", "c_call"):
            for number, name in enumerate(PACKAGES):
                # The median is free of what is due once in a while, as the end of idle connections.
                found = median_high(calls[f"{name} {event}"] for calls in counts)
                if most is not None:
                    limit = most[event][number] + (0 if name == "shared" else SLACK)
                else:  # a Python that nobody has counted on
                    limit = max(counted[event][number] for counted in COUNTED.values()) * 6 // 5
                assert 0 < found <= limit, (name, event)
        assert all(calls["httpx call"] == 0 for calls in counts)
        assert {name for name in modules if name.partition(".")[0] not in {"shared", "tests"}} <= {*MODULES, __name__}

    run(work())


def test_a_call_runs_few_lines_of_ours() -> None:
    async def work() -> None:
        lines = 0

        def trace(frame: FrameType, event: str, _argument: object) -> Any:  # noqa: ANN401, as sys.settrace has it
            nonlocal lines
            if package(frame) != "shared":
                return None
            lines += event == "line"
            return trace

        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:
            before = sys.gettrace()  # of the measuring of coverage
            sys.settrace(trace)
            try:
                for _ in range(CALLS):
                    await post()
            finally:
                sys.settrace(before)
        assert 0 < lines / CALLS <= LINES

    run(work())


def test_a_call_holds_its_body_few_times() -> None:
    size = 50_000

    async def work() -> None:
        record = {**RECORD, "text": "x" * size}
        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant(), record) as post:
            await post()
            server.requests.clear()
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                await post()
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert size < peak - before < 20 * size  # most of it is the server's

    run(work())


def test_calls_leave_nothing_behind_in_memory() -> None:
    async def work() -> None:
        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:

            async def blocks_after(calls: int) -> int:
                for _ in range(calls):
                    await post()
                server.requests.clear()
                gc.collect()
                return sys.getallocatedblocks()

            await blocks_after(CALLS)
            before = await blocks_after(CALLS)
            assert await blocks_after(CALLS) - before < CALLS

    run(work())
