"""Records a second through the sandbox's host: batches of growing number, beside one orchestration for each record."""

from __future__ import annotations

import asyncio
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.app import BATCH, running_app
from benchmarks.partner import Partner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.app import App

AT_ONCE = 4
LOOK_UPS = ("always", "uncertain")
"""The values of DELIVERY_LOOK_UP: two calls a record, or one to a partner that honours Idempotency-Key."""

SINGLES = 200
PART = 5_000  # records after which another app is measured: the machine's speed changes
CHUNKS = ((25, 100), (50, 100), (100, 100), (250, 100), (500, 100), (200, 200))
"""Records of a chunk, connections."""

CHUNKS_LATENCY = 0.05  # seconds of a call: a partner that takes no time has no use for calls at once


@dataclass(frozen=True)
class Delivered:
    """So many records delivered: per second (median, least, most), and the worker's memory after it in MiB.

    `beside` is the rate as a share of that of 1,000 records which a new app delivered right beside (median).
    """

    records: int
    rate: float
    slowest: float
    fastest: float
    memory: float
    beside: float | None = None


@dataclass
class Results:
    """Everything that was measured; `chunks` in records a second by chunk size and connections, slow and fast API.

    `beside` has four batches at once and one orchestration for each record, by DELIVERY_LOOK_UP, and the ratio of the
    two in rounds side by side.
    """

    batches: list[Delivered]
    beside: dict[str, tuple[Delivered, Delivered, float]]
    chunks: dict[tuple[int, int], tuple[float, float]]


def measure(origin: str, *, quick: bool) -> Results:
    """Measure all of it."""
    return asyncio.run(_measure(origin, quick=quick))


async def _measure(origin: str, *, quick: bool) -> Results:
    rounds = {100: 3, 1_000: 2} if quick else {100: 15, 1_000: 7, 10_000: 3, 100_000: 1}
    batches = []
    with running_app(Partner(origin, "batches")) as app:
        await app.deliver(BATCH)  # the client, its connections and its token are there from now on
        for size, times in rounds.items():
            with running_app(Partner(origin, f"beside-{size}")) as new:
                await new.deliver(BATCH)
                batches.append(await _beside_new(app, new, size, rounds=times))
    beside = {look_up: await _beside_singles(origin, look_up, rounds=1 if quick else 7) for look_up in LOOK_UPS}
    chunks = {}
    for size, connections in CHUNKS[1:2] if quick else CHUNKS:
        environ = {"DELIVERY_CHUNK": str(size), "BUSINESS_API_MAX_CONNECTIONS": str(connections)}
        partner = Partner(origin, f"chunks-{size}-{connections}")
        with running_app(partner, **environ) as app:
            await app.deliver(BATCH)
            fast = await _repeat(app, BATCH, rounds=1 if quick else 3)
            partner.set(latency=CHUNKS_LATENCY)
            app.forget()
            slow = await _repeat(app, BATCH, rounds=1 if quick else 3)
            chunks[size, connections] = slow, fast
    return Results(batches, beside, chunks)


async def _beside_new(app: App, new: App, records: int, *, rounds: int) -> Delivered:
    """Deliver so many records each round, and some by a new app after each part of them."""
    rates, ratios = [], []
    for _ in range(rounds):
        took = 0.0
        for start in range(0, records, PART):
            size = min(PART, records - start)
            seconds = await app.deliver(size)
            took += seconds
            ratios.append(size / seconds * await new.deliver(BATCH) / BATCH)
        rates.append(records / took)
    return _delivered(records, rates, app.worker_memory(), statistics.median(ratios))


async def _beside_singles(origin: str, look_up: str, *, rounds: int) -> tuple[Delivered, Delivered, float]:
    """Alternate batches with single deliveries; give both, and the median of their ratios."""
    with running_app(Partner(origin, f"beside-{look_up}"), DELIVERY_LOOK_UP=look_up) as app:
        await app.deliver(BATCH)
        at_once, singles = [], []
        for _ in range(rounds):
            at_once.append(AT_ONCE * BATCH / await app.deliver(AT_ONCE * BATCH, AT_ONCE))
            singles.append(SINGLES / await app.deliver_singly(SINGLES))
        memory = app.worker_memory()
    ratio = statistics.median(batch / single for batch, single in zip(at_once, singles, strict=True))
    return _delivered(AT_ONCE * BATCH, at_once, memory), _delivered(SINGLES, singles, memory), ratio


async def _repeat(app: App, records: int, *, rounds: int) -> float:
    return statistics.median([records / await app.deliver(records) for _ in range(rounds)])


def _delivered(records: int, rates: Sequence[float], memory: float, beside: float | None = None) -> Delivered:
    return Delivered(records, statistics.median(rates), min(rates), max(rates), memory, beside)
