"""Decides when the next call to a partner may start: as fast as the partner allows, and no faster.

A limiter of rate and concurrency for one partner in one process. It has no clock and does no I/O: `now` (monotonic
seconds) is an argument everywhere. docs/flow.md explains the algorithm and its constants.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

from shared.rules.flow_limits import FEW, ConcurrencyLimit, Outage, RateLimit
from shared.rules.rate_limit import QuotaLimit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A partner that has not answered for so many seconds, or four times its latency, is asked by few.
TRUST = 2.0
# Pushback on several of so many calls is about the partner; on fewer, it is about single records.
RECENT = 30
# The longest pause that a Retry-After imposes on all calls, the longest while other calls succeed, and the one without
# it, in seconds.
LONGEST_PAUSE, DOUBTED_PAUSE, PAUSE = 30.0, 1.0, 0.5
# Seconds of unused turns that may be made up for: a busy event loop comes late to a turn.
CREDIT = 0.05
# Seconds between two reports of a changed limit, and the factor that makes a change worth one.
REPORT, CHANGE = 5.0, 1.1


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of one call.

    `seconds` passed from sending to the whole response. `status` is None where there was none. `headers` is
    case-insensitive, or has names in lower case. `is_about_partner` is False where the partner was not asked, for
    example because no access token could be had.
    """

    seconds: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: float | None = None
    is_about_partner: bool = True

    @property
    def is_pushback(self) -> bool:
        """Whether the partner asks for fewer calls: RFC 6585 section 4, RFC 9110 section 15.6.4."""
        return self.status == 429 or (self.status == 503 and self.retry_after is not None)  # noqa: PLR2004

    @property
    def is_failure(self) -> bool:
        """Whether the partner did not do what it was asked, for reasons of its own."""
        return self.status is None or self.status == 429 or self.status >= 500  # noqa: PLR2004


class Snapshot(TypedDict):
    """The state of the flow to one partner. `limit` and `rate` are calls per second, `limit` None while unlimited."""

    state: Literal["open", "limited", "down"]
    limit: float | None
    rate: float
    in_flight: int
    waiting: int


class Flow:
    """The limiter. `enter` when `wait` is 0.0, and `leave` when the call is over.

    `rate` is an upper bound in calls per second, `most` one of calls in flight. `on_change` receives a snapshot when
    the limit has changed noticeably.
    """

    def __init__(
        self, *, rate: float | None = None, most: int = 64, on_change: Callable[[Snapshot], None] | None = None
    ) -> None:
        self._bound = math.inf if rate is None else rate
        self._on_change = on_change
        self.in_flight = 0
        self._rate = RateLimit()
        self._concurrency = ConcurrencyLimit(max(1, most))
        self._quota = QuotaLimit()
        self._outage = Outage()
        # When the next call may start, and when one last had to wait for that.
        self._turn_at = self._needed_at = -math.inf
        # Recent calls that were sent after the last cut: whether each was pushed back.
        self._recent: deque[bool] = deque(maxlen=RECENT)
        self._cut_at = self._succeeded_at = -math.inf
        # When a call was pushed back last, and whether one that was sent later has succeeded.
        self._pushed_at, self._is_doubted = math.inf, False
        self._metered_from, self._metered, self._measured = -math.inf, 0, 0.0
        self._reported: tuple[str, float | None] = ("open", None)
        self._report_at = -math.inf

    def wait(self, now: float, *, follows: bool = False) -> float:
        """Return 0.0 if a call may start now, else the seconds until that may be so; infinity: after a `leave`.

        A call that `follows` another of its record never tries how many calls the partner takes at a time.
        """
        if (wait := self._outage.wait(now)) is not None:
            return wait
        room = self._concurrency.room
        if room <= FEW or now - self._succeeded_at > max(TRUST, 4 * self._concurrency.latency):
            room = max(1, min(room, FEW) - self._outage.failures)
        if self.in_flight >= room:
            self._concurrency.full_at = now
            return math.inf
        if follows and self.in_flight >= self._concurrency.firm:
            return math.inf
        wait = max(self._turn_at - now, self._quota.wait(now))
        if wait <= 0:
            return 0.0
        self._needed_at = now
        return wait

    def enter(self, now: float) -> None:
        """Count a call that starts."""
        self.in_flight += 1
        self._quota.enter()
        self._outage.enter(now)
        rate = min(self._rate.rate, self._bound, self._quota.rate)
        if rate < math.inf:
            self._turn_at = max(self._turn_at, now - CREDIT) + 1 / rate

    def leave(self, now: float, result: CallResult) -> None:
        """Take in what came of a call."""
        level, self.in_flight = self.in_flight, self.in_flight - 1
        if not result.is_about_partner:
            return
        if result.is_failure:
            self._fail(now, level, result)
        else:
            self._succeed(now, level, result)
        if now - self._metered_from >= 1:
            self._report(now)

    @property
    def pace(self) -> float:
        """The calls per second that are likely to start in the near future, more than 0, while the partner is up."""
        pace = min(self._rate.soon, self._bound, self._quota.rate)
        latency = self._concurrency.latency
        return min(pace, self._concurrency.room / latency) if latency else pace

    def outage(self, now: float) -> float | None:
        """Return the seconds since the partner was found to be down, None if it is not."""
        return None if self._outage.since is None else now - self._outage.since

    def snapshot(self, now: float, waiting: int = 0) -> Snapshot:
        """Return the state for metrics, the custom status and the console."""
        limits = [] if self._rate.limit is None else [self._rate.limit]
        if self._concurrency.is_found and self._concurrency.latency:
            limits.append(self._concurrency.room / self._concurrency.latency)
        quota = self._quota.quota
        if quota is not None and quota.limit and quota.window:
            limits.append(quota.limit / quota.window)
        is_closed = self._outage.since is not None
        is_down = is_closed and not self._outage.is_pushback
        is_idle = now - self._metered_from > 2  # noqa: PLR2004, a second is measured, and the next one not yet
        return {
            "state": "down" if is_down else "limited" if limits or is_closed else "open",
            "limit": min(limits, default=None),
            "rate": 0.0 if is_idle else self._measured,
            "in_flight": self.in_flight,
            "waiting": waiting,
        }

    def _succeed(self, now: float, level: int, result: CallResult) -> None:
        sent_at = now - result.seconds
        if (down_since := self._outage.succeed()) is not None:
            self._concurrency.restart()
            self._recent.clear()
            if self._outage.is_pushback:
                self._rate.resume(now, down_since)
            else:
                self._rate.restart(now)
        if sent_at >= self._cut_at:
            self._recent.append(False)
        self._is_doubted = self._is_doubted or sent_at > self._pushed_at
        self._succeeded_at = now
        self._rate.succeed(now, self._needed_at)
        self._concurrency.succeed(now, level, result.seconds)
        self._metered += 1
        if result.headers:
            self._quota.read(now, sent_at, result.headers, self.in_flight)

    def _fail(self, now: float, level: int, result: CallResult) -> None:
        pause = min(result.retry_after or 0.0, LONGEST_PAUSE) if result.is_pushback else 0.0
        if self._outage.since is None and result.status in {429, 503}:
            concurrency, sent_at = self._concurrency, now - result.seconds
            # Of a call that was alone, and of few where 429 is said, their number is not the cause.
            is_crowded = level >= concurrency.firm and level > 1
            if is_crowded:
                least = concurrency.firm if concurrency.firm < concurrency.room else 3 if result.status == 429 else 1  # noqa: PLR2004
                concurrency.refuse(now, sent_at, max(self.in_flight, least))
            # A call that was sent before the last cut cannot know of it.
            if sent_at >= self._cut_at and not (is_crowded and result.status == 503):  # noqa: PLR2004
                self._recent.append(True)
                if result.is_pushback and sum(self._recent) >= self._rate.proof(now):
                    self._cut(now, min(pause, DOUBTED_PAUSE) if self._is_doubted else pause)
                self._pushed_at, self._is_doubted = now, False
        self._outage.fail(now, self.in_flight, self._concurrency.latency, result.status, pause)
        self._outage.is_pushback = result.is_pushback

    def _cut(self, now: float, pause: float) -> None:
        is_first = self._rate.limit is None
        pause = max(pause, PAUSE)
        limit = self._rate.cut(now, pause)
        # Later on, some allowance in store evens out the jitter of the network.
        self._turn_at = now + (pause if is_first else CREDIT + 2 / limit)
        self._cut_at = now
        self._recent.clear()

    def _report(self, now: float) -> None:
        """Measure the rate once a second, and tell of a limit that has changed."""
        self._measured = self._metered / (now - self._metered_from)
        self._metered_from, self._metered = now, 0
        snapshot = self.snapshot(now)
        (state, limit), new = self._reported, snapshot["limit"]
        is_near = limit == new or (limit and new and limit / CHANGE < new < limit * CHANGE)
        if now < self._report_at or (state == snapshot["state"] and is_near):
            return
        self._reported, self._report_at = (snapshot["state"], new), now + REPORT
        if self._on_change is not None:
            self._on_change(snapshot)
