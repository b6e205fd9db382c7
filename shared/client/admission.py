"""Gives each delivery its turn to call the partner: fair between deliveries, at the pace that `Flow` finds."""

from __future__ import annotations

import asyncio
import math
import random as random_module
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from shared.rules.flow import CallResult, Flow, Snapshot

if TYPE_CHECKING:
    from collections.abc import Callable

    # The calls of each delivery that wait, oldest first.
    Queue = OrderedDict[str, list[asyncio.Future[float]]]

# Calls that one record takes: a look-up and a post.
CALLS = 2
# So many calls wait in their activities for a partner that is down. The others come back later.
HELD = 64
# New deliveries wait in their activities for a turn within so many seconds. More would fill the host's queue of
# activities, and a late one would be behind them all.
CROWD, FEWEST = 1.0, 8
# The pace that a time is based on, relative to the present one.
OPTIMISM = 1.25
# The shortest and the longest time after which to ask again, in seconds.
SHORTEST, LONGEST = 1.0, 600.0
# While the partner is down: a part of the outage so far, within these bounds in seconds.
OUTAGE_PART, SHORTEST_OUTAGE, LONGEST_OUTAGE = 0.05, 5.0, 30.0
# A delivery that was sent away keeps its place for so many seconds after the time that it was told.
KEPT = 300.0


class Admission:
    """The queue in front of one partner. It belongs to one event loop.

    Turns go by rotation to the newest delivery, to the one that has waited longest, and to those that had a turn
    already. So a single record passes ten batches, and none of 5,000 records waits for ever. A delivery that was sent
    away is ahead of newcomers when it comes back.

    The second call of a record follows the first in its place, before all others. So a call beyond what the partner
    takes at a time, with which its limit is found, is a record's first: a look-up, whose refusal leaves nothing
    uncertain.
    """

    def __init__(
        self,
        flow: Flow,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._flow = flow
        self._clock = clock
        self._random = random
        self._waiting = 0
        self._turn = 0
        # Calls that follow a record's first; deliveries that are new, that were sent away before, that had a turn.
        self._following: Queue = OrderedDict()
        self._new: Queue = OrderedDict()
        self._returned: Queue = OrderedDict()
        self._served: Queue = OrderedDict()
        # When each delivery that was sent away is expected.
        self._away: OrderedDict[str, float] = OrderedDict()
        self._next_place = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    async def enter(self, delivery: str, *, patience: float, after: CallResult | None = None) -> float:
        """Wait for a turn for one call of `delivery`, at most `patience` seconds.

        `after` is what came of the record's call before, which is left with it. Returns 0.0 if the call may start:
        `leave`, or another `enter` with `after`, must follow. Otherwise returns the seconds after which to ask again,
        and nothing is to be left.
        """
        now = self._clock()
        if after is not None:
            self._flow.leave(now, after)
        follows = after is not None
        is_first_in_line = not (self._following if follows else self._waiting)
        if is_first_in_line and self._flow.wait(now, follows=follows) == 0:
            self._flow.enter(now)
            self._away.pop(delivery, None)
            self._pump()
            return 0.0
        if patience <= 0 or (self._flow.outage(now) is not None and self._waiting >= HELD):
            self._pump()
            return self._send_away(delivery)
        loop = asyncio.get_running_loop()
        call = loop.create_future()
        queue = self._queue_of(delivery) if after is None else self._following
        queue.setdefault(delivery, []).append(call)
        self._waiting += 1
        self._disperse(now)
        timer = loop.call_later(patience, self._give_up, delivery, call)
        self._pump()
        try:
            wait: float = await call
        except asyncio.CancelledError:
            if call.cancelled():
                self._remove(delivery, call)
            elif call.result() == 0:
                self.leave(CallResult(0.0, is_about_partner=False))
            raise
        finally:
            timer.cancel()
        return wait

    def leave(self, result: CallResult) -> None:
        """Take in what came of a call, and give turns to those who wait."""
        self._flow.leave(self._clock(), result)
        self._pump()

    def snapshot(self) -> Snapshot:
        """Return the state of the flow and the number of calls that wait."""
        return self._flow.snapshot(self._clock(), self._waiting)

    def _queue_of(self, delivery: str) -> Queue:
        """Return the queue that a delivery is in, or belongs in."""
        for queue in (self._served, self._returned, self._new):
            if delivery in queue:
                return queue
        return self._new if self._away.pop(delivery, None) is None else self._returned

    def _remove(self, delivery: str, call: asyncio.Future[float]) -> None:
        for queue in (self._following, self._served, self._returned, self._new):
            if call in queue.get(delivery, ()):
                queue[delivery].remove(call)
                self._waiting -= 1
                if not queue[delivery]:
                    del queue[delivery]

    def _give_up(self, delivery: str, call: asyncio.Future[float]) -> None:
        if not call.done():
            self._remove(delivery, call)
            call.set_result(self._send_away(delivery))

    def _disperse(self, now: float) -> None:
        """Send the new deliveries away that have waited longest, where there are too many: each gets a place."""
        most = max(FEWEST, CROWD * self._flow.pace / CALLS) if self._flow.outage(now) is None else HELD
        while len(self._new) > most:
            delivery, calls = self._new.popitem(last=False)
            self._waiting -= len(calls)
            wait = self._send_away(delivery)
            for call in calls:
                call.set_result(wait)

    def _pump(self) -> None:
        """Give turns until the flow says stop, and come again when it says so."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            now = self._clock()
            wait = self._flow.wait(now, follows=bool(self._following))
            if wait > 0:
                if wait < math.inf:
                    self._timer = asyncio.get_running_loop().call_later(wait, self._pump)
                return
            self._flow.enter(now)
            self._next().set_result(0.0)

    def _next(self) -> asyncio.Future[float]:
        """Take the call whose turn it is out of its queue."""
        self._waiting -= 1
        queue, is_newest = self._following, False
        if not queue:
            self._turn = (self._turn + 1) % 3
            orders = (
                (self._new, self._returned, self._served),
                (self._returned, self._new, self._served),
                (self._served, self._new, self._returned),
            )
            queue = next(queue for queue in orders[self._turn] if queue)
            is_newest = queue is self._new and self._turn != 1
        delivery, calls = queue.popitem(last=is_newest)
        call = calls.pop(0)
        if calls:
            (queue if queue is self._following else self._served)[delivery] = calls
        return call

    def _send_away(self, delivery: str) -> float:
        now = self._clock()
        expected = self._away.pop(delivery, now)
        outage = self._flow.outage(now)
        if outage is not None:
            wait = min(max(outage * OUTAGE_PART, SHORTEST_OUTAGE), LONGEST_OUTAGE) * (0.75 + 0.25 * self._random())
        elif expected > now:
            # One more call of a delivery that has a place.
            wait = expected - now
        else:
            # Too early is better than too late: who comes early can wait here. And no later than all who are known
            # could be through: the pace may have risen since.
            turn = CALLS / (OPTIMISM * self._flow.pace)
            last = now + (self._waiting + len(self._away)) * turn
            self._next_place = min(max(self._next_place, now), last) + turn
            wait = min(self._next_place - now, LONGEST) * (0.9 + 0.2 * self._random())
        wait = max(wait, SHORTEST)
        self._away[delivery] = now + wait
        while next(iter(self._away.values())) + KEPT < now:
            self._away.popitem(last=False)
        return wait
