from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest

from benchmarks.batches import Beside, Chunk, Delivered, Results
from benchmarks.chart import chart
from benchmarks.claims import claims
from benchmarks.cold_start import Import
from benchmarks.load import Felt, Series, burst, closed_loop, open_loop
from benchmarks.partner import Partner, running_server
from benchmarks.peers import AIOHTTP, HTTPX, OURS, PEERS, Peer
from benchmarks.report import Findings, page, terminal
from benchmarks.throughput import SLOW_PEERS, Table
from benchmarks.tokens import SCENARIOS, Result
from benchmarks.transports import PROBES, TRANSPORTS

BY_NAME = {peer.name: peer for peer in PEERS}
# Those whose libraries are the app's own.
HERE = [BY_NAME[name] for name in ("BusinessApi", "bare httpx", "bare aiohttp", "token per call", "MSAL per call")]


def findings(*, rate: float = 100.0, beside: float = 1.0) -> Findings:
    """Findings in which BusinessApi makes `rate` calls a second, and everybody else ten.

    100 records are delivered at `beside` times the rate of 1,000.
    """

    def row(peers: tuple[Peer, ...]) -> dict[str, Series]:
        return {peer.name: Series([rate if peer.name == "BusinessApi" else 10.0], [1.0]) for peer in peers}

    scenarios = ["herd", *(scenario.name for scenario in SCENARIOS)]
    few = Delivered(100, 50.0, 40.0, 60.0, 60.0, beside)
    delivered = Delivered(1_000, 100.0, 90.0, 110.0, 64.0, 1.0)
    return Findings(
        partner=23.4,
        fast={in_flight: row(PEERS) for in_flight in (1, 16, 64)},
        slow={in_flight: row(SLOW_PEERS) for in_flight in (64, 200)},
        tokens={name: {peer.name: Result(Felt(), 1) for peer in PEERS if peer.gets_tokens} for name in scenarios},
        cold=({name: Import([1.0], [1.0], [40.0]) for name in ("libraries", "app", "client")}, [("shared", 1.0)]),
        batches=Results(
            [few, delivered], {"always": beside_singles()}, {(50, 100): Chunk(Series([2.0]), Series([1.0]))}
        ),
        transports=[("what happens", "ours"), ("nobody listens", "ConnectError")],
    )


def beside_singles() -> Beside:
    """Batches ten times as fast as single deliveries until all is delivered, and five times for one who asks."""
    return Beside(Series([20.0]), Series([2.0]), Series([5.0]), Series([1.0]), [0.01], [0.02], 64.0)


def rounds(factor: float) -> dict[str, Series]:
    """Three rounds, whose ratios have another median than the ratio of the medians.

    Ours is twice the factor times as fast as bare httpx, the factor times as fast as bare aiohttp, and has a fifth of
    it as its p99, of bare httpx's.
    """
    return {
        OURS.name: Series([2 * factor, 8 * factor, 6 * factor], [1 * factor, 1 * factor, 4 * factor]),
        HTTPX.name: Series([1, 2, 3], [20, 5, 8]),
        AIOHTTP.name: Series([2, 16, 3], [1, 1, 1]),
    }


def test_every_claim_has_the_bound_of_issue_5_and_its_own_figure() -> None:
    fast: Table = {1: rounds(1.5), 16: rounds(2), 64: rounds(3)}
    slow: Table = {64: rounds(5), 200: rounds(7)}
    scenarios = ("herd", "expiry", "revocation", "outage")
    tokens = {name: {OURS.name: Result(Felt(failed=n), n + 1)} for n, name in enumerate(scenarios)}
    imports = {
        "libraries": Import([100, 200, 300], [1] * 3, [40, 50, 60]),
        "app": Import([120, 220, 300], [1] * 3, [52, 61, 73]),
        "client": Import([900] * 3, [1] * 3, [90] * 3),
    }
    delivered = [
        Delivered(size, 1.0, 1.0, 1.0, memory, beside)
        for size, memory, beside in ((100, 10, 0.8), (1_000, 20, 1.0), (10_000, 90, 1.2), (100_000, 30, 1.1))
    ]
    results = Results(delivered, {"always": beside_singles(), "uncertain": beside_singles()}, {})
    results.beside["uncertain"].batches.rates = [18.0]
    assert list(claims(Findings(23.4, fast, slow, tokens, (imports, []), results, []))) == [
        ("throughput at 64 in flight, × bare httpx", "≥ 6", "6.00", "kept"),
        ("throughput at 1 in flight, × bare httpx", "≥ 1.5", "3.00", "kept"),
        ("p99 at 64 in flight, of bare httpx's", "≤ 0.2", "0.60", "MISSED"),
        ("100 ms API, 64 in flight, of bare aiohttp", "≥ 0.95", "5.00", "kept"),
        ("100 ms API, 200 in flight, of bare aiohttp", "≥ 0.75", "7.00", "kept"),
        ("throughput at 1 in flight, of bare aiohttp", "≥ 0.9", "1.50", "kept"),
        ("throughput at 16 in flight, of bare aiohttp", "≥ 0.9", "2.00", "kept"),
        ("throughput at 64 in flight, of bare aiohttp", "≥ 0.9", "3.00", "kept"),
        ("herd: token requests", "≤ 1", "1.00", "kept"),
        ("herd: failed calls", "≤ 0", "0.00", "kept"),
        ("expiry: token requests", "≤ 1", "2.00", "MISSED"),
        ("expiry: failed calls", "≤ 0", "1.00", "MISSED"),
        ("revocation: token requests", "≤ 1", "3.00", "MISSED"),
        ("revocation: failed calls", "≤ 0", "2.00", "MISSED"),
        ("outage: token requests", "≤ 4", "4.00", "kept"),
        ("outage: failed calls", "≤ 0", "3.00", "MISSED"),
        ("import of function_app, × the libraries", "≤ 1.15", "1.10", "kept"),
        ("import of function_app, MiB more", "≤ 12", "12.00", "kept"),
        ("cost of a record, dearest over cheapest number", "≤ 1.3", "1.50", "MISSED"),
        ("worker's memory, after the most records over after 1,000", "≤ 1.25", "1.50", "MISSED"),
        ("batches, × one orchestration a record, look-up always", "≥ 10", "10.00", "kept"),
        ("batches, × one orchestration a record, look-up uncertain", "≥ 10", "9.00", "MISSED"),
    ]


def test_the_page_has_every_table_and_says_on_what_machine() -> None:
    text = page(findings(), "a machine")
    assert "Measured on a machine" in text
    assert " 23 µs of a processor" in " ".join(text.split())
    assert not re.search(r"\{[^}]*\}", text)
    assert text.count("| BusinessApi |") == 3 + 2 + 1


@pytest.mark.parametrize(("rate", "said"), [(100.0, "10.00 kept"), (60.0, "6.00 kept"), (59.0, "5.90 MISSED")])
def test_a_claim_is_said_to_be_kept_or_missed(rate: float, said: str) -> None:
    claim = next(line for line in terminal(findings(rate=rate)).splitlines() if "bare httpx  " in line)
    assert " ".join(claim.split()).endswith(said)


@pytest.mark.parametrize(("beside", "said"), [(0.8, "1.25 kept"), (1.25, "1.25 kept"), (0.75, "1.33 MISSED")])
def test_a_record_costs_as_much_as_in_another_number_by_what_was_measured_beside(beside: float, said: str) -> None:
    claim = next(line for line in terminal(findings(beside=beside)).splitlines() if "cost of a record" in line)
    assert " ".join(claim.split()).endswith(said)


def test_the_chart_has_a_bar_for_each_peer() -> None:
    root = ET.fromstring(chart(findings().fast))  # noqa: S314, it is our own
    bars = root.findall(".//{http://www.w3.org/2000/svg}rect")
    assert len(bars) == len(PEERS) + 1  # and the background


@pytest.mark.parametrize("peer", HERE, ids=lambda peer: peer.name)
async def test_a_peer_posts_with_a_token_that_the_partner_has_issued(peer: Peer) -> None:
    series = Series()
    with running_server() as origin:
        partner = Partner(origin, "room")
        async with peer.open(partner) as call:
            await closed_loop(call, in_flight=4, seconds=0.1, series=series)
        counts = partner.counts()
    assert series.failed == counts["unauthorized"] == 0
    assert counts["posts"] > 0
    assert counts["token_requests"] == (counts["posts"] if peer.name == "token per call" else counts["token_requests"])
    assert counts["token_requests"] >= 1


async def test_the_partner_refuses_what_it_has_not_issued_or_has_revoked() -> None:
    with running_server() as origin:
        partner = Partner(origin, "room")
        async with BY_NAME["bare httpx"].open(partner) as call:
            assert await call() == 201
            partner.set(revoke_at=0.0)
            assert await call() == 401
        assert partner.counts()["unauthorized"] == 1


async def test_a_call_that_raises_has_failed() -> None:
    async def call() -> int:
        raise ValueError

    felt = await burst(call, 3)
    assert (felt.calls, felt.failed) == (3, 3)
    felt = await open_loop(call, rate=1_000, seconds=0.01)
    assert (felt.calls, felt.failed) == (10, 10)


@pytest.mark.parametrize("what", PROBES)
async def test_our_transport_answers_every_probe_rightly_and_httpx_s_own_as_well(what: str) -> None:
    for transport in ("ours", "ours, under httpx", "httpx's own"):
        said, is_right = await PROBES[what](TRANSPORTS[transport])
        assert is_right, f"{transport}: {said}"
