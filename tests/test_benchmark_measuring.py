"""That the benchmark measures what it says: in counts and with clocks of its own, so no figure is of this machine."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest

from benchmarks import batches, cold_start, throughput
from benchmarks.app import BATCH, Delivery
from benchmarks.load import Series, closed_loop
from benchmarks.partner import Partner, running_server
from benchmarks.peers import AIOHTTP, HTTPX, MOST_IN_FLIGHT, OURS, PEERS, Peer, business_api
from benchmarks.record import BODY, HEADERS, RECORD
from shared.errors import InvalidBusinessError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import FrameType

    from benchmarks.load import Call

CALLS = 40


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with running_server() as origin:
        yield origin


class Clock:
    """A clock that moves when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_round_gives_its_calls_a_second_its_99th_percentile_and_its_failures() -> None:
    clock, took = Clock(), iter(range(200, 0, -1))

    async def call() -> int:
        seconds = next(took)
        clock.now += seconds
        return 201 if seconds > 5 else 500

    series = Series()
    await closed_loop(call, in_flight=1, seconds=sum(range(1, 201)), series=series, clock=clock)
    assert series == Series([200 / 20_100], [199 * 1e3], 5)


async def test_a_round_keeps_as_many_calls_in_flight_as_it_says() -> None:
    active, most, clock = 0, 0, Clock()

    async def call() -> int:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        clock.now += 1
        return 201

    await closed_loop(call, in_flight=7, seconds=100, series=Series(), clock=clock)
    assert most == 7


async def test_the_peers_alternate_in_any_order_after_a_round_that_does_not_count(origin: str) -> None:
    calls: list[str] = []

    def counted(name: str) -> Peer:
        @asynccontextmanager
        async def opened(_: Partner) -> AsyncIterator[Call]:
            async def call() -> int:
                calls.append(name)
                return 201

            yield call

        return Peer(name, opened)

    peers = [counted(peer.name) for peer in PEERS]
    plan = throughput.Plan(peers, (1, 3), latency=0.0, rounds=6, seconds=0.0)
    gc.freeze()  # the benchmark collects garbage before each round: not that of the tests as well
    table = await throughput.measure(origin, plan)
    gc.unfreeze()

    names = [peer.name for peer in peers]
    orders = []
    for in_flight in plan.loads:
        # Rounds of no time: each caller makes the one call that it makes at least.
        size = in_flight * len(peers)
        for number in range(1 + plan.rounds):
            here, calls = calls[:size], calls[size:]
            order = here[::in_flight]
            assert here == [name for name in order for _ in range(in_flight)]
            assert sorted(order) == sorted(names)
            orders.extend([order] if number else [])
        assert {len(series.rates) for series in table[in_flight].values()} == {plan.rounds}
    assert calls == []
    assert len({tuple(order) for order in orders}) > plan.rounds / 2


def test_those_that_ratios_are_made_of_are_measured_beside_each_other() -> None:
    for number in range(20):
        order = throughput.order(PEERS, number)
        assert set(order) == set(PEERS)
        places = sorted(order.index(peer) for peer in (OURS, HTTPX, AIOHTTP))
        assert places[2] - places[0] == 2


async def test_the_partner_says_how_much_of_a_processor_it_has_taken(origin: str) -> None:
    partner = Partner(origin, "processor")
    before = partner.set()
    async with HTTPX.open(partner) as call:
        for _ in range(CALLS):
            await call()
    after = partner.counts()
    assert after["posts"] == CALLS
    # A processor of this partner has taken something, and no second of anybody's for a call.
    assert 0 < (after["processor"] - before["processor"]) / CALLS < 1e6


async def test_ours_checks_the_record_in_each_call(origin: str) -> None:
    record = dict(RECORD)
    async with business_api(Partner(origin, "checks"), record) as call:
        assert await call() == 201
        record["externalId"] = ""
        with pytest.raises(InvalidBusinessError):
            await call()


@pytest.mark.parametrize("peer", [OURS, HTTPX, AIOHTTP], ids=lambda peer: peer.name)
async def test_calls_one_after_the_other_need_one_connection(origin: str, peer: Peer) -> None:
    partner = Partner(origin, f"connections-{peer.name.replace(' ', '-')}")
    async with peer.open(partner) as call:
        await call()
        partner.set()
        for _ in range(CALLS):
            await call()
        counts = partner.counts()
    # The one that asks for the counts is counted too, and the one in use was opened before.
    assert (counts["posts"], counts["token_requests"], counts["connections"]) == (CALLS, 0, 1)


async def called_by(call: Call) -> Counter[tuple[str, str]]:
    """Count by file and name the functions, of Python or built in, that calls go through."""
    called: Counter[tuple[str, str]] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:  # noqa: ANN401, as sys.setprofile has it
        if event == "call":
            called[frame.f_code.co_filename, frame.f_code.co_name] += 1
        elif event == "c_call":
            called[argument.__module__ or "", argument.__qualname__] += 1

    sys.setprofile(note)
    try:
        for _ in range(CALLS):
            await call()
    finally:
        sys.setprofile(None)
    return called


async def test_bare_httpx_and_bare_aiohttp_do_nothing_else_than_a_post(origin: str) -> None:
    partner = Partner(origin, "bare")
    headers = {**HEADERS, "authorization": f"Bearer {partner.token()}"}
    connector = aiohttp.TCPConnector(limit=MOST_IN_FLIGHT)
    async with (
        httpx.AsyncClient(headers=headers) as client,
        aiohttp.ClientSession(connector=connector, headers=headers) as session,
        HTTPX.open(partner) as bare_httpx,
        AIOHTTP.open(partner) as bare_aiohttp,
    ):

        async def plain_httpx() -> int:
            return (await client.post(partner.posts_url, content=BODY)).status_code

        async def plain_aiohttp() -> int:
            async with session.post(partner.posts_url, data=BODY) as response:
                await response.read()
                return response.status

        for bare, plain in ((bare_httpx, plain_httpx), (bare_aiohttp, plain_aiohttp)):
            always: list[set[str]] = []
            for _ in range(3):
                its, plainly = await called_by(bare), await called_by(plain)
                # What a first call does, or one once in a while, may be found in one alone: but not each time.
                more = {name for (file, name), times in its.items() if times >= CALLS > 2 * plainly[file, name]}
                always.append(more)
            assert set.intersection(*always) == {"post"}


class FakeApp:
    """Notes what it is to deliver, and takes 2 s for a record in a batch and 10 for one by itself."""

    def __init__(self, name: object, log: list[tuple[object, str, int]]) -> None:
        self._name = name
        self._log = log

    async def deliver(self, records: int) -> float:
        self._log.append((self._name, "in turn", records))
        return 2.0 * records

    async def deliver_at_once(self, records: int) -> Delivery:
        self._log.append((self._name, "at once", records))
        return Delivery(delivered=2 * records, asked=4 * records, looks=4)

    async def deliver_singly(self, records: int) -> Delivery:
        self._log.append((self._name, "singly", records))
        return Delivery(delivered=10 * records, asked=40 * records, looks=5)

    async def look_time(self) -> float:
        return 10.0

    def worker_memory(self) -> float:
        return 64.0


async def test_batches_alternate_with_single_deliveries_after_one_of_each_that_does_not_count() -> None:
    log: list[tuple[object, str, int]] = []
    beside = await batches.beside_singles(FakeApp("", log), rounds=3)
    pair = [("", "at once", 4_000), ("", "singly", batches.SINGLES)]
    assert log == [("", "at once", 1_000), ("", "singly", batches.SINGLES), *pair, *reversed(pair), *pair]
    assert (beside.batches, beside.singles) == (Series([0.5] * 3), Series([0.1] * 3))
    assert (beside.batches_asked, beside.singles_asked) == (Series([0.25] * 3), Series([0.025] * 3))
    assert beside.looking == (10 * 4 / 8_000, 10 * 5 / (10 * batches.SINGLES))
    assert beside.memory == 64.0


async def test_another_app_delivers_beside_each_part_of_many_records() -> None:
    class Slower(FakeApp):
        async def deliver(self, records: int) -> float:
            return 4 * await super().deliver(records)

    log: list[tuple[object, str, int]] = []
    delivered = await batches.beside_new(FakeApp("app", log), Slower("new", log), 12_000, rounds=2)
    new = ("new", "in turn", BATCH)
    parts = [("app", "in turn", size) for size in (5_000, 5_000, 2_000)] * 2
    assert log == [each for n, part in enumerate(parts) for each in ((new, part) if n % 2 else (part, new))]
    assert delivered == batches.Delivered(12_000, 0.5, 0.5, 0.5, 64.0, beside=4.0)


async def test_the_sizes_of_a_chunk_alternate_in_any_order_after_a_batch_that_does_not_count() -> None:
    log: list[tuple[object, str, int]] = []
    apps = {size: FakeApp(size, log) for size in batches.CHUNKS}
    chunks = {size: Series() for size in batches.CHUNKS}
    await batches.alternate(apps, chunks, rounds=4)
    rounds = [tuple(size for size, _, _ in log[start : start + len(apps)]) for start in range(0, len(log), len(apps))]
    assert len(rounds) == 1 + 4
    assert {frozenset(each) for each in rounds} == {frozenset(batches.CHUNKS)}
    assert len(set(rounds)) > 2
    assert all(series.rates == [0.5] * 4 for series in chunks.values())


def test_imports_alternate_after_one_of_each_that_does_not_count() -> None:
    ran: list[str] = []

    def one(code: str) -> tuple[float, float, float]:
        ran.append(code)
        return len(ran), len(code), 40.0

    imports = cold_start.alternate(one, rounds=3)
    codes = list(cold_start.CODES.values())
    assert ran == codes + codes + codes[::-1] + codes
    first, second, third = imports.values()
    assert (first.walls, second.walls, third.walls) == ([4, 9, 10], [5, 8, 11], [6, 7, 12])
    assert second.times(first) == 11 / 10  # of 5/4, 8/9 and 11/10
