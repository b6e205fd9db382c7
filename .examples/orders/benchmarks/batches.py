"""Records a second through the sandbox's host: batches of growing number, beside one orchestration for each record."""

from __future__ import annotations

import asyncio
import random
import statistics
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from benchmarks.app import BATCH, BATCHES_IN_FLIGHT, running_app
from benchmarks.load import Series
from benchmarks.partner import Partner, running_server
from benchmarks.processors import one_kept_free

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.app import Delivery

LOOK_UPS = ("always", "uncertain")
"""The values of DELIVERY_LOOK_UP: two calls a record, or one to a partner that honours Idempotency-Key."""

AT_ONCE = BATCHES_IN_FLIGHT * BATCH
SINGLES = 400
PART = 5_000  # records after which another app is measured: the machine's speed changes
CHUNKS = ((25, 100), (50, 100), (100, 100), (250, 100), (500, 100), (200, 200))
"""Records of a chunk, connections."""

CHOSEN = CHUNKS[1]
CHUNKS_LATENCY = 0.05  # seconds of a call: a partner that takes no time has no use for calls at once
# A small number of records is over soon, and its rates differ most: it has the most rounds.
ROUNDS = {100: 45, 1_000: 11, 10_000: 3, 100_000: 1}
QUICK_ROUNDS = {100: 3, 1_000: 2}


class Delivers(Protocol):
    """What is measured: see `app.App`."""

    async def deliver(self, records: int) -> float:
        """Deliver in batches, one after the other; give the seconds."""

    async def deliver_at_once(self, records: int) -> Delivery:
        """Deliver in batches, some at a time."""

    async def deliver_singly(self, records: int) -> Delivery:
        """Deliver with an orchestration each."""

    async def look_time(self) -> float:
        """Give the seconds that a look for the end of a delivery costs."""

    def worker_memory(self) -> float:
        """Give the worker's memory in MiB."""


@dataclass(frozen=True)
class Delivered:
    """So many records delivered: per second (median, least and most of the parts), and the worker's memory in MiB.

    `beside` is the rate as a share of that of 1,000 records which a new app delivered right beside (median).
    """

    records: int
    rate: float
    slowest: float
    fastest: float
    memory: float
    beside: float | None = None


@dataclass
class Beside:
    """Four batches at once beside one orchestration for each record, round by round, in records a second.

    The first two end when all is delivered, the others when a caller has asked for each orchestration as well.
    The shares are of their time, and what the looks for the end cost.
    """

    batches: Series = field(default_factory=Series)
    singles: Series = field(default_factory=Series)
    batches_asked: Series = field(default_factory=Series)
    singles_asked: Series = field(default_factory=Series)
    shares_of_batches: list[float] = field(default_factory=list)
    shares_of_singles: list[float] = field(default_factory=list)
    memory: float = 0.0

    @property
    def looking(self) -> tuple[float, float]:
        """The median shares, of the batches and of the singles."""
        return statistics.median(self.shares_of_batches), statistics.median(self.shares_of_singles)


@dataclass
class Chunk:
    """Records a second of one size of a chunk, round by round: at once answered, and after 50 ms."""

    fast: Series = field(default_factory=Series)
    slow: Series = field(default_factory=Series)


@dataclass
class Results:
    """Everything that was measured; `beside` by DELIVERY_LOOK_UP, `chunks` by chunk size and connections."""

    batches: list[Delivered]
    beside: dict[str, Beside]
    chunks: dict[tuple[int, int], Chunk]


def measure(*, quick: bool) -> Results:
    """Measure all of it, with a partner that keeps off the worker's processor."""
    with one_kept_free() as processor, running_server() as origin:
        return asyncio.run(_measure(origin, processor, quick=quick))


async def _measure(origin: str, processor: int | None, *, quick: bool) -> Results:
    batches = []
    with running_app(Partner(origin, "batches"), processor) as app:
        await app.deliver(BATCH)  # the client, its connections and its token are there from now on
        for size, rounds in (QUICK_ROUNDS if quick else ROUNDS).items():
            with running_app(Partner(origin, f"beside-{size}"), processor) as new:
                await new.deliver(BATCH)
                batches.append(await beside_new(app, new, size, rounds=rounds))
    beside = {}
    for look_up in LOOK_UPS:
        with running_app(Partner(origin, f"beside-{look_up}"), processor, DELIVERY_LOOK_UP=look_up) as app:
            beside[look_up] = await beside_singles(app, rounds=1 if quick else 15)
    sizes = CHUNKS[1:3] if quick else CHUNKS
    return Results(batches, beside, await _chunks(origin, processor, sizes, rounds=1 if quick else 5))


async def beside_new(app: Delivers, new: Delivers, records: int, *, rounds: int) -> Delivered:
    """Deliver so many records each round, and 1,000 by a new app beside each part of them, before and after in turn."""
    rates: list[float] = []
    ratios: list[float] = []
    for _ in range(rounds):
        for start in range(0, records, PART):
            size = min(PART, records - start)
            if len(rates) % 2:
                its = BATCH / await new.deliver(BATCH)
                rates.append(size / await app.deliver(size))
            else:
                rates.append(size / await app.deliver(size))
                its = BATCH / await new.deliver(BATCH)
            ratios.append(rates[-1] / its)
    memory = app.worker_memory()
    return Delivered(records, statistics.median(rates), min(rates), max(rates), memory, statistics.median(ratios))


async def beside_singles(app: Delivers, *, rounds: int) -> Beside:
    """Alternate batches with single deliveries, after one of each that does not count."""
    beside = Beside()
    await app.deliver_at_once(BATCH)
    await app.deliver_singly(SINGLES)
    look = await app.look_time()
    for number in range(rounds):
        if number % 2:
            singles, batches = await app.deliver_singly(SINGLES), await app.deliver_at_once(AT_ONCE)
        else:
            batches, singles = await app.deliver_at_once(AT_ONCE), await app.deliver_singly(SINGLES)
        beside.batches.rates.append(AT_ONCE / batches.delivered)
        beside.singles.rates.append(SINGLES / singles.delivered)
        beside.batches_asked.rates.append(AT_ONCE / batches.asked)
        beside.singles_asked.rates.append(SINGLES / singles.asked)
        beside.shares_of_batches.append(look * batches.looks / batches.delivered)
        beside.shares_of_singles.append(look * singles.looks / singles.delivered)
    beside.memory = app.worker_memory()
    return beside


async def _chunks(
    origin: str, processor: int | None, sizes: Sequence[tuple[int, int]], *, rounds: int
) -> dict[tuple[int, int], Chunk]:
    """Measure the sizes of a chunk, each in an app of its own."""
    chunks = {size: Chunk() for size in sizes}
    with ExitStack() as stack:
        apps, partners = {}, []
        for chunk, connections in sizes:
            environ = {"DELIVERY_CHUNK": str(chunk), "BUSINESS_API_MAX_CONNECTIONS": str(connections)}
            partners.append(Partner(origin, f"chunks-{chunk}-{connections}"))
            apps[chunk, connections] = stack.enter_context(running_app(partners[-1], processor, **environ))
        await alternate(apps, {size: chunk.fast for size, chunk in chunks.items()}, rounds=rounds)
        for app, partner in zip(apps.values(), partners, strict=True):
            partner.set(latency=CHUNKS_LATENCY)
            app.forget()
        await alternate(apps, {size: chunk.slow for size, chunk in chunks.items()}, rounds=rounds)
    return chunks


async def alternate(
    apps: Mapping[tuple[int, int], Delivers], chunks: Mapping[tuple[int, int], Series], *, rounds: int
) -> None:
    """Deliver a batch by each app in each round, in any order, after one by each that does not count."""
    for app in apps.values():
        await app.deliver(BATCH)
    for number in range(rounds):
        order = list(apps)
        random.Random(number).shuffle(order)  # noqa: S311, it is no secret
        for size in order:
            chunks[size].rates.append(BATCH / await apps[size].deliver(BATCH))
