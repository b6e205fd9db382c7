"""The report: the same tables for the terminal and for docs/performance.md."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.batches import BATCHES, SINGLES
from benchmarks.flow import LATENCY
from benchmarks.peers import HTTPX, OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.batches import Results
    from benchmarks.cold_start import Import
    from benchmarks.feeding import Feeding
    from benchmarks.flow import Row
    from benchmarks.load import Series
    from benchmarks.throughput import Table
    from benchmarks.tokens import Result

    Line = Sequence[str]

WORDS = Path(__file__).with_name("performance.md.in")
PACKAGES = ("aiohttp", "httpx", "httpx-aiohttp", "pyreqwest", "azure-functions-durable", "msgspec")


@dataclass(frozen=True)
class Findings:
    """Everything that was measured; `partner` is the µs of a processor that a call takes of the partner."""

    partner: float
    fast: Table
    slow: Table
    tokens: dict[str, dict[str, Result]]
    cold: dict[str, Import]
    batches: Results
    feeding: Feeding
    transports: list[Line]
    flow: list[Row]


def terminal(findings: Findings) -> str:
    """Return the tables for people at a terminal."""
    return "\n\n".join(f"{title}\n{_aligned(rows)}" for title, rows in _tables(findings).items())


def page(findings: Findings, machine: str) -> str:
    """Return docs/performance.md; `machine` says when, where and with what was measured."""
    words = WORDS.read_text(encoding="utf-8")
    for title, rows in _tables(findings).items():
        words = words.replace(f"{{{title}}}", _markdown(rows))
    words = words.replace("{latency}", f"{LATENCY * 1e3:.0f}")
    return words.replace("{machine}", machine).replace("{partner}", f"{findings.partner:.0f}")


def this_machine() -> str:
    """Say what day it is, what machine this is, and which versions are installed."""
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    date = datetime.now(UTC).date().isoformat()
    load = os.getloadavg()[0]
    return (
        f"{date}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors (load average {load:.1f} at the end); {packages}"
    )


def _tables(findings: Findings) -> dict[str, list[Line]]:
    return {
        "Targets": [("target", "bound", "measured", ""), *_targets(findings)],
        "Flow": [
            ("partner", "measured", "ideal", "refused", "target", ""),
            *(
                (row.partner, row.measured, row.ideal, f"{row.refused:.1%}", row.target, _kept(row.is_kept))
                for row in findings.flow
            ),
        ],
        "Throughput": list(_throughput(findings.fast)),
        "An API that takes 100 ms": list(_throughput(findings.slow)),
        "Transports": findings.transports,
        "Tokens": _tokens(findings.tokens),
        "Cold start": [("import", "ms (least–most)", "× the SDK", "MiB"), *_imports(findings.cold)],
        "Batches": list(_batches(findings.batches)),
        "Feeding": list(_feeding(findings.feeding)),
    }


def _targets(findings: Findings) -> Iterator[Line]:
    ours, httpx = ({load: row[peer.name] for load, row in findings.fast.items()} for peer in (OURS, HTTPX))
    for load, least in ((64, 8.0), (1, 2.5)):
        ratio = ours[load].times(httpx[load])
        yield f"calls/s at {load} in flight, × bare httpx", f"≥ {least:g}", f"{ratio:.2f}", _kept(ratio >= least)
    libraries, app, *_ = findings.cold.values()
    ratio = app.times(libraries)
    yield "cold start, × the SDK's own", "≤ 1.15", f"{ratio:.3f}", _kept(ratio <= 1.15)  # noqa: PLR2004, the target
    times = findings.feeding.times
    yield "`relay send`, killed twice, × bare HTTP", "≥ 0.90", f"{times:.2f}", _kept(times >= 0.9)  # noqa: PLR2004, the target
    results = findings.batches
    for what, series in (("look-up and post", results.batches), ("post alone", results.one_call)):
        rate = series.rate
        yield f"records/s in batches, {what}", "≥ 2,500", f"{rate:,.0f}", _kept(rate >= 2_500)  # noqa: PLR2004, the target


def _feeding(found: Feeding) -> Iterator[Line]:
    yield "handed in", "records", "records/s", "× bare HTTP", "most memory, MiB"
    yield "over bare HTTP", f"{found.records:,}", f"{found.records / found.bare:,.0f}", "1.00", ""
    memory = f"{found.memory:.0f}, {found.early:.0f} up to the first kill"
    rate = found.records / found.relay
    yield "`relay send`, killed twice", f"{found.records:,}", f"{rate:,.0f}", f"{found.times:.2f}", memory


def _kept(is_kept: bool) -> str:  # noqa: FBT001, a truth value becomes a word
    return "kept" if is_kept else "**missed**"


def _batches(results: Results) -> Iterator[Line]:
    yield "handed in", "calls a record", "records/s (least–most)", "× bare httpx's calls"
    for what, calls, series in (
        ("one batch of 1,000", 2, results.one_batch),
        (f"{BATCHES} batches of 1,000 at once", 2, results.batches),
        (f"{BATCHES} batches of 1,000 at once, `honours_idempotency_key`", 1, results.one_call),
        (f"{SINGLES} records, each by itself", 2, results.singles),
    ):
        yield what, str(calls), _series(series), f"{calls * series.times(results.httpx):.1f}"


def _series(series: Series) -> str:
    return _range(series.rate, min(series.rates), max(series.rates))


def _throughput(table: Table) -> Iterator[Line]:
    yield (
        "peer",
        *(f"{load} in flight: {what}" for load in table for what in ("calls/s (least–most)", "× httpx", "p99, ms")),
    )
    for peer in next(iter(table.values())):
        cells = []
        for row in table.values():
            series = row[peer]
            cells += [_series(series), f"{series.times(row[HTTPX.name]):.2f}", f"{series.p99:.1f}"]
        yield peer, *cells


def _tokens(scenarios: dict[str, dict[str, Result]]) -> list[Line]:
    rows: list[Line] = [("peer", *scenarios)]
    for peer in next(iter(scenarios.values())):
        results = (results[peer] for results in scenarios.values())
        rows.append((peer, *(f"{each.token_requests} / {each.felt.failed} / {each.felt.stalled}" for each in results)))
    return rows


def _imports(imports: dict[str, Import]) -> Iterator[Line]:
    first = next(iter(imports.values()))
    for name, each in imports.items():
        wall, memory = statistics.median(each.walls), statistics.median(each.memories)
        yield name, _range(wall, min(each.walls), max(each.walls)), f"{each.times(first):.3f}", f"{memory:.1f}"


def _range(middle: float, least: float, most: float) -> str:
    return f"{middle:,.0f} ({least:,.0f}–{most:,.0f})"


def _aligned(rows: Sequence[Line]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _markdown(rows: Sequence[Line]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
