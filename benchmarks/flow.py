"""Flow control with the whole app: records handed in over HTTP, a partner with limits in a process of its own.

Look-ups are calls, too. Run: python -m benchmarks.flow [--quick] [scenario …]. One run of each scenario.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.app import App, running_app
from benchmarks.load import median_ratio
from benchmarks.partner import Partner, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

LATENCY = 0.05
MOST_OF_A_BATCH = 1_000
LEAST_UNLIMITED = 0.95
# The same build without a limiter.
UNLIMITED = {
    "shared/client/admission.py": """

class Admission(Admission):
    async def enter(self, delivery, *, patience, after=None):
        return 0.0

    def leave(self, result):
        pass
"""
}


@dataclass(frozen=True)
class Row:
    """One line of the table; `is_kept` says whether the target was met."""

    partner: str
    measured: str
    ideal: str
    refused: float
    target: str
    is_kept: bool


class Scenes:
    """Starts apps, each with a room of the partner's; `scale` divides numbers of records and times."""

    def __init__(self, origin: str, scale: int) -> None:
        self.scale = scale
        self._origin = origin
        self._numbers = itertools.count()

    def partner(self) -> Partner:
        """Return a new room."""
        return Partner(self._origin, f"flow-{next(self._numbers)}")

    @asynccontextmanager
    async def scene(self, partner: Partner | None = None, **settings: Any) -> AsyncIterator[App]:  # noqa: ANN401, those of a room
        """Run an app that has its client and its token; then the partner gets these settings."""
        async with running_app(partner or self.partner(), **settings.pop("environ", {})) as app:
            await app.post_one()
            await app.ended(1)
            app.partner.set(**{"latency": LATENCY, **settings})
            yield app


async def _post(app: App, records: int) -> list[str]:
    """Hand so many records in as batches, all at once; return the ids of their deliveries."""
    sizes = [min(MOST_OF_A_BATCH, records - start) for start in range(0, records, MOST_OF_A_BATCH)]
    return await asyncio.gather(*(app.post_batch(size) for size in sizes))


def _refused(counts: dict[str, int]) -> float:
    return counts["refused"] / max(counts["calls"], 1)


async def _limited(scenes: Scenes, what: str, records: int, least: float, most_refused: float, **limits: Any) -> Row:  # noqa: ANN401, the same
    records //= scenes.scale
    async with scenes.scene(**limits) as app:
        began = time.perf_counter()
        await _post(app, records)
        await app.stored(records)
        seconds = time.perf_counter() - began
        counts = app.partner.counts()
    if "most" in limits:
        ideal = 2 * records * limits.get("latency", LATENCY) / limits["most"]
    else:
        ideal = max(0.1, (2 * records - limits["burst"]) / limits["rate"])
    is_kept = ideal / seconds >= least and _refused(counts) <= most_refused
    measured = f"{seconds:.1f} s ({ideal / seconds:.0%})"
    return Row(
        f"{what}; {records:,} records",
        measured,
        f"{ideal:.1f} s",
        _refused(counts),
        f"≥ {least:.0%}, ≤ {most_refused:.0%} refused",
        is_kept,
    )


async def rates(scenes: Scenes) -> AsyncIterator[Row]:
    """A limit of calls per second."""
    for quota, most in ((False, 0.03), (True, 0.01)):
        suffix = ", RateLimit headers" if quota else ""
        yield await _limited(scenes, f"50 calls/s{suffix}", 1_000, 0.92, most, rate=50, burst=50, quota=quota)
        yield await _limited(scenes, f"500 calls/s{suffix}", 10_000, 0.92, most, rate=500, burst=500, quota=quota)


async def concurrency(scenes: Scenes) -> AsyncIterator[Row]:
    """A limit of calls at a time."""
    yield await _limited(scenes, "5 calls at a time", 1_000, 0.85, 0.03, most=5)
    yield await _limited(scenes, "50 calls at a time, 200 ms each", 2_500, 0.85, 0.03, most=50, latency=0.2)


async def change(scenes: Scenes) -> AsyncIterator[Row]:
    """A limit that halves and doubles."""
    async with scenes.scene(rate=100, burst=100) as app:
        await _post(app, 4_000)
        await asyncio.sleep(20)
        for rate in (50, 100):
            app.partner.change(rate=rate)
            await asyncio.sleep(10)
            before = app.partner.counts()
            await asyncio.sleep(10)
            after = app.partner.counts()
            delta = {name: after[name] - before[name] for name in after}
            got = (delta["calls"] - delta["refused"]) / 10
            what = f"100 calls/s, {'halved' if rate == 50 else 'doubled again'}: 10 to 20 s later"  # noqa: PLR2004, above
            yield Row(what, f"{got:.0f}/s", f"{rate}/s", _refused(delta), "found within 10 s", got >= 0.85 * rate)


async def processes(scenes: Scenes) -> AsyncIterator[Row]:
    """Four processes, each with a host of its own, at one limit."""
    partner, seconds = scenes.partner(), 60 / scenes.scale
    async with AsyncExitStack() as stack:
        opening = (stack.enter_async_context(scenes.scene(partner)) for _ in range(4))
        apps = [await each for each in opening]
        partner.set(latency=LATENCY, rate=100, burst=100)
        began = time.perf_counter()
        ids = await asyncio.gather(*(_post(app, 3_000) for app in apps))
        await asyncio.sleep(began + seconds - time.perf_counter())
        counts, passed = partner.counts(), time.perf_counter() - began
        stored = [
            sum([(await app.stored(0, id_)).records for id_ in mine]) for app, mine in zip(apps, ids, strict=True)
        ]
    together = (counts["calls"] - counts["refused"]) / (100 * passed + 100)
    slowest = min(stored) / max(*stored, 1)
    is_kept = together >= 0.85 and slowest >= 0.5 and _refused(counts) <= 0.05  # noqa: PLR2004, the target
    measured = f"{together:.0%}, slowest/fastest {slowest:.2f}"
    yield Row(
        f"100 calls/s for four apps, {seconds:.0f} s", measured, "100%", _refused(counts), "≥ 85%, ≥ 0.5, ≤ 5%", is_kept
    )


async def poison(scenes: Scenes) -> AsyncIterator[Row]:
    """One record that the partner pushes back each time; and bad luck at the start."""
    records = 1_000 // scenes.scale
    healthy = 0.0
    cases: list[tuple[str, dict[str, Any]]] = [
        ("healthy", {}),
        ("429, Retry-After: 1 to one record", {"poison_status": 429, "poison_retry_after": 1}),
        ("503, Retry-After: 86400 to one record", {"poison_status": 503, "poison_retry_after": 86_400}),
    ]
    for what, settings in cases:
        async with scenes.scene(
            environ={"DELIVERY_DEADLINE": "60"}, poison='-100"' if settings else "", **settings
        ) as app:
            began = time.perf_counter()
            (id_,) = await _post(app, records)
            good = records - bool(settings)
            await app.stored(good, seconds=65)
            seconds = time.perf_counter() - began
            healthy = healthy or seconds
            await app.ended(records)
            output = (await app.delivery(id_))["output"]
            counts = app.partner.counts()
        told = "".join(f", 1 {each['state']} ({each.get('status')})" for each in output["rejections"][:1])
        is_kept = counts["stored"] == good == output["created"] and seconds <= healthy + 5
        yield Row(
            f"{what}; {records:,} records",
            f"{counts['stored']} in {seconds:.1f} s{told}",
            f"{good}",
            _refused(counts),
            "healthy + 5 s",
            is_kept,
        )
    async with scenes.scene(script=[429] * 15 + [503] * 15 + [422] * 10) as app:
        began = time.perf_counter()
        (id_,) = await _post(app, records)
        await app.ended(records)
        seconds = time.perf_counter() - began
        output = (await app.delivery(id_))["output"]
        counts = app.partner.counts()
    is_kept = counts["stored"] == records - output["rejected"] and seconds <= healthy + 15
    yield Row(
        "15 × 429, 15 × 503, 10 × 422 at first",
        f"{counts['stored']} stored, {output['rejected']} rejected, {seconds:.1f} s",
        "a few seconds",
        _refused(counts),
        "healthy + 15 s",
        is_kept,
    )


async def beside(scenes: Scenes) -> AsyncIterator[Row]:
    """A single record beside ten batches, and two batches beside each other."""
    for latency in (0.1, 2.0):
        async with scenes.scene(latency=latency) as app:
            alone = await _timed(_stored_single(app))
            await asyncio.gather(*(app.post_batch(MOST_OF_A_BATCH) for _ in range(10)))
            await asyncio.sleep(max(1.0, 2.5 * latency))
            together = await _timed(_stored_single(app))
            counts = app.partner.counts()
        measured = f"{together:.2f} s ({together / alone:.1f} ×)"
        yield Row(
            f"one record beside ten batches, {latency:g} s a call",
            measured,
            f"{alone:.2f} s alone",
            _refused(counts),
            "≤ 3 ×",
            together <= 3 * alone,
        )
    async with scenes.scene(rate=100, burst=100) as app:
        records = 1_000 // scenes.scale
        began = time.perf_counter()

        async def end_of(id_: str) -> float:
            await app.stored(records, id_)
            return time.perf_counter() - began

        ids = await asyncio.gather(app.post_batch(records), app.post_batch(records))
        ends = sorted(await asyncio.gather(*map(end_of, ids)))
        counts = app.partner.counts()
    ideal = (4 * records - 100) / 100
    yield Row(
        f"two batches of {records:,} at 100 calls/s",
        f"{ends[0]:.1f} and {ends[1]:.1f} s",
        f"{ideal:.1f} s",
        _refused(counts),
        "within 20%",
        ends[1] <= 1.2 * ends[0],
    )


async def _stored_single(app: App) -> None:
    id_ = await app.post_one()
    await app.stored(1, id_)


async def _timed(work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


async def outage(scenes: Scenes) -> AsyncIterator[Row]:
    """A partner that answers nothing for 60 s, with 500 records that wait, each by itself."""
    down, records = 60 / scenes.scale, 500
    for rate, what in ((200, "100 records/s"), (100, "100 calls/s")):
        async with scenes.scene(rate=rate, burst=rate, silent_for=down) as app:
            await app.post_many(records)
            seconds = (await app.stored(records)).since_began - down
            counts = app.partner.counts()
        ideal = (2 * records - rate) / rate
        is_kept = seconds <= ideal + 6 and counts["while_down"] <= 30  # noqa: PLR2004, the target: 10 s at 100 records/s
        yield Row(
            f"down for {down:.0f} s, then {what}; {records} singles",
            f"{seconds:.1f} s after, {counts['while_down']} calls before",
            f"{ideal:.1f} s",
            _refused(counts),
            "≤ 10 s, ≤ 30 calls",
            is_kept,
        )


async def unlimited(scenes: Scenes) -> AsyncIterator[Row]:
    """Batches at a partner without limits, beside the same build without a limiter, in turn.

    A partner that answers at once leaves the worker's processor as the bound: its time is measured.
    """
    records, rounds = 1_000, 3 if scenes.scale > 1 else 11
    for latency, what in ((0.0, "worker's processor"), (LATENCY, "clock")):
        took: dict[bool, list[float]] = {True: [], False: []}
        async with running_app(scenes.partner()) as limited, running_app(scenes.partner(), appended=UNLIMITED) as free:
            for app in (limited, free):
                await app.timed(app.post_batch(records), records)
                app.partner.change(latency=latency)
            for number in range(rounds):
                for app in (limited, free)[:: -1 if number % 2 else 1]:
                    before = await app.worker_seconds()
                    seconds = await app.timed(app.post_batch(records), records)
                    took[app is limited].append(seconds if latency else await app.worker_seconds() - before)
        ratio = median_ratio(took[False], took[True])
        rate, ideal = (sorted(records / each for each in took[kind])[rounds // 2] for kind in (True, False))
        yield Row(
            f"no limit, {latency * 1e3:.0f} ms a call; by the {what}",
            f"{rate:,.0f} records/s ({ratio:.0%})",
            f"{ideal:,.0f} records/s",
            0.0,
            "≥ 95%",
            ratio >= LEAST_UNLIMITED,
        )


async def singles(scenes: Scenes) -> AsyncIterator[Row]:
    """5,000 records at once, each by itself, and one that comes late."""
    records = 5_000 // scenes.scale
    async with scenes.scene(rate=100, burst=100) as app:
        began = time.perf_counter()
        posting = asyncio.create_task(app.post_many(records))
        memory = 0.0
        while not posting.done():
            await asyncio.wait([posting], timeout=1)
            memory = max(memory, await app.worker_memory())
        accepted = time.perf_counter() - began
        late = asyncio.create_task(_timed(_stored_single(app)))
        stored = asyncio.create_task(app.stored(records + 1))
        while not stored.done():
            await asyncio.wait([stored], timeout=1)
            memory = max(memory, await app.worker_memory())
        seconds, counts = time.perf_counter() - began, app.partner.counts()
    ideal = (2 * records - 100) / 100
    is_kept = memory < 200 and late.result() < (seconds - accepted) / 2  # noqa: PLR2004, the target
    measured = f"{seconds:.0f} s ({accepted:.0f} s to hand in), late one {late.result():.1f} s, {memory:.0f} MiB"
    yield Row(
        f"{records:,} singles at 100 calls/s, and a late one",
        measured,
        f"{ideal:.0f} s",
        _refused(counts),
        "< 200 MiB, late one not last",
        is_kept,
    )


SCENARIOS: dict[str, Callable[[Scenes], AsyncIterator[Row]]] = {
    each.__name__: each for each in (rates, concurrency, change, processes, poison, beside, outage, unlimited, singles)
}


def measure(names: Sequence[str] = (), *, quick: bool, show: Callable[[Row], None] = lambda _: None) -> list[Row]:
    """Run the scenarios of these names, or all."""
    rows = []

    async def run() -> None:
        with running_server() as origin:
            scenes = Scenes(origin, 5 if quick else 1)
            for name in names or SCENARIOS:
                async for row in SCENARIOS[name](scenes):
                    rows.append(row)
                    show(row)

    asyncio.run(run())
    return rows


def main() -> None:
    """Run the scenarios that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; all unless given")
    parser.add_argument("--quick", action="store_true", help="a fifth of the records and times")
    options = parser.parse_args()
    measure(options.scenarios, quick=options.quick, show=_show)


def _show(row: Row) -> None:
    kept = "kept" if row.is_kept else "MISSED"
    print(
        f"{row.partner:<56} {row.measured:<40} ideal {row.ideal:<14} refused {row.refused:6.2%}  {row.target}: {kept}",
        flush=True,
    )


if __name__ == "__main__":
    main()
