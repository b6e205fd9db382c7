"""What issue 5 asks to be shown, and what was measured: kept or missed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.peers import AIOHTTP, HTTPX, OURS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.report import Findings

# The steps of the token provider's backoff that fit into the 3 s of the outage: 1, 2 and 4 s, each shortened by half
# at most, after a first request.
BACKOFF_STEPS = 4


def claims(findings: Findings) -> Iterator[Sequence[str]]:
    """Give each claim with its bound, the figure, and whether it was kept."""
    fast, slow = findings.fast, findings.slow
    ours, httpx, aiohttp = (
        {in_flight: row[peer.name] for in_flight, row in [*fast.items(), *((-load, row) for load, row in slow.items())]}
        for peer in (OURS, HTTPX, AIOHTTP)
    )
    yield _at_least("throughput at 64 in flight, × bare httpx", 6.0, ours[64].times(httpx[64]))
    yield _at_least("throughput at 1 in flight, × bare httpx", 1.5, ours[1].times(httpx[1]))
    yield _at_most("p99 at 64 in flight, of bare httpx's", 0.2, ours[64].p99_times(httpx[64]))
    yield _at_least("100 ms API, 64 in flight, of bare aiohttp", 0.95, ours[-64].times(aiohttp[-64]))
    yield _at_least("100 ms API, 200 in flight, of bare aiohttp", 0.75, ours[-200].times(aiohttp[-200]))
    for in_flight in fast:
        share = ours[in_flight].times(aiohttp[in_flight])
        yield _at_least(f"throughput at {in_flight} in flight, of bare aiohttp", 0.9, share)
    for scenario, most in {"herd": 1, "expiry": 1, "revocation": 1, "outage": BACKOFF_STEPS}.items():
        result = findings.tokens[scenario][OURS.name]
        yield _at_most(f"{scenario}: token requests", most, result.token_requests)
        yield _at_most(f"{scenario}: failed calls", 0, result.felt.failed)
    libraries, app, *_ = findings.cold[0].values()
    yield _at_most("import of function_app, × the libraries", 1.15, app.times(libraries))
    yield _at_most("import of function_app, MiB more", 12, app.more_memory(libraries))
    results = findings.batches
    shares = [each.beside for each in results.batches if each.beside is not None]
    yield _at_most("cost of a record, dearest over cheapest number", 1.3, max(shares) / min(shares))
    memories = {each.records: each.memory for each in results.batches}
    growth = results.batches[-1].memory / memories[1_000]
    yield _at_most("worker's memory, after the most records over after 1,000", 1.25, growth)
    for look_up, beside in results.beside.items():
        claim = f"batches, × one orchestration a record, look-up {look_up}"
        yield _at_least(claim, 10, beside.batches.times(beside.singles))


def _at_least(claim: str, bound: float, measured: float) -> Sequence[str]:
    return claim, f"≥ {bound:g}", f"{measured:.2f}", "kept" if measured >= bound else "MISSED"


def _at_most(claim: str, bound: float, measured: float) -> Sequence[str]:
    return claim, f"≤ {bound:g}", f"{measured:.2f}", "kept" if measured <= bound else "MISSED"
