"""Records a second through the sandbox's host: batches beside one orchestration for each record, in alternating rounds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from benchmarks.app import BATCH, App, running_app
from benchmarks.load import Series
from benchmarks.partner import Partner, running_server
from benchmarks.processors import one_kept_free

BATCHES = 4
SINGLES = 400


@dataclass
class Results:
    """Records a second, round by round, and the worker's memory in MiB at the end."""

    one_batch: Series = field(default_factory=Series)
    batches: Series = field(default_factory=Series)
    singles: Series = field(default_factory=Series)
    memory: float = 0.0


def measure(*, quick: bool) -> Results:
    """Measure with a partner that answers at once and keeps off the worker's processor."""
    with one_kept_free() as processor, running_server() as origin:
        return asyncio.run(_measure(Partner(origin, "batches"), processor, rounds=3 if quick else 15))


async def _measure(partner: Partner, processor: int | None, rounds: int) -> Results:
    results = Results()
    async with running_app(partner, processor) as app:
        for number in range(rounds + 1):
            for series in (results.one_batch, results.batches, results.singles)[:: -1 if number % 2 else 1]:
                rate = await _rate(app, series is results.singles, 1 if series is results.one_batch else BATCHES)
                if number:  # the first round does not count: the client and its connections are made in it
                    series.rates.append(rate)
        results.memory = await app.worker_memory()
    return results


async def _rate(app: App, is_single: bool, batches: int) -> float:  # noqa: FBT001, one caller
    if is_single:
        return SINGLES / await app.timed(app.post_many(SINGLES), SINGLES)
    posting = asyncio.gather(*(app.post_batch(BATCH) for _ in range(batches)))
    return batches * BATCH / await app.timed(posting, batches * BATCH)
