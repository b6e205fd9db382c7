"""Measures flow control over real sockets, against a partner with limits in a process of its own.

Run: python -m benchmarks.flow [--quick] [scenario …]. It prints a line for each scenario: what was measured, the ideal,
and the share of calls that the partner refused. `Deliveries` is the driver: 64 workers a process, each a look-up and a
post, without the rest of the app.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
import time
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import aiohttp

from shared.client.admission import Admission
from shared.rules.flow import CallResult, Flow
from tests.fakes.deliveries import Deliveries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

JOIN_TIMEOUT = 30


# --- the partner ---------------------------------------------------------------------------------


@dataclass
class Limits:
    """What the partner allows. Look-ups and posts count alike. `down_for` seconds from the first call it aborts all."""

    latency: float = 0.05
    rate: float = 0.0
    burst: float = 50.0
    most: int = 0
    quota: bool = False
    poison: str = ""
    poison_status: int = 429
    poison_retry_after: int = 1
    down_for: float = 0.0
    script: str = ""


class Partner:
    """Its limits and its counts."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.tokens = limits.burst
        self.filled_at = self.began = 0.0
        self.in_flight = 0
        self.counts = {"calls": 0, "refused": 0, "while_down": 0, "stored": 0}
        self.script = [int(status) for status in limits.script.split()]

    def answer(self, record: str, now: float) -> tuple[int, dict[str, str], bool]:
        """Return the status, the headers, and whether it is work; status 0 is an aborted connection."""
        limits, counts = self.limits, self.counts
        self.began = self.began or now
        counts["calls"] += 1
        if now - self.began < limits.down_for:
            counts["while_down"] += 1
            return 0, {}, False
        if self.script:
            return self.script.pop(0), {}, False
        if record and record == limits.poison:
            return limits.poison_status, {"retry-after": str(limits.poison_retry_after)}, False
        if limits.most and self.in_flight >= limits.most:
            counts["refused"] += 1
            return 503, {}, False
        if limits.rate:
            self.tokens = min(limits.burst, self.tokens + (now - self.filled_at) * limits.rate)
            self.filled_at = now
            if self.tokens < 1:
                counts["refused"] += 1
                return 429, {"retry-after": "1", **self.quota()}, False
            self.tokens -= 1
        return 200, self.quota(), True

    def quota(self) -> dict[str, str]:
        """Return the RateLimit fields, where the partner sends them."""
        limits = self.limits
        if not limits.quota:
            return {}
        seconds = max(1, round((limits.burst - self.tokens) / limits.rate))
        window = max(1, round(limits.burst / limits.rate))
        return {
            "ratelimit": f'"default";r={int(self.tokens)};t={seconds}',
            "ratelimit-policy": f'"default";q={int(limits.burst)};w={window}',
        }


class Connection(asyncio.Protocol):
    """Just enough of HTTP/1.1: one request at a time, with Content-Length."""

    def __init__(self, partner: Partner) -> None:
        self.partner = partner
        self.received = b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101, it is a TCP server
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer the request once it is here."""
        self.received += data
        head, end, rest = self.received.partition(b"\r\n\r\n")
        _, has_length, after = head.lower().partition(b"content-length:")
        length = int(after.partition(b"\r\n")[0]) if has_length else 0
        if not end or len(rest) < length:
            return
        self.received = rest[length:]
        method, path = head.split(b" ", 2)[:2]
        self.handle(method, path.decode(), rest[:length])

    def handle(self, method: bytes, path: str, body: bytes) -> None:
        """Decide, and answer after the latency."""
        partner, loop = self.partner, asyncio.get_running_loop()
        if path == "/control":
            for name, value in json.loads(body or b"{}").items():
                setattr(partner.limits, name, value)
            self.respond(200, {}, json.dumps(partner.counts).encode())
            return
        status, headers, is_work = partner.answer(path.rpartition("/")[2], loop.time())
        if status == 0:
            self.transport.abort()
        elif is_work:
            partner.in_flight += 1
            loop.call_later(partner.limits.latency, self.finish, method == b"POST", headers)
        else:
            self.respond(status, headers)

    def finish(self, is_post: bool, headers: dict[str, str]) -> None:  # noqa: FBT001, a callback
        """End the work on a call."""
        self.partner.in_flight -= 1
        self.partner.counts["stored"] += is_post
        self.respond(200, headers)

    def respond(self, status: int, headers: dict[str, str], body: bytes = b"{}") -> None:
        """Write a response."""
        lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


async def serve(limits: Limits) -> None:
    """Serve until standard input ends."""
    partner, loop = Partner(limits), asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(partner), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


# --- the driver ----------------------------------------------------------------------------------


class HttpPartner:
    """Calls the partner, one request a call."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def call(self, record: str, *, is_post: bool) -> CallResult:
        """Look a record up, or post it."""
        start = time.monotonic()
        method = "POST" if is_post else "GET"
        try:
            async with self.session.request(method, f"{self.url}/records/{record}") as response:
                await response.read()
        except (aiohttp.ClientError, TimeoutError):
            return CallResult(time.monotonic() - start)
        named = response.headers.get("retry-after")
        headers = {name.lower(): value for name, value in response.headers.items()}
        return CallResult(time.monotonic() - start, response.status, headers, float(named) if named else None)

    async def control(self, **changes: float) -> dict[str, int]:
        """Change the partner's limits, and return its counts."""
        async with self.session.post(f"{self.url}/control", json=changes) as response:
            counts: dict[str, int] = await response.json(content_type=None)
            return counts


class FreeAdmission(Admission):
    """No limiter: what the same driver does without one."""

    async def enter(self, delivery: str, *, patience: float) -> float:  # noqa: ARG002
        """Let every call go ahead."""
        return 0.0

    def leave(self, result: CallResult) -> None:
        """Learn nothing."""


@contextlib.asynccontextmanager
async def driver(url: str, admission: Admission) -> AsyncIterator[tuple[Deliveries, HttpPartner]]:
    """Open what one process delivers with."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(10)) as session:
        partner = HttpPartner(session, url)
        yield Deliveries(admission, partner), partner


@contextlib.asynccontextmanager
async def child(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run this module in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.flow", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await asyncio.wait_for(process.wait(), JOIN_TIMEOUT)


async def line_of(process: asyncio.subprocess.Process) -> str:
    """Return the next line of a process's output."""
    assert process.stdout is not None  # noqa: S101, it was asked for
    return (await process.stdout.readline()).decode().strip()


def report(name: str, measured: str, ideal: str, counts: dict[str, int]) -> None:
    """Print one scenario's line."""
    refused = counts["refused"] / max(counts["calls"], 1)
    print(f"{name:<44} {measured:>26}  ideal {ideal:<12} refused {refused:6.2%}", flush=True)


@contextlib.asynccontextmanager
async def scene(**limits: Any) -> AsyncIterator[tuple[Deliveries, HttpPartner]]:  # noqa: ANN401, those of Limits
    """Start a partner and one driver."""
    async with child("--serve", json.dumps(asdict(Limits(**limits)))) as process:
        url = f"http://127.0.0.1:{await line_of(process)}"
        async with driver(url, Admission(Flow())) as opened:
            yield opened


async def timed(work: Awaitable[object]) -> float:
    """Return the seconds that some work takes."""
    start = time.monotonic()
    await work
    return time.monotonic() - start


# --- the scenarios -------------------------------------------------------------------------------


async def limited(name: str, records: int, **limits: Any) -> None:  # noqa: ANN401, those of Limits
    """One batch at a partner with a limit."""
    async with scene(**limits) as (deliveries, partner):
        seconds = await timed(deliveries.batch("batch", records))
        found = Limits(**limits)
        ideal = 2 * records * found.latency / found.most if found.most else (2 * records - found.burst) / found.rate
        counts = await partner.control()
        assert counts["stored"] == records, counts  # noqa: S101, each once
        report(name, f"{seconds:.1f} s ({ideal / seconds:.0%})", f"{ideal:.1f} s", counts)


async def rates(scale: int) -> None:
    """Row 1."""
    for quota in (False, True):
        suffix = ", RateLimit headers" if quota else ""
        await limited(f"1  50/s{suffix}", 1_000 // scale, rate=50, burst=50, quota=quota)
        await limited(f"1  500/s{suffix}", 10_000 // scale, rate=500, burst=500, quota=quota)


async def concurrency(scale: int) -> None:
    """Row 2."""
    await limited("2  5 at a time", 500 // scale, most=5)
    await limited("2  50 at a time", 5_000 // scale, most=50)


async def change(scale: int) -> None:  # noqa: ARG001, its times are fixed
    """Row 3."""
    async with scene(rate=100, burst=100) as (deliveries, partner):
        task = asyncio.ensure_future(deliveries.batch("batch", 1_000_000))
        await asyncio.sleep(20)
        for rate in (50, 100):
            await partner.control(rate=rate)
            await asyncio.sleep(10)
            before = await partner.control()
            await asyncio.sleep(10)
            after = await partner.control()
            delta = {name: after[name] - before[name] for name in after}
            got = (delta["calls"] - delta["refused"]) / 10
            report(f"3  10 to 20 s after the limit became {rate}/s", f"{got:.1f}/s", f"{rate}/s", delta)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def processes(scale: int) -> None:
    """Row 4."""
    seconds = 60 // scale
    async with (
        child("--serve", json.dumps(asdict(Limits(rate=100, burst=100)))) as server,
        contextlib.AsyncExitStack() as stack,
    ):
        url = f"http://127.0.0.1:{await line_of(server)}"
        workers = [await stack.enter_async_context(child("--drive", url, str(seconds))) for _ in range(4)]
        async with driver(url, Admission(Flow())) as (_, partner):
            # The processes take a while to start.
            while not (before := await partner.control())["calls"]:  # noqa: ASYNC110, another process counts
                await asyncio.sleep(0.1)
            start = time.monotonic()
            await asyncio.sleep(0.8 * seconds)
            passed, after = time.monotonic() - start, await partner.control()
        stored = [int(await line_of(worker)) for worker in workers]
        counts = {name: after[name] - before[name] for name in after}
        together = (counts["calls"] - counts["refused"]) / (100 * passed + 100)
        report(
            "4  four processes at 100/s",
            f"{together:.0%}, slowest/fastest {min(stored) / max(stored):.2f}",
            "100%",
            counts,
        )


async def poison(scale: int) -> None:
    """Row 5."""
    records = 1_000 // scale
    cases: list[tuple[str, dict[str, Any]]] = [
        ("healthy", {}),
        ("429 + Retry-After: 1 to one record", {"poison": "batch-100"}),
        ("503 + Retry-After: 86400", {"poison": "batch-100", "poison_status": 503, "poison_retry_after": 86_400}),
        ("15 × 429, 15 × 503, 10 × 422 at first", {"script": "429 " * 15 + "503 " * 15 + "422 " * 10}),
    ]
    for name, limits in cases:
        async with scene(**limits) as (deliveries, partner):
            start = asyncio.get_running_loop().time()
            await deliveries.batch("batch", records, deadline=start + 60)
            times = sorted(deliveries.stored.values())
            last = times[int(0.95 * len(times))] if "script" in limits else times[-1]
            report(f"5  {name}", f"{len(times)} in {last - start:.1f} s", str(records), await partner.control())


async def beside(scale: int) -> None:  # noqa: ARG001, its times are fixed
    """Row 6."""
    for latency in (0.1, 2.0):
        async with scene(latency=latency) as (deliveries, partner):
            alone = await timed(deliveries.single("alone"))
            tasks = [asyncio.ensure_future(deliveries.batch(f"b{at}", 1_000)) for at in range(10)]
            await asyncio.sleep(max(1.0, 2.5 * latency))
            together = await timed(deliveries.single("single"))
            name = f"6  a single beside ten batches, {latency} s"
            report(name, f"{together:.2f} s ({together / alone:.1f}×)", f"{alone:.2f} s", await partner.control())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def outage(scale: int) -> None:
    """Row 7."""
    for calls, name in ((200, "100 records/s"), (100, "100 calls/s")):
        down = 60 / scale
        async with scene(rate=calls, burst=calls, down_for=down) as (deliveries, partner):
            seconds = await timed(deliveries.singles([f"record-{at}" for at in range(500)]))
            counts = await partner.control()
            measured = f"{seconds - down:.1f} s, {counts['while_down']} calls"
            report(f"7  after an outage, {name}", measured, f"{(1_000 - calls) / calls:.1f} s", counts)


async def unlimited(scale: int) -> None:
    """Row 8: the same driver with and without a limiter, in turn."""
    records = 10_000 // scale
    for latency in (0.0, 0.05):
        times: dict[str, list[float]] = {"with": [], "without": []}
        for _ in range(3):
            for kind, admission in (("without", FreeAdmission(Flow())), ("with", Admission(Flow()))):
                async with child("--serve", json.dumps(asdict(Limits(latency=latency)))) as server:
                    url = f"http://127.0.0.1:{await line_of(server)}"
                    async with driver(url, admission) as (deliveries, partner):
                        times[kind].append(await timed(deliveries.batch("batch", records)))
                        counts = await partner.control()
        fastest = {kind: 2 * records / min(each) for kind, each in times.items()}
        ratio = fastest["with"] / fastest["without"]
        report(
            f"8  unlimited, {latency} s",
            f"{fastest['with']:.0f}/s ({ratio:.1%})",
            f"{fastest['without']:.0f}/s",
            counts,
        )


async def singles(scale: int) -> None:
    """Row 9."""
    many = 5_000 // scale
    async with scene(rate=200, burst=200) as (deliveries, partner):
        task = asyncio.ensure_future(deliveries.singles([f"record-{at}" for at in range(many)]))
        await asyncio.sleep(5)
        late = await timed(deliveries.single("late"))
        start = asyncio.get_running_loop().time() - 5 - late
        await task
        seconds = asyncio.get_running_loop().time() - start
        ideal = (2 * many - 200) / 200
        report(
            f"9  {many} singles, a late one",
            f"{seconds:.1f} s, late {late:.2f} s",
            f"{ideal:.1f} s",
            await partner.control(),
        )


SCENARIOS: dict[str, Callable[[int], Awaitable[None]]] = {
    each.__name__: each for each in (rates, concurrency, change, processes, poison, beside, outage, unlimited, singles)
}


async def drive(url: str, seconds: float) -> None:
    """Deliver for some seconds, and print how many records were stored."""
    async with driver(url, Admission(Flow())) as (deliveries, _):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(deliveries.batch("batch", 1_000_000), seconds)
        print(len(deliveries.stored), flush=True)


async def main() -> None:
    """Run the scenarios that are asked for, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", help=f"of {', '.join(SCENARIOS)}; all unless given")
    parser.add_argument("--quick", action="store_true", help="a fifth of the records and times")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--drive", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        settings = json.loads(options.serve)
        await serve(Limits(**{each.name: settings[each.name] for each in fields(Limits)}))
    elif options.drive:
        await drive(options.drive[0], float(options.drive[1]))
    else:
        for name in options.scenarios or SCENARIOS:
            await SCENARIOS[name](5 if options.quick else 1)


if __name__ == "__main__":
    asyncio.run(main())
