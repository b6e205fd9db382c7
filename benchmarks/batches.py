"""Records a second through the sandbox's host: batches, batches with one call a record, and records by themselves.

The rounds alternate. Bare httpx runs in each of them as well: its ratio is what carries over to another machine.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.app import BATCH, App, running_app
from benchmarks.load import Series, closed_loop
from benchmarks.partner import Partner, running_server
from benchmarks.peers import HTTPX
from benchmarks.processors import one_kept_free

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BATCHES = 4
SINGLES = 400
# The partner of this app honours idempotency keys, so a record that nobody has tried is not looked up.
ONE_CALL = {
    "shared/partner.py": """
import dataclasses

RESOURCES[0] = dataclasses.replace(RESOURCES[0], honours_idempotency_key=True)
"""
}


@dataclass
class Results:
    """Records a second, and bare httpx's calls a second at 64 in flight, round by round."""

    one_batch: Series = field(default_factory=Series)
    batches: Series = field(default_factory=Series)
    one_call: Series = field(default_factory=Series)
    singles: Series = field(default_factory=Series)
    httpx: Series = field(default_factory=Series)


def measure(*, quick: bool) -> Results:
    """Measure with a partner that answers at once and keeps off the worker's processor."""
    with one_kept_free() as processor, running_server() as origin:
        return asyncio.run(_measure(origin, processor, rounds=2 if quick else 7))


async def _measure(origin: str, processor: int | None, rounds: int) -> Results:
    results, bare = Results(), Partner(origin, "bare")
    async with (
        running_app(Partner(origin, "two-calls"), processor) as app,
        running_app(Partner(origin, "one-call"), processor, ONE_CALL) as other,
        HTTPX.open(bare) as call,
    ):
        measures: list[tuple[Series, Callable[[], Awaitable[float]]]] = [
            (results.one_batch, lambda: _batches(app, 1)),
            (results.batches, lambda: _batches(app, BATCHES)),
            (results.one_call, lambda: _batches(other, BATCHES)),
            (results.singles, lambda: _singles(app)),
        ]
        for number in range(rounds + 1):
            for series, rate_of in measures[:: -1 if number % 2 else 1]:
                rate = await rate_of()
                if number:  # clients and connections are made in the first round
                    series.rates.append(rate)
            await closed_loop(call, 64, 0.5, results.httpx if number else Series())
    return results


async def _singles(app: App) -> float:
    return SINGLES / await app.timed(app.post_many(SINGLES), SINGLES)


async def _batches(app: App, batches: int) -> float:
    posting = asyncio.gather(*(app.post_batch(BATCH) for _ in range(batches)))
    return batches * BATCH / await app.timed(posting, batches * BATCH)
