"""Records a second through the sandbox's host: batches of growing number, beside one orchestration for each record."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import msgspec
from yarl import URL

from benchmarks.partner import CLIENT, Partner
from benchmarks.record import RECORD
from sandbox.processes import SandboxProcess, app_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterator, Sequence

BATCH = 1_000
AT_ONCE = 4
LOOK_UPS = ("always", "uncertain")
"""The values of DELIVERY_LOOK_UP: two calls a record, or one to a partner that honours Idempotency-Key."""

SINGLES, SINGLES_IN_FLIGHT = 200, 32
ACCEPTED = 202
LOOK = 20e-6  # seconds for each record between looks at a status: little of what they take
LEAST_LOOK = 0.005  # seconds: a look takes time of the processors that deliver
CHUNKS = ((25, 100), (50, 100), (100, 100), (250, 100), (500, 100), (200, 200))
"""Records of a chunk, connections."""

CHUNKS_LATENCY = 0.05  # seconds of a call: a partner that takes no time has no use for calls at once


@dataclass(frozen=True)
class Delivered:
    """So many records delivered: per second (median, least, most), and the worker's memory after it in MiB."""

    records: int
    rate: float
    slowest: float
    fastest: float
    memory: float


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
    rounds = {100: 5, 1_000: 3, 3_000: 1} if quick else {100: 15, 1_000: 7, 10_000: 3, 100_000: 1}
    with _running_app(Partner(origin, "batches")) as app:
        await app.deliver(BATCH)  # the client, its connections and its token are there from now on
        batches = [await _repeat(app, size, rounds=times) for size, times in rounds.items()]
    beside = {look_up: await _beside(origin, look_up, rounds=2 if quick else 7) for look_up in LOOK_UPS}
    chunks = {}
    for size, connections in CHUNKS[1:3] if quick else CHUNKS:
        environ = {"DELIVERY_CHUNK": str(size), "BUSINESS_API_MAX_CONNECTIONS": str(connections)}
        partner = Partner(origin, f"chunks-{size}-{connections}")
        with _running_app(partner, **environ) as app:
            await app.deliver(BATCH)
            fast = await _repeat(app, BATCH, rounds=1 if quick else 3)
            partner.set(latency=CHUNKS_LATENCY)
            app.forget()
            slow = await _repeat(app, BATCH, rounds=1 if quick else 3)
            chunks[size, connections] = slow.rate, fast.rate
    return Results(batches, beside, chunks)


async def _beside(origin: str, look_up: str, *, rounds: int) -> tuple[Delivered, Delivered, float]:
    """Alternate batches with single deliveries; give both, and the median of their ratios."""
    with _running_app(Partner(origin, f"beside-{look_up}"), DELIVERY_LOOK_UP=look_up) as app:
        await app.deliver(BATCH)
        at_once, singles = [], []
        for _ in range(rounds):
            at_once.append(await _rate(app.deliver(AT_ONCE * BATCH, AT_ONCE), AT_ONCE * BATCH))
            singles.append(await _rate(app.deliver_singly(SINGLES), SINGLES))
        memory = app.worker_memory()
    ratio = statistics.median(batch / single for batch, single in zip(at_once, singles, strict=True))
    return _delivered(AT_ONCE * BATCH, at_once, memory), _delivered(SINGLES, singles, memory), ratio


async def _repeat(app: App, records: int, *, rounds: int) -> Delivered:
    rates = [await _rate(app.deliver(records), records) for _ in range(rounds)]
    return _delivered(records, rates, app.worker_memory())


async def _rate(delivery: Awaitable[None], records: int) -> float:
    began = time.perf_counter()
    await delivery
    return records / (time.perf_counter() - began)


def _delivered(records: int, rates: Sequence[float], memory: float) -> Delivered:
    return Delivered(records, statistics.median(rates), min(rates), max(rates), memory)


@contextmanager
def _running_app(partner: Partner, **environ: str) -> Iterator[App]:
    settings = app_settings(partner.url) | {
        "BUSINESS_API_CLIENT_ID": CLIENT[0],
        "BUSINESS_API_CLIENT_SECRET": CLIENT[1],
    }
    with SandboxProcess("host", ["--port", "0"], settings | environ) as host:
        yield App(host, partner)


class App:
    """The app under the sandbox's host."""

    def __init__(self, host: SandboxProcess, partner: Partner) -> None:
        self._host = host
        self._partner = partner
        self._posted = 0

    async def deliver(self, records: int, at_once: int = 1) -> None:
        """Deliver so many records in batches, `at_once` of them at a time; fail unless the partner got each once."""
        sizes = [min(BATCH, records - start) for start in range(0, records, BATCH)]
        bodies = [msgspec.json.encode([self._record() for _ in range(size)]) for size in sizes]
        await self._deliver("/api/businesses/batch", bodies, at_once, LOOK * sizes[0], in_turn=True)

    async def deliver_singly(self, records: int) -> None:
        """Deliver so many records with an orchestration each, some at a time."""
        bodies = [msgspec.json.encode(self._record()) for _ in range(records)]
        await self._deliver("/api/businesses", bodies, SINGLES_IN_FLIGHT, LOOK * BATCH, in_turn=False)

    async def _deliver(self, path: str, bodies: Sequence[bytes], at_once: int, look: float, *, in_turn: bool) -> None:
        """Hand everything in, `at_once` at a time; `in_turn`, each waits until the one before has been delivered.

        `look` seconds pass between two looks whether it has.
        """
        look = max(look, LEAST_LOOK)
        waiting = iter(bodies)
        urls = []
        # Not httpx: who hands the records in must not take the processor from those who deliver them.
        async with aiohttp.ClientSession(self._host.url, headers={"content-type": "application/json"}) as http:

            async def one_after_the_other() -> None:
                for body in waiting:
                    async with http.post(path, data=body) as response:
                        if response.status != ACCEPTED:
                            raise RuntimeError(f"{path} answered {response.status}: {await response.text()}")
                        # The input of a batch is almost a megabyte: handing it over is not what is measured.
                        urls.append(URL(response.headers["location"] + "&showInput=false", encoded=True))
                    if in_turn:
                        await _finished(http, urls[-1], look)

            await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
            while self._partner.counts()["keys"] < self._posted:  # noqa: ASYNC110, the partner is another process
                await asyncio.sleep(look)
            for url in urls:
                await _finished(http, url, look)
        counts = self._partner.counts()
        if (counts["posts"], counts["keys"], counts["unauthorized"]) != (self._posted, self._posted, 0):
            raise RuntimeError(f"{self._posted} records were handed in, the partner has {counts}")

    def forget(self) -> None:
        """Count from 0 again, as the partner does after a change."""
        self._posted = 0

    def worker_memory(self) -> float:
        """Give the resident memory of the worker process in MiB (of Linux's /proc)."""
        pid: int = httpx.get(f"{self._host.url}/sandbox/worker").json()["pid"]
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kilobytes) / 1024

    def _record(self) -> dict[str, Any]:
        self._posted += 1
        return RECORD | {"externalId": f"business-{self._posted}"}


async def _finished(http: aiohttp.ClientSession, url: URL, look: float) -> None:
    """Wait until an orchestration has completed."""
    while True:
        async with http.get(url) as response:
            status = await response.json()
        if status["runtimeStatus"] == "Completed":
            return
        if status["runtimeStatus"] not in {"Pending", "Running"}:
            raise RuntimeError(f"a delivery ended otherwise: {status}")
        await asyncio.sleep(look)
