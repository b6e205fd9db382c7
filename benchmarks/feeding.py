"""`relay send` of a large CSV file, killed twice on the way, beside the same records handed in over bare HTTP.

Both run with the sandbox's host and a partner that answers at once, one after the other.
Run: python -m benchmarks.feeding [--quick]
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import msgspec

from benchmarks.app import App, running_app, some_at_a_time
from benchmarks.partner import Partner, running_server
from benchmarks.record import RESOURCE
from sandbox.processes import PROJECT
from sandbox.sample import sample_record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BATCH = 1_000
AT_ONCE = 16
"""Batches that are handed in at a time: as many as `relay send` has under way."""

KILLS = (1 / 3, 2 / 3)
"""The shares of the records after which `relay send` is killed."""


@dataclass(frozen=True)
class Feeding:
    """What was measured: seconds from the start until every record is stored, and the most memory of `relay` in MiB.

    `early` is its memory up to the first kill: a tenth of the file and the whole of it take the same.
    """

    records: int
    bare: float
    relay: float
    early: float
    memory: float

    @property
    def times(self) -> float:
        """The throughput of `relay send`, kills included, relative to bare HTTP's."""
        return self.bare / self.relay


def measure(*, quick: bool) -> Feeding:
    """Feed 100,000 records both ways; a tenth of that is quick."""
    with running_server() as origin:
        return asyncio.run(_measure(origin, 10_000 if quick else 100_000))


async def _measure(origin: str, records: int) -> Feeding:
    async with running_app(Partner(origin, "bare-http")) as app:
        await app.post_one()
        await app.ended(1)
        bodies = [
            msgspec.json.encode([_record(number) for number in range(first, first + BATCH)])
            for first in range(0, records, BATCH)
        ]
        bare = await app.timed(some_at_a_time(AT_ONCE, bodies, app.post_body), records)
    with TemporaryDirectory(prefix="benchmark-relay-") as folder:
        file = Path(folder) / "records.csv"
        _write(file, records)
        async with running_app(Partner(origin, "relay")) as app:
            await app.post_one()
            await app.ended(1)
            peaks: list[float] = []
            relay = await app.timed(_sent(app, file, records, peaks), records)
    return Feeding(records, bare, relay, peaks[0], max(peaks))


async def _sent(app: App, file: Path, records: int, peaks: list[float]) -> None:
    """Send the file, and again after each kill; check what `relay` says at the end."""
    for share in KILLS:
        async with _relay(app, file, peaks) as process:
            stored = asyncio.create_task(app.stored(int(records * share)))
            await asyncio.wait([stored, asyncio.create_task(process.wait())], return_when=asyncio.FIRST_COMPLETED)
            if process.returncode is not None:
                raise RuntimeError(f"relay ended before it was killed: {process.returncode}")
            process.kill()
            await stored
    async with _relay(app, file, peaks) as process:
        output, _ = await process.communicate()
    told = json.loads(output)
    if (process.returncode, told["records"], told["delivered"]) != (0, records, records):
        raise RuntimeError(f"relay ended with {process.returncode} and {told}")


@asynccontextmanager
async def _relay(app: App, file: Path, peaks: list[float]) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `relay send`; add the most memory that it took (of Linux's /proc) to `peaks`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "send", str(file), "--resource", RESOURCE.name, "--json"),
        cwd=PROJECT,
        env={
            **os.environ,
            "RELAY_URL": app.url,
            "XDG_STATE_HOME": str(file.parent),
            "XDG_CONFIG_HOME": str(file.parent),
        },
        stdout=asyncio.subprocess.PIPE,
    )
    peaks.append(0.0)

    async def watch() -> None:
        while process.returncode is None:
            peaks[-1] = await asyncio.to_thread(_most_memory, process.pid, peaks[-1])
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    try:
        yield process
        await process.wait()
    finally:
        watching.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


def _most_memory(pid: int, before: float) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except OSError:  # it has just ended
        return before
    lines = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0]) / 1024 if lines else before


def _record(number: int) -> dict[str, Any]:
    return sample_record(RESOURCE, 1) | {RESOURCE.id_member: f"benchmark-{number:07}"}


def _write(file: Path, records: int) -> None:
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(_record(0)))
        writer.writeheader()
        writer.writerows(_record(number) for number in range(records))


def main() -> None:
    """Measure, and print the figures."""
    began = time.perf_counter()
    found = measure(quick="--quick" in sys.argv)
    print(
        f"{found.records:,} records: bare HTTP {found.records / found.bare:,.0f}/s, relay send with {len(KILLS)} kills "
        f"{found.records / found.relay:,.0f}/s ({found.times:.0%}), {found.memory:.0f} MiB "
        f"({found.early:.0f} MiB up to the first kill); {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
