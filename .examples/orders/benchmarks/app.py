"""The app under the sandbox's host, with records handed in and the partner's word that each arrived once."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import httpx
import msgspec
from yarl import URL

from benchmarks.partner import CLIENT
from benchmarks.processors import run_on
from benchmarks.record import RECORD
from sandbox.processes import SandboxProcess, StartError, app_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TextIO

    from benchmarks.partner import Partner

    Request = AbstractAsyncContextManager[aiohttp.ClientResponse]

T = TypeVar("T")
R = TypeVar("R")

BATCH = 1_000
BATCHES_IN_FLIGHT = 4
SINGLES_IN_FLIGHT = 32
ACCEPTED = 202
PATIENCE = 5.0  # seconds after which is looked whether anything runs that could bring what is missing
LEAST_PAUSE = 0.001  # seconds between two looks: a look takes time of the processors that deliver
LOOKS = 50  # of which one is timed by itself
RUNNING = "/runtime/webhooks/durabletask/instances?runtimeStatus=Running,Pending&top=1&showInput=false"


@dataclass(frozen=True)
class Delivery:
    """How long a delivery took, in seconds from its first request.

    `delivered`: until the partner had every record and no orchestration ran any more. `asked`: until a caller had
    asked for each orchestration besides. `looks`: how often was looked for the first of the two.
    """

    delivered: float
    asked: float
    looks: int


@contextmanager
def running_app(partner: Partner, processor: int | None = None, **environ: str) -> Iterator[App]:
    """Run the app for this partner, with these app settings besides, and its worker on `processor` alone if any."""
    settings = app_settings(partner.url) | {
        "BUSINESS_API_CLIENT_ID": CLIENT[0],
        "BUSINESS_API_CLIENT_SECRET": CLIENT[1],
    }
    with TemporaryFile("w+", encoding="utf-8", errors="replace") as log, _host(settings | environ, log) as host:
        app = App(host.url, partner)
        if processor is not None:
            run_on(app.worker(), processor)
        yield app


def _host(environ: dict[str, str], log: TextIO) -> SandboxProcess:
    """Run the host, whose log this process must not read: that would take the processor from those who deliver."""
    try:
        return SandboxProcess("host", ["--port", "0"], environ, stderr=log)
    except StartError as exc:
        log.seek(0)
        raise StartError(f"{exc}\n{log.read()}") from exc


class App:
    """The app under a host at `url`.

    Every delivery is timed to the same event, however it was handed in, and fails unless the partner got each record
    once and each orchestration has completed. `clock` gives seconds.
    """

    def __init__(self, url: str, partner: Partner, clock: Callable[[], float] = time.perf_counter) -> None:
        self._url = url
        self._clock = clock
        self._partner = partner
        self._posted = 0

    async def deliver(self, records: int) -> float:
        """Deliver so many records in batches, one after the other, and give the seconds until all were delivered."""
        took = 0.0
        for start in range(0, records, BATCH):
            took += (await self.deliver_at_once(min(BATCH, records - start))).delivered
        return took

    async def deliver_at_once(self, records: int) -> Delivery:
        """Deliver so many records in batches, some handed in at a time."""
        sizes = [min(BATCH, records - start) for start in range(0, records, BATCH)]
        bodies = [msgspec.json.encode([self._record() for _ in range(size)]) for size in sizes]
        return await self._deliver("/api/businesses/batch", bodies, BATCHES_IN_FLIGHT)

    async def deliver_singly(self, records: int) -> Delivery:
        """Deliver so many records with an orchestration each, some handed in at a time."""
        bodies = [msgspec.json.encode(self._record()) for _ in range(records)]
        return await self._deliver("/api/businesses", bodies, SINGLES_IN_FLIGHT)

    async def _deliver(self, path: str, bodies: Sequence[bytes], at_once: int) -> Delivery:
        # Not httpx: who hands the records in must not take the processor from those who deliver them.
        async with aiohttp.ClientSession() as http:
            await self._running(http)  # whoever hands in often has a connection
            began = self._clock()
            urls = await _some_at_a_time(at_once, bodies, lambda body: _hand_in(http, self._url + path, body))
            looks = await self._until_delivered(http)
            delivered = self._clock() - began
            await _some_at_a_time(at_once, urls, lambda url: _ask(http, url))
            asked = self._clock() - began
        counts = self._partner.counts()
        if (counts["posts"], counts["keys"], counts["unauthorized"]) != (self._posted, self._posted, 0):
            raise RuntimeError(f"{self._posted} records were handed in, the partner has {counts}")
        return Delivery(delivered, asked, looks)

    async def _until_delivered(self, http: aiohttp.ClientSession) -> int:
        """Wait until the partner has all, and nothing runs; give how often was looked for the latter.

        It is over as well when nothing runs and the partner lacks some: nobody will bring them.
        """
        looks = 0
        while True:
            has_all = await self._wait_for_all(http) >= self._posted
            came = self._clock()
            while True:
                looks += 1
                if not await self._running(http):
                    return looks
                if not has_all:
                    break
                await asyncio.sleep(max(LEAST_PAUSE, (self._clock() - came) / 10))

    async def look_time(self) -> float:
        """Give the seconds that one look takes while nothing is delivered, which is all that it costs (median)."""
        took = []
        async with aiohttp.ClientSession() as http:
            for _ in range(LOOKS):
                began = self._clock()
                await self._running(http)
                took.append(self._clock() - began)
        return statistics.median(took)

    async def _wait_for_all(self, http: aiohttp.ClientSession) -> int:
        """Wait until the partner has every record, and not without end; give how many it has."""
        wish = {"keys": self._posted, "seconds": PATIENCE}
        keys: int = (await _json(http.post(f"{self._partner.url}/await", json=wish)))["keys"]
        return keys

    async def _running(self, http: aiohttp.ClientSession) -> bool:
        """Ask the host whether an orchestration runs or waits to."""
        return bool(await _json(http.get(self._url + RUNNING)))

    def forget(self) -> None:
        """Count from 0 again, as the partner does after a change."""
        self._posted = 0

    def worker(self) -> int:
        """Give the id of the worker process."""
        pid: int = httpx.get(f"{self._url}/sandbox/worker").json()["pid"]
        return pid

    def worker_memory(self) -> float:
        """Give the resident memory of the worker process in MiB (of Linux's /proc)."""
        status = Path(f"/proc/{self.worker()}/status").read_text(encoding="ascii")
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(kilobytes) / 1024

    def _record(self) -> dict[str, Any]:
        self._posted += 1
        return RECORD | {"externalId": f"business-{self._posted}"}


async def _some_at_a_time(at_once: int, items: Iterable[T], do: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do it to each, `at_once` of them at a time; give the results in the order in which they came."""
    waiting = iter(items)
    results = []

    async def one_after_the_other() -> None:
        for item in waiting:
            results.append(await do(item))  # noqa: PERF401, others append meanwhile

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return results


async def _hand_in(http: aiohttp.ClientSession, url: str, body: bytes) -> URL:
    """Hand one request in; give where its orchestration's status is."""
    async with http.post(url, data=body, headers={"content-type": "application/json"}) as response:
        if response.status != ACCEPTED:
            raise RuntimeError(f"{url} answered {response.status}: {await response.text()}")
        # The input of a batch is almost a megabyte: handing it over is not what is measured.
        return URL(response.headers["location"] + "&showInput=false", encoded=True)


async def _ask(http: aiohttp.ClientSession, url: URL) -> None:
    """Ask for one orchestration, as a caller would; it must have completed."""
    status = await _json(http.get(url))
    if status["runtimeStatus"] != "Completed":
        raise RuntimeError(f"a delivery ended otherwise: {status}")


async def _json(request: Request) -> Any:  # noqa: ANN401, it is JSON
    async with request as response:
        return await response.json()
