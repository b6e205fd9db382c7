from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING

import pytest

from shared.auth.access_token import AccessToken
from shared.auth.token_store import StoredGrant, TokenCipher
from shared.errors import TokenUnavailableError
from tests.fakes.memory_store import MemoryStore
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CIPHER = TokenCipher("k" * 32)

NAME = hashlib.sha256(b"endpoint of relay").hexdigest()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def now() -> float:
    """Seconds on the clock of the running loop, which begins at 0 in virtual time."""
    return asyncio.get_running_loop().time()


class NumberedGrant:
    """Stands for the token endpoint behind all processes: numbers its tokens, waits at its gate, fails on demand."""

    def __init__(self) -> None:
        self.cache_key = "endpoint of relay"
        self.requests = 0
        self.expires_in: float | None = 3600.0
        self.refresh_in: float | None = None
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.refused: list[AccessToken | None] = []

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        self.requests += 1
        number = self.requests
        self.refused.append(refused)
        self.asked.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return AccessToken(f"token-{number}", self.expires_in, self.refresh_in)


class App:
    """Processes of one app: each has a stored grant of its own, over one store and one token endpoint."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.monotonic = Clock()
        self.grant = NumberedGrant()
        self.store = MemoryStore()

        self.processes: list[StoredGrant] = []

    def process(self, cipher: TokenCipher = CIPHER, *, request_timeout: float = 30.0) -> StoredGrant:
        process = StoredGrant(
            self.grant,
            self.store,
            cipher,
            request_timeout=request_timeout,
            clock=self.clock,
            monotonic=lambda: now() + self.monotonic.now,
        )
        self.processes.append(process)
        return process

    async def settle(self) -> None:
        """Wait until all processes have done what they do in the background."""
        for process in self.processes:
            await process.aclose()


@pytest.fixture
async def app() -> AsyncIterator[App]:
    running = App()
    yield running
    await running.settle()


async def test_a_second_process_takes_the_stored_token_with_what_is_left_of_its_life(app: App) -> None:
    app.grant.refresh_in = 1800.0
    assert await app.process().request_token() == AccessToken("token-1", 3600.0, 1800.0)
    app.clock.now += 600
    assert await app.process().request_token() == AccessToken("token-1", 3000.0, 1200.0)
    assert app.grant.requests == 1
    await app.settle()
    assert app.store.leases == {}


async def test_a_token_says_whether_it_cost_a_token_request(app: App) -> None:
    assert not (await app.process().request_token()).is_shared
    assert (await app.process().request_token()).is_shared


async def test_many_cold_processes_send_one_request(app: App) -> None:
    app.grant.gate.clear()
    flights = [asyncio.create_task(app.process().request_token()) for _ in range(20)]
    await app.grant.asked.wait()
    app.grant.gate.set()
    tokens = await asyncio.gather(*flights)
    assert {token.value for token in tokens} == {"token-1"}
    assert app.grant.requests == 1


async def test_who_asks_again_wants_another_token(app: App) -> None:
    first, second = app.process(), app.process()
    await first.request_token()
    await second.request_token()

    assert (await first.request_token()).value == "token-2"  # ahead of expiry: nobody has renewed it yet
    assert (await second.request_token()).value == "token-2"  # and now somebody has
    assert app.grant.requests == 2


async def test_a_refused_token_is_renewed_once_for_all(app: App) -> None:
    first, second, third = app.process(), app.process(), app.process()
    refused = await first.request_token()
    await second.request_token()

    assert (await first.request_token(refused)).value == "token-2"
    assert (await second.request_token(refused)).value == "token-2"
    assert (await third.request_token(refused)).value == "token-2"
    assert app.grant.requests == 2
    assert app.grant.refused == [None, refused]


async def test_a_token_that_comes_again_though_it_was_refused_is_not_stored(app: App) -> None:
    refused = await app.process().request_token()
    await app.settle()
    app.store.values.clear()
    app.grant.requests = 0  # the endpoint gives the same again
    assert await app.process().request_token(refused) == refused
    await app.settle()
    assert app.store.values == {}


@pytest.mark.parametrize(("lifetime", "usable_for"), [(3600.0, 3595.0), (20.0, 18.0), (None, 295.0)])
async def test_a_token_is_left_alone_shortly_before_its_end(
    app: App, lifetime: float | None, usable_for: float
) -> None:
    app.grant.expires_in = lifetime
    await app.process().request_token()
    app.clock.now += usable_for - 0.1
    assert (await app.process().request_token()).value == "token-1"
    app.clock.now += 0.1
    assert (await app.process().request_token()).value == "token-2"


async def test_a_process_that_waited_in_vain_asks_for_itself(app: App) -> None:
    app.grant.gate.clear()
    first = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    app.grant.asked.clear()
    impatient = asyncio.create_task(app.process(request_timeout=0.04).request_token())
    await app.grant.asked.wait()
    app.grant.gate.set()
    assert {token.value for token in await asyncio.gather(first, impatient)} == {"token-1", "token-2"}


async def test_who_waits_takes_over_when_the_first_one_fails(app: App) -> None:
    app.grant.gate.clear()
    app.grant.failure = TokenUnavailableError("down")
    first = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    second = asyncio.create_task(app.process().request_token())
    app.grant.gate.set()
    with pytest.raises(TokenUnavailableError):
        await first
    app.grant.failure = None
    assert (await second).value == "token-2"


async def test_a_cancelled_request_gives_its_lease_back(app: App) -> None:
    app.grant.gate.clear()
    flight = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight
    await app.settle()
    assert app.store.leases == {}


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@in_virtual_time
async def test_rubbish_costs_one_warning_however_often_it_is_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    app = App()
    app.store.values[NAME] = b"rubbish"
    app.store.leases[NAME] = "a process that died"
    await app.process(request_timeout=2.0).request_token()
    assert app.store.calls.count("read") > 2
    await app.settle()
    assert warnings_in(caplog) == ["token store holds rubbish"]


@in_virtual_time
async def test_a_dead_process_leaves_the_token_request_most_of_its_time() -> None:
    app = App()
    app.store.leases[NAME] = "a process that died"
    assert (await app.process(request_timeout=2.0).request_token()).value == "token-1"
    assert 0.5 <= now() < 0.75  # a quarter, and what is left of a pause between looks
    await app.settle()
    assert (await app.process().request_token()).value == "token-1"  # stored, though it never had the lease
    assert app.store.leases == {NAME: "a process that died"}


async def test_a_lease_whose_answer_was_lost_is_given_back(app: App) -> None:
    app.store.loses = {"acquire"}
    await app.process().request_token()
    await app.settle()
    assert app.store.calls == ["read", "acquire", "release"]
    assert app.store.leases == {}


async def test_a_lease_that_was_asked_for_when_the_request_was_cancelled_is_given_back(app: App) -> None:
    class Slow(MemoryStore):
        async def acquire(self, name: str, owner: str, seconds: float) -> bool:
            await super().acquire(name, owner, seconds)
            asking.set()
            await asyncio.Event().wait()
            return True

    asking = asyncio.Event()
    app.store = Slow()
    flight = asyncio.create_task(app.process().request_token())
    await asking.wait()
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight
    await app.settle()
    assert app.store.leases == {}


@in_virtual_time
async def test_a_store_that_hangs_takes_half_a_second_of_a_request_and_is_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    app.store.hangs = True
    process = app.process()
    assert (await process.request_token()).value == "token-1"
    assert now() == 0.5
    assert (await process.request_token()).value == "token-2"
    await app.settle()
    assert app.store.calls == ["read"]
    assert warnings_in(caplog) == ["token store unavailable"]


@in_virtual_time
async def test_nobody_waits_for_the_token_to_be_stored() -> None:
    app = App()
    process = app.process()
    app.grant.gate.clear()
    flight = asyncio.create_task(process.request_token())
    await app.grant.asked.wait()
    app.store.hangs = True
    app.grant.gate.set()
    assert (await flight).value == "token-1"
    assert now() == 0
    await app.settle()


async def test_a_token_issued_by_a_clock_that_is_far_ahead_is_left_alone(app: App) -> None:
    app.clock.now += 3600
    await app.process().request_token()
    await app.settle()
    app.clock.now -= 3600
    assert (await app.process().request_token()).value == "token-2"


async def test_a_store_that_is_down_costs_one_warning_and_one_try_for_as_long_as_the_pause(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.store.down = True
    process = app.process()
    values = [(await process.request_token()).value for _ in range(3)]
    assert values == ["token-1", "token-2", "token-3"]
    await app.settle()
    assert app.store.calls == ["read"]
    assert warnings_in(caplog) == ["token store unavailable"]


async def test_a_store_that_has_recovered_is_used_again_after_the_pause(app: App) -> None:
    app.store.down = True
    process = app.process()
    await process.request_token()
    app.store.down = False
    app.monotonic.now += 29
    await process.request_token()
    await app.settle()
    assert app.store.values == {}
    app.monotonic.now += 1
    await process.request_token()
    await app.settle()
    assert (await app.process().request_token()).value == "token-3"


async def test_a_store_that_goes_down_in_the_middle_fails_nobody(app: App) -> None:
    app.grant.gate.clear()
    flight = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    waiting = asyncio.create_task(app.process().request_token())
    while app.store.calls.count("acquire") < 2:  # noqa: ASYNC110, the store has no event to wait for
        await asyncio.sleep(0)
    app.store.down = True
    app.grant.gate.set()
    assert {(await flight).value, (await waiting).value} == {"token-1", "token-2"}
