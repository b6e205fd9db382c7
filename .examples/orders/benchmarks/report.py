"""The report: the same tables for the terminal and for docs/performance.md, and whether what was promised was kept."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.batches import AT_ONCE, CHOSEN, CHUNKS_LATENCY, SINGLES
from benchmarks.claims import claims
from benchmarks.peers import AIOHTTP, HTTPX

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from benchmarks.batches import Chunk, Delivered, Results
    from benchmarks.cold_start import Import
    from benchmarks.load import Series
    from benchmarks.throughput import Table
    from benchmarks.tokens import Result

WORDS = Path(__file__).with_name("performance.md.in")
PACKAGES = (
    "aiohttp",
    "httpx",
    "httpx-aiohttp",
    "pyreqwest",
    "authlib",
    "httpx-auth",
    "requests-oauth2client",
    "msal",
    "azure-identity",
    "azure-functions",
    "azure-functions-durable",
    "azure-functions-runtime",
    "msgspec",
)


@dataclass(frozen=True)
class Findings:
    """Everything that was measured; `partner` in µs of a processor for a call."""

    partner: float
    fast: Table
    slow: Table
    tokens: dict[str, dict[str, Result]]
    cold: tuple[dict[str, Import], list[tuple[str, float]]]
    batches: Results
    transports: list[Sequence[str]]


def terminal(findings: Findings) -> str:
    """Give the tables for people at a terminal."""
    return "\n\n".join(f"{title}\n{_aligned(rows)}" for title, rows in _tables(findings).items())


def page(findings: Findings, machine: str) -> str:
    """Give docs/performance.md; `machine` says when, where and with what was measured."""
    words = WORDS.read_text(encoding="utf-8")
    for title, rows in _tables(findings).items():
        words = words.replace(f"{{{title}}}", _markdown(rows))
    return words.replace("{machine}", machine).replace("{partner}", f"{findings.partner:.0f}")


def _tables(findings: Findings) -> dict[str, list[Sequence[str]]]:
    results = findings.batches
    return {
        "Claims": [("claim", "at least / at most", "measured", ""), *claims(findings)],
        "Throughput": _throughput(findings.fast),
        "An API that takes 100 ms": _throughput(findings.slow),
        "Transports": findings.transports,
        "Tokens": _tokens(findings.tokens),
        "Cold start": [
            ("import", "ms (least–most)", "ratio", "ms of a processor", "MiB"),
            *_imports(findings.cold[0]),
        ],
        "Longest imports": [
            ("module", "ms with all that it imports"),
            *((f"`{module}`", f"{took:.1f}") for module, took in findings.cold[1]),
        ],
        "Batches": [
            ("records", "records/s (least–most)", "ms a record", "× 1,000 beside", "worker, MiB"),
            *(_delivered(f"{each.records:,}", each) for each in results.batches),
        ],
        "Beside": _beside(results),
        "Chunks": _chunks(results.chunks),
    }


def _delivered(what: str, each: Delivered) -> Sequence[str]:
    beside = "" if each.beside is None else f"{each.beside:.2f}"
    rates = _range(each.rate, each.slowest, each.fastest)
    return what, rates, f"{1e3 / each.rate:.2f}", beside, f"{each.memory:.0f}"


def _beside(results: Results) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        (
            "look-up",
            "until",
            f"{AT_ONCE:,} in batches, records/s (least–most)",
            f"{SINGLES:,} singly, records/s (least–most)",
            "×",
            "looking for the end",
            "worker, MiB",
        )
    ]
    for look_up, each in results.beside.items():
        looking = " / ".join(f"{share:.1%}" for share in each.looking)
        for until, batches, singles, last in (
            ("all is delivered", each.batches, each.singles, (looking, f"{each.memory:.0f}")),
            ("each has been asked for", each.batches_asked, each.singles_asked, ("", "")),
        ):
            rates = _series(batches), _series(singles), f"{batches.times(singles):.2f}"
            rows.append((look_up, until, *rates, *last))
    return rows


def _chunks(chunks: dict[tuple[int, int], Chunk]) -> list[Sequence[str]]:
    millis, chosen = f"{CHUNKS_LATENCY * 1e3:.0f} ms a call", chunks[CHOSEN]
    times = f"× {CHOSEN[0]}"
    rows: list[Sequence[str]] = [
        ("chunk", "connections", "records/s, 0 ms a call (least–most)", times, f"{millis} (least–most)", times)
    ]
    for (size, connections), each in chunks.items():
        fast, slow = each.fast.times(chosen.fast), each.slow.times(chosen.slow)
        rows.append((str(size), str(connections), _series(each.fast), f"{fast:.2f}", _series(each.slow), f"{slow:.2f}"))
    return rows


def _series(series: Series) -> str:
    return _range(series.rate, min(series.rates), max(series.rates))


def _throughput(table: Table) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [
        ("peer", "in flight", "calls/s (least–most)", "× httpx", "× aiohttp", "p99, ms", "failed")
    ]
    for in_flight, row in table.items():
        for peer, series in row.items():
            rows.append(
                (
                    peer,
                    str(in_flight),
                    _series(series),
                    f"{series.times(row[HTTPX.name]):.2f}",
                    f"{series.times(row[AIOHTTP.name]):.2f}",
                    f"{series.p99:.1f}",
                    str(series.failed),
                )
            )
    return rows


def _tokens(scenarios: dict[str, dict[str, Result]]) -> list[Sequence[str]]:
    rows: list[Sequence[str]] = [("peer", *scenarios)]
    for peer in next(iter(scenarios.values())):
        results = (results[peer] for results in scenarios.values())
        rows.append((peer, *(f"{each.token_requests} / {each.felt.failed} / {each.felt.stalled}" for each in results)))
    return rows


def _imports(imports: dict[str, Import]) -> Iterable[Sequence[str]]:
    first = next(iter(imports.values()))
    for name, each in imports.items():
        wall, cpu, memory = (statistics.median(column) for column in (each.walls, each.cpus, each.memories))
        walls = _range(wall, min(each.walls), max(each.walls))
        yield name, walls, f"{each.times(first):.3f}", f"{cpu:,.0f}", f"{memory:.1f}"


def _range(middle: float, least: float, most: float) -> str:
    return f"{middle:,.0f} ({least:,.0f}–{most:,.0f})"


def this_machine() -> str:
    """Say what day it is, what machine this is, and which versions are installed."""
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    date = datetime.now(UTC).date().isoformat()
    return (
        f"{date}, Python {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors; {packages}."
    )


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
