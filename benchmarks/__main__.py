"""Measures the app beside its peers, and writes docs/performance.md with its chart. Run: make bench.

`make bench QUICK=1` takes a few minutes and writes nothing: its figures are rough.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks import batches, cold_start, feeding, flow, throughput, tokens, transports
from benchmarks.chart import chart
from benchmarks.partner import running_server
from benchmarks.report import Findings, page, terminal, this_machine

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> int:
    """Measure everything; return the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a rough look; writes nothing")
    quick = parser.parse_args().quick
    # Libraries log while their token server is down.
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    with running_server() as origin:
        findings = Findings(
            partner=_timed("the partner", lambda: throughput.partner_time(origin)),
            fast=_timed("calls to an API that answers at once", lambda: throughput.fast_api(origin, quick=quick)),
            slow=_timed("calls to an API that takes 100 ms", lambda: throughput.slow_api(origin, quick=quick)),
            tokens=_timed("tokens", lambda: tokens.measure(origin)),
            cold=_timed("cold start", lambda: cold_start.measure(quick=quick)),
            batches=_timed("batches", lambda: batches.measure(quick=quick)),
            feeding=_timed("relay send", lambda: feeding.measure(quick=quick)),
            transports=_timed("transports", transports.compare),
            flow=_timed("flow control", lambda: flow.measure(quick=quick)),
        )
    print(terminal(findings))
    print(f"\n{time.monotonic() - began:.0f} s")
    if not quick:
        (DOCS / "performance.md").write_text(page(findings, this_machine()), encoding="utf-8")
        (DOCS / "performance.svg").write_text(chart(findings.fast), encoding="utf-8")
    return 0


def _timed(what: str, measure: Callable[[], T]) -> T:
    began = time.monotonic()
    print(f"Measuring {what} …", end=" ", flush=True, file=sys.stderr)
    result = measure()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return result


if __name__ == "__main__":
    sys.exit(main())
