"""Load: calls in a closed loop (as fast as they are answered) or an open one (so many a second), and what they felt."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    Call = Callable[[], Awaitable[int]]

CREATED = 201
STALL = 0.1  # seconds from which a call counts as one that had to wait
PATIENCE = 10.0  # seconds


@dataclass
class Series:
    """What one peer did in one scenario, round by round: calls a second, 99th percentiles in ms, failures."""

    rates: list[float] = field(default_factory=list)
    p99s: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def rate(self) -> float:
        """The median of calls a second."""
        return statistics.median(self.rates)

    def times(self, other: Series) -> float:
        """Return the median of the rounds' ratios to the other's: its rounds were measured right beside ours."""
        return median_ratio(self.rates, other.rates)

    def p99_times(self, other: Series) -> float:
        """Return the same of the 99th percentiles."""
        return median_ratio(self.p99s, other.p99s)

    @property
    def p99(self) -> float:
        """The median of the 99th percentiles, in ms."""
        return statistics.median(self.p99s)


def median_ratio(mine: Sequence[float], its: Sequence[float]) -> float:
    """Return the median of the ratios, round by round."""
    return statistics.median(one / other for one, other in zip(mine, its, strict=True))


@dataclass
class Felt:
    """What the callers of an open loop felt."""

    calls: int = 0
    failed: int = 0
    stalled: int = 0
    longest: float = 0.0  # seconds


async def closed_loop(
    call: Call, in_flight: int, seconds: float, series: Series, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Keep `in_flight` calls going for so long, and one of each caller at least; add a round to the series."""
    took: list[float] = []
    failed = 0
    began = clock()
    end = began + seconds

    async def caller() -> None:
        nonlocal failed
        now = clock()
        while True:
            status = await call()
            failed += status != CREATED
            before, now = now, clock()
            took.append(now - before)
            if now >= end:
                return

    await asyncio.gather(*(caller() for _ in range(in_flight)))
    series.rates.append(len(took) / (clock() - began))
    series.p99s.append(_p99(took) * 1e3)
    series.failed += failed


async def open_loop(call: Call, rate: float, seconds: float) -> Felt:
    """Start so many calls a second, whether or not the earlier ones are done."""
    return await _felt(call, [number / rate for number in range(round(rate * seconds))])


async def burst(call: Call, calls: int) -> Felt:
    """Start all calls at once."""
    return await _felt(call, [0.0] * calls)


async def _felt(call: Call, starts: Sequence[float]) -> Felt:
    """Start a call at each of these times. It has failed if it raises, or has no answer `PATIENCE` s after the last."""
    felt = Felt()

    async def one() -> None:
        began = time.perf_counter()
        try:
            felt.failed += await call() != CREATED
        except Exception:  # noqa: BLE001, whatever a library raises: its caller has no answer
            felt.failed += 1
        took = time.perf_counter() - began
        felt.calls += 1
        felt.stalled += took > STALL
        felt.longest = max(felt.longest, took)

    began = time.perf_counter()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(starts[-1] + PATIENCE), asyncio.TaskGroup() as group:
            for start in starts:
                await asyncio.sleep(began + start - time.perf_counter())
                group.create_task(one())
    felt.failed += len(starts) - felt.calls
    felt.calls = len(starts)
    return felt


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]
