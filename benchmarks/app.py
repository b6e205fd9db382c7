"""The app under the sandbox's host, with records handed in over HTTP and the partner's word that each arrived once."""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
import msgspec

from benchmarks.processors import run_on
from benchmarks.record import RESOURCE, record
from sandbox.processes import PROJECT, SandboxProcess, StartError
from sandbox.resources import app_settings
from shared.partner import RESOURCES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
    from typing import TextIO

    from benchmarks.partner import Partner

T = TypeVar("T")
R = TypeVar("R")

BATCH = 1_000
SINGLES_IN_FLIGHT = 32
PATIENCE = 5.0  # seconds after which is looked whether anything runs that could bring what is missing
LEAST_PAUSE = 0.001  # seconds between two looks: a look takes time of the processors that deliver
MAX_OUTSTANDING = 200
"""Requests of which the host answers no more at a time: host.json."""
_RUNNING = "/runtime/webhooks/durabletask/instances?runtimeStatus=Running,Pending&top=1&showInput=false"
_ROUTE = f"/api/{RESOURCE.route}"


@asynccontextmanager
async def running_app(
    partner: Partner, processor: int | None = None, appended: Mapping[str, str] | None = None, **environ: str
) -> AsyncIterator[App]:
    """Run the app for this partner, with these settings, and its worker on `processor` alone if one is given.

    `appended` are lines at the end of some of its files.
    """
    settings = app_settings(partner.url, RESOURCES) | environ
    with (
        TemporaryFile("w+", encoding="utf-8", errors="replace") as log,
        TemporaryDirectory(prefix="benchmark-app-") as folder,
    ):
        host = await asyncio.to_thread(_host, _staged(Path(folder), appended or {}), settings, log)
        try:
            connector = aiohttp.TCPConnector(limit=MAX_OUTSTANDING)
            async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout()) as http:
                app = App(host.url, partner, http)
                if processor is not None:
                    run_on(await app.worker(), processor)
                yield app
        finally:
            await asyncio.to_thread(host.stop)


def _staged(folder: Path, appended: Mapping[str, str]) -> Path:
    """Copy the app to a folder, with these lines appended."""
    shutil.copytree(PROJECT / "shared", folder / "shared")
    for name in ("function_app.py", "host.json"):
        shutil.copy2(PROJECT / name, folder / name)
    for name, lines in appended.items():
        with (folder / name).open("a", encoding="utf-8") as file:
            file.write(lines)
    return folder


def _host(app: Path, environ: dict[str, str], log: TextIO) -> SandboxProcess:
    """Run the host, whose log this process must not read: that would take the processor from those who deliver."""
    try:
        return SandboxProcess("host", ["--app", str(app), "--port", "0"], environ, stderr=log)
    except StartError as exc:
        log.seek(0)
        raise StartError(f"{exc}\n{log.read()}") from exc


@dataclass(frozen=True)
class Stored:
    """How many records the partner has, and the seconds since its first call."""

    records: int
    since_began: float


class App:
    """The app under a host at `url`; `partner` is the room that it calls."""

    def __init__(self, url: str, partner: Partner, http: aiohttp.ClientSession) -> None:
        self.partner = partner
        self.url = url
        self._http = http
        self._numbers = itertools.count(1)

    async def post_batch(self, records: int, name: str = "record") -> str:
        """Hand a batch in; return the delivery's id. The ids of its records begin with `name`."""
        body = msgspec.json.encode([record(f"{name}-{next(self._numbers)}") for _ in range(records)])
        return await self.post_body(body)

    async def post_body(self, body: bytes) -> str:
        """Hand a batch in that is JSON already; return the delivery's id."""
        return await self._accepted(f"{_ROUTE}/batch", body)

    async def post_one(self, name: str = "record") -> str:
        """Hand one record in; return the delivery's id."""
        return await self._accepted(_ROUTE, msgspec.json.encode(record(f"{name}-{next(self._numbers)}")))

    async def timed(self, hand_in: Awaitable[Any], records: int) -> float:
        """Return the seconds from here until the partner has `records` more, and no orchestration runs."""
        self.partner.set()
        began = time.perf_counter()
        await hand_in
        await self.ended(records)
        took = time.perf_counter() - began
        counts = self.partner.counts()
        if (counts["posts"], counts["stored"], counts["unauthorized"]) != (records, records, 0):
            raise RuntimeError(f"{records} records were handed in, the partner has {counts}")
        return took

    async def post_many(self, records: int) -> None:
        """Hand in so many records by themselves, some at a time."""
        await some_at_a_time(SINGLES_IN_FLIGHT, range(records), lambda _: self.post_one())

    async def stored(self, keys: int, prefix: str = "", seconds: float = 600.0) -> Stored:
        """Wait until the partner has so many records whose keys begin with `prefix`, at most so long."""
        wish = {"keys": keys, "seconds": seconds, "prefix": prefix}
        answer = await self._json("POST", f"{self.partner.url}/await", wish)
        return Stored(answer["stored"], answer["sinceBegan"])

    async def ended(self, records: int) -> None:
        """Wait until the partner has so many records and nothing runs, or nothing runs that could bring the rest."""
        while True:
            has_all = (await self.stored(records, seconds=PATIENCE)).records >= records
            came = time.perf_counter()
            while True:
                if not await self._json("GET", self.url + _RUNNING):
                    return
                if not has_all:
                    break
                await asyncio.sleep(max(LEAST_PAUSE, (time.perf_counter() - came) / 10))

    async def delivery(self, id_: str) -> dict[str, Any]:
        """Return what the app says of a delivery."""
        status: dict[str, Any] = await self._json("GET", f"{self.url}/api/deliveries/{id_}")
        return status

    async def worker(self) -> int:
        """Return the id of the worker process."""
        pid: int = (await self._json("GET", f"{self.url}/sandbox/worker"))["pid"]
        return pid

    async def worker_memory(self) -> float:
        """Return the resident memory of the worker process in MiB (of Linux's /proc)."""
        return await asyncio.to_thread(_resident, await self.worker())

    async def worker_seconds(self) -> float:
        """Return the seconds of a processor that the worker process has taken so far (of Linux's /proc)."""
        return await asyncio.to_thread(_processor, await self.worker())

    async def _accepted(self, path: str, body: bytes) -> str:
        headers = {"content-type": "application/json"}
        while True:
            async with self._http.post(self.url + path, data=body, headers=headers) as response:
                if response.status == 202:  # noqa: PLR2004, Accepted
                    id_: str = (await response.json())["id"]
                    return id_
                if response.status != 429:  # noqa: PLR2004, the host has enough requests for now
                    raise RuntimeError(f"{path} answered {response.status}: {await response.text()}")
            await asyncio.sleep(0.1)

    async def _json(self, method: str, url: str, body: object = None) -> Any:  # noqa: ANN401, it is JSON
        async with self._http.request(method, url, json=body) as response:
            return await response.json()


async def some_at_a_time(at_once: int, items: Iterable[T], do: Callable[[T], Awaitable[R]]) -> list[R]:
    """Do it to each, `at_once` of them at a time; return the results in the order in which they came."""
    waiting = iter(items)
    results = []

    async def one_after_the_other() -> None:
        for item in waiting:
            results.append(await do(item))  # noqa: PERF401, others append meanwhile

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return results


def _resident(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024


def _processor(pid: int) -> float:
    stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    # proc(5): utime and stime, the fields 14 and 15.
    return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
