"""Holds calls back while the partner is in trouble, so that a partner that is down is asked by few, not by all.

One gate a process: what one delivery has learnt (429 with Retry-After, one failure after the other) counts for all. A
delivery that is held back is deferred, and waits on its durable timer.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.delivery.outcome import Outcome

# So many failures with no success between them close the gate: a few are bad luck, these are a partner in trouble.
FAILURES = 5
# The first closure, and the longest, in seconds; each failed probe doubles it.
FIRST_CLOSURE, LONGEST_CLOSURE = 1.0, 30.0
# While one probe finds out whether the partner is back, the others come again after so many seconds.
PROBE_PAUSE = 1.0
# So many calls go ahead to a partner that has not answered in the last `TRUST` seconds.
FEW, TRUST = 5, 10.0


class PartnerGate:
    """Lets calls to the partner through, holds them back, or closes until a time.

    While the partner has answered lately, all calls go through. Before that, few go ahead and the others wait to see
    what becomes of them. Closed, no call goes through; then one at a time probes until the partner answers.

    `clock` gives seconds. Not thread-safe: it belongs to one event loop.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._in_flight = 0
        self._failures = 0
        self._closure = FIRST_CLOSURE
        self._closed_until: float | None = None
        self._trusted_until = -math.inf
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def admit(self) -> float:
        """Give 0 for a call that may go ahead, and must then `learn`, else the seconds for which it is held back."""
        while self._closed_until is None:
            if self._in_flight < FEW or self._clock() < self._trusted_until:
                self._in_flight += 1
                return 0.0
            await self._wait()
        left = self._closed_until - self._clock()
        if left > 0 or self._in_flight:
            return max(left, PROBE_PAUSE)
        self._in_flight += 1
        return 0.0

    def learn(self, outcome: Outcome | None) -> None:
        """Take in what came of a call that was let through; None where it says nothing about the partner."""
        self._in_flight -= 1
        if outcome is not None:
            self._judge(outcome)
        is_decided = self._closed_until is not None or self._clock() < self._trusted_until
        # All learn that they may go ahead, or are held back. Else one takes the place that is free now.
        self._wake(len(self._waiters) if is_decided else 1)

    def _judge(self, outcome: Outcome) -> None:
        now = self._clock()
        is_closed = self._closed_until is not None and self._closed_until > now
        if outcome.kind != "deferred":
            # Nothing goes ahead while it is closed: what succeeds then was sent before the partner asked for a pause.
            if not is_closed:
                self._failures, self._closure, self._closed_until = 0, FIRST_CLOSURE, None
                self._trusted_until = now + TRUST
            return
        self._failures += 1
        is_told = _asks_for_a_pause(outcome)
        if is_told or self._failures >= FAILURES or self._closed_until is not None:
            wait = min(outcome.retry_after or 0.0, LONGEST_CLOSURE) if is_told else 0.0
            if not is_closed:
                wait = max(wait, self._closure)
                self._closure = min(2 * self._closure, LONGEST_CLOSURE)
            self._closed_until = max(self._closed_until or -math.inf, now + wait)

    async def _wait(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():
                # It was woken, and goes away instead: the place is the next one's.
                self._wake(1)
            raise

    def _wake(self, count: int) -> None:
        while count and self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                count -= 1


def _asks_for_a_pause(outcome: Outcome) -> bool:
    """Tell whether the partner has too much to do, RFC 6585 section 4 and RFC 9110 section 15.6.4.

    A 503 that names no time may be one server of many that is down: it counts as any other failure.
    """
    return outcome.status == 429 or (outcome.status == 503 and outcome.retry_after is not None)  # noqa: PLR2004, the two statuses of these sections
