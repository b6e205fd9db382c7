"""Calls a second and 99th percentiles, all peers in one run with their rounds alternating."""

from __future__ import annotations

import asyncio
import gc
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.load import Series, closed_loop
from benchmarks.partner import Partner
from benchmarks.peers import AIOHTTP, HTTPX, OURS, OVER_AIOHTTP, OVER_REQWEST, PEERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.peers import Peer

Table = dict[int, dict[str, Series]]
"""By calls in flight, by peer."""


@dataclass(frozen=True)
class Plan:
    """Who is measured with how many calls in flight, against an API that takes `latency` s, in rounds of `seconds`."""

    peers: Sequence[Peer]
    loads: Sequence[int]
    latency: float
    rounds: int
    seconds: float


MEASURES = (OURS, HTTPX, AIOHTTP)
PARTNER_SECONDS = 0.5  # for which the partner's own time is looked at
SLOW = 0.1  # seconds that the slow API takes
SLOW_PEERS = (OURS, HTTPX, AIOHTTP, OVER_AIOHTTP, OVER_REQWEST)


def fast_api(origin: str, *, quick: bool) -> Table:
    """Measure all peers against an API that answers at once."""
    plan = Plan(PEERS, (1, 64), latency=0.0, rounds=2 if quick else 11, seconds=0.15 if quick else 0.4)
    return asyncio.run(measure(origin, plan))


def slow_api(origin: str, *, quick: bool) -> Table:
    """Measure those that manage their connections against an API that takes 100 ms."""
    plan = Plan(SLOW_PEERS, (64, 200), latency=SLOW, rounds=1 if quick else 7, seconds=0.5 if quick else 1.5)
    return asyncio.run(measure(origin, plan))


def partner_time(origin: str) -> float:
    """Return the microseconds of a processor that a call takes of the partner's, by bare aiohttp's calls."""
    return asyncio.run(_partner_time(Partner(origin, "partner-time")))


async def _partner_time(partner: Partner) -> float:
    async with AIOHTTP.open(partner) as call:
        await closed_loop(call, 16, PARTNER_SECONDS, Series())
        before = partner.set()
        await closed_loop(call, 16, PARTNER_SECONDS, Series())
        after = partner.counts()
    return (after["processor"] - before["processor"]) / after["posts"]


def order(peers: Sequence[Peer], number: int) -> list[Peer]:
    """Return the order of a round: any, but those that the others are measured by stand beside each other.

    The machine's speed changes from one second to the next: in a ratio it should be the same for both.
    """
    shuffle = random.Random(number)  # noqa: S311, it is no secret
    beside, others = [[peer for peer in peers if (peer in MEASURES) is is_one] for is_one in (True, False)]
    shuffle.shuffle(beside)
    shuffle.shuffle(others)
    place = shuffle.randint(0, len(others))
    return [*others[:place], *beside, *others[place:]]


async def measure(origin: str, plan: Plan) -> Table:
    """Measure by the plan: its peers alternate, after one round of each that does not count."""
    table: Table = {in_flight: {peer.name: Series() for peer in plan.peers} for in_flight in plan.loads}
    async with AsyncExitStack() as stack:
        calls = {}
        for number, peer in enumerate(plan.peers):
            partner = Partner(origin, f"{'slow' if plan.latency else 'fast'}-{number}")
            partner.set(latency=plan.latency)
            calls[peer.name] = await stack.enter_async_context(peer.open(partner))
        for in_flight, row in table.items():
            for call in calls.values():
                # The connections and the token are there before the first round.
                await closed_loop(call, in_flight, 3 * plan.latency or plan.seconds / 4, Series())
            for number in range(plan.rounds):
                for peer in order(plan.peers, number):
                    # Nobody pays for what the one before has left behind.
                    gc.collect()
                    await closed_loop(calls[peer.name], in_flight, plan.seconds, row[peer.name])
    return table
