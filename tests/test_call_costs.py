"""What a call may cost, in things that can be counted: the same on every machine, whatever else it does."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

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


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts the timers that are set."""

    timers = 0

    def call_at(self, *args: Any, **kwargs: Any) -> asyncio.TimerHandle:  # type: ignore[override]  # noqa: ANN401 - hands on whatever it gets
        self.timers += 1
        return super().call_at(*args, **kwargs)


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(work)


def timers() -> int:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, CountingLoop)
    return loop.timers


@contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """Count the calls of Python functions by the package they are in."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            calls[str(frame.f_globals.get("__name__")).partition(".")[0]] += 1

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@asynccontextmanager
async def calling(server: RawServer, grant: NumberedGrant) -> AsyncIterator[Callable[[], Coroutine[Any, Any, int]]]:
    """Give what posts a record; one has been posted, so the connection and the token are there."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    provider = TokenProvider(grant)
    client = create_client(timeout=20, max_connections=10, tls=tls, auth=BearerAuth(provider, origin=server.url))
    async with BusinessApi(client, server.url, timeout=20) as api:

        async def post() -> int:
            return (await api.post_business(Business.from_json(RECORD), idempotency_key="k")).status

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


def test_a_call_makes_no_task_of_ours() -> None:
    async def work() -> None:
        made: list[str] = []

        def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:  # noqa: ANN401, as asyncio has it
            made.append(coro.cr_code.co_filename)
            return asyncio.Task(coro, loop=loop, **options)

        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:
            asyncio.get_running_loop().set_task_factory(factory)
            for _ in range(CALLS):
                await post()
            asyncio.get_running_loop().set_task_factory(None)
        assert [file for file in made if "/shared/" in file] == []

    run(work())


def test_a_call_goes_past_httpx_and_through_few_functions() -> None:
    async def work() -> None:
        async with RawServer(answering(CREATED)) as server, calling(server, NumberedGrant()) as post:
            await post()
            with counting_calls() as calls:
                for _ in range(CALLS):
                    await post()
        assert calls["httpx"] == 0
        # Measured on Python 3.13: 27 and 120. A coroutine counts once more for each time it goes on.
        assert 0 < calls["shared"] / CALLS <= 33
        assert 0 < calls["aiohttp"] / CALLS <= 145

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
