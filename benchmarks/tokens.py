"""What the calls of each peer feel of its tokens: at the start, at expiry, after a revocation, in an outage.

The peers run at the same time, each in a thread with an event loop of its own and against a room of its own.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.load import Felt, burst, open_loop
from benchmarks.partner import Partner
from benchmarks.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.load import Call
    from benchmarks.peers import Peer

HERD = 64
RATE = 20  # calls a second


@dataclass(frozen=True)
class Scenario:
    """What happens, and how long the load goes on. Times are seconds from the beginning of the load.

    `before` are the room's settings for the first token, `during` those from then on.
    """

    name: str
    text: str
    before: dict[str, float]
    during: dict[str, float]
    seconds: float


@dataclass(frozen=True)
class Result:
    """What the callers felt, and how many tokens were requested for it."""

    felt: Felt
    token_requests: int


# A token of 5 s under a load of 4.8 s is to be replaced once, by those that renew it ahead as by those that wait for
# the last second. The server is down while both want to renew a token of 6 s, and up again before it has expired.
SCENARIOS = (
    Scenario("expiry", "a token of 5 s, under load for 4.8 s", {"expires_in": 5}, {"token_latency": 0.5}, 4.8),
    Scenario("revocation", "the token is revoked after 1 s", {}, {"token_latency": 0.5, "revoke_at": 1.0}, 3.0),
    Scenario(
        "outage",
        "a token of 6 s, the token server down from 2.9 to 5.9 s",
        {"expires_in": 6},
        {"token_latency": 0.1, "down_from": 2.9, "down_until": 5.9},
        7.5,
    ),
)


def measure(origin: str) -> dict[str, dict[str, Result]]:
    """Run every scenario; return the results by scenario, by peer."""
    results = {"herd": _all_peers(origin, "herd", _herd)}
    for scenario in SCENARIOS:
        results[scenario.name] = _all_peers(origin, scenario.name, partial(_under_load, scenario))
    return results


def _all_peers(origin: str, name: str, run: Callable[[Partner, Call], Awaitable[Result]]) -> dict[str, Result]:
    async def one(peer: Peer, partner: Partner) -> Result:
        async with peer.open(partner) as call:
            return await run(partner, call)

    peers = [peer for peer in PEERS if peer.gets_tokens]
    with ThreadPoolExecutor(len(peers)) as threads:
        futures = {
            peer.name: threads.submit(asyncio.run, one(peer, Partner(origin, f"{name}-{number}")))
            for number, peer in enumerate(peers)
        }
        return {peer: future.result() for peer, future in futures.items()}


async def _herd(partner: Partner, call: Call) -> Result:
    partner.set(token_latency=0.5)
    felt = await burst(call, HERD)
    return Result(felt, partner.counts()["token_requests"])


async def _under_load(scenario: Scenario, partner: Partner, call: Call) -> Result:
    partner.set(**scenario.before)
    await call()
    partner.set(**scenario.during)
    felt = await open_loop(call, RATE, scenario.seconds)
    return Result(felt, partner.counts()["token_requests"])
