"""The app under the sandbox's host, with records handed in and the partner's word that each arrived once."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import msgspec
from yarl import URL

from benchmarks.partner import CLIENT
from benchmarks.record import RECORD
from sandbox.processes import SandboxProcess, app_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.partner import Partner

BATCH = 1_000
SINGLES_IN_FLIGHT = 32
ACCEPTED = 202
LOOK = 20e-6  # seconds for each record between looks at a status: little of what they take
LEAST_LOOK = 0.005  # seconds: a look takes time of the processors that deliver


@contextmanager
def running_app(partner: Partner, **environ: str) -> Iterator[App]:
    """Run the app for this partner, with these app settings besides."""
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

    async def deliver(self, records: int, at_once: int = 1) -> float:
        """Deliver so many records in batches, `at_once` of them at a time, and give the seconds that it took.

        Fails unless the partner got each once.
        """
        sizes = [min(BATCH, records - start) for start in range(0, records, BATCH)]
        bodies = [msgspec.json.encode([self._record() for _ in range(size)]) for size in sizes]
        return await self._deliver("/api/businesses/batch", bodies, at_once, LOOK * sizes[0], in_turn=True)

    async def deliver_singly(self, records: int) -> float:
        """Deliver so many records with an orchestration each, some at a time; else as `deliver`.

        Its caller asks for each of them, as it has to: that is part of the time.
        """
        bodies = [msgspec.json.encode(self._record()) for _ in range(records)]
        return await self._deliver("/api/businesses", bodies, SINGLES_IN_FLIGHT, LOOK * BATCH, in_turn=False)

    async def _deliver(self, path: str, bodies: Sequence[bytes], at_once: int, look: float, *, in_turn: bool) -> float:
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

            began = time.perf_counter()
            await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
            if not in_turn:
                while self._partner.counts()["keys"] < self._posted:  # noqa: ASYNC110, the partner is another process
                    await asyncio.sleep(look)
                unknown = iter(urls)

                async def ask() -> None:
                    for url in unknown:
                        await _finished(http, url, look)

                await asyncio.gather(*(ask() for _ in range(at_once)))
            took = time.perf_counter() - began
        counts = self._partner.counts()
        if (counts["posts"], counts["keys"], counts["unauthorized"]) != (self._posted, self._posted, 0):
            raise RuntimeError(f"{self._posted} records were handed in, the partner has {counts}")
        return took

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
