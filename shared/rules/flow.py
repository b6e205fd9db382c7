"""Decides when the next call to a partner may start: as fast as the partner allows, and no faster.

A limiter of rate and concurrency for one partner in one process. It has no clock and does no I/O: `now` (monotonic
seconds) is an argument everywhere. docs/flow.md explains the algorithm and its constants.
"""

from __future__ import annotations

import math
import random as random_module
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

from shared.rules.flow_limits import FEW, FEWEST, ConcurrencyLimit, RateLimit
from shared.rules.rate_limit import Quota, read_quota

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A partner that has not answered for so many seconds, or four times its latency, is asked by few.
TRUST = 2.0
# So many calls without a success, and none under way, mean that the partner is down.
FAILURES = 5
# Calls under way hold back that verdict for so many seconds, or four times the latency.
DOUBT = 1.0
# Seconds between probes: they grow from the first to the second, stay there for a minute, then grow to the last.
FIRST_PROBE, PROBE, LAST_PROBE = 0.5, 3.4, 30.0
# Pushback on so many of the recent calls is about the partner; less is about single records.
# Soon after a cut it takes more.
PUSHBACK, MORE_PUSHBACK, RECENT = 2, 5, 30
# The longest pause that a Retry-After imposes on all calls, and the one without it, in seconds.
LONGEST_PAUSE, PAUSE = 30.0, 0.5
# Seconds of unused turns that may be made up for.
CREDIT = 0.01
# A quota is spread over this part of its time, and at most over so many seconds.
SPREAD, LONGEST_SPREAD = 1 / 3, 10.0
# The headers of every so many responses are read until they name a quota.
READ_EVERY = 16
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
    the limit has changed noticeably. `random` returns numbers from 0 to 1.
    """

    def __init__(
        self,
        *,
        rate: float | None = None,
        most: int = 64,
        on_change: Callable[[Snapshot], None] | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._bound = math.inf if rate is None else rate
        self._on_change = on_change
        self._random = random
        self._now = -math.inf
        self.in_flight = 0
        self._rate = RateLimit()
        self._concurrency = ConcurrencyLimit(max(1, most))
        self._turn_at = self._paused_until = -math.inf
        self._needed_at = -math.inf
        # Recent calls that were sent after the last cut: whether each was pushed back.
        self._recent: deque[bool] = deque()
        self._pushbacks = 0
        self._cut_at = -math.inf
        self._quota: Quota | None = None
        self._left, self._quota_until, self._quota_probe_at = math.inf, -math.inf, -math.inf
        self._quota_rate = math.inf
        self._quota_sent_at = -math.inf
        self._unread = 0
        self._failures = 0
        self._succeeded_at = -math.inf
        self._doubted_until = -math.inf
        self._down_since: float | None = None
        self._is_down_by_pushback = False
        self._probe_at = -math.inf
        self._metered_from, self._metered, self._measured = -math.inf, 0, 0.0
        self._reported: tuple[str, float | None] = ("open", None)
        self._report_at = -math.inf

    def wait(self, now: float) -> float:
        """Return 0.0 if a call may start now, else the seconds until that may be so; infinity: after a `leave`."""
        now = self._advance(now)
        if self._failures >= FAILURES:
            if self._down_since is None:
                if now < self._doubted_until:
                    return self._doubted_until - now
                self._go_down(now)
            return max(0.0, self._probe_at - now)
        room = self._concurrency.room
        if now - self._succeeded_at > max(TRUST, 4 * self._concurrency.latency):
            room = min(room, FEW - self._failures)
        if self.in_flight >= room:
            self._concurrency.full_at = now
            return math.inf
        wait = max(self._turn_at, self._paused_until) - now
        if self._quota is not None:
            wait = max(wait, self._quota_wait(now, self._quota))
        if wait <= 0:
            return 0.0
        self._needed_at = now
        return wait

    def enter(self, now: float) -> None:
        """Count a call that starts."""
        now = self._advance(now)
        self.in_flight += 1
        self._left -= 1
        if self._down_since is not None:
            self._probe_at = now + self._probe_pause(now)
        rate = min(self._rate.rate, self._bound, self._quota_rate)
        if rate < math.inf:
            self._turn_at = max(self._turn_at, now - CREDIT) + 1 / rate

    def leave(self, now: float, result: CallResult) -> None:
        """Take in what came of a call."""
        now = self._advance(now)
        level, self.in_flight = self.in_flight, max(0, self.in_flight - 1)
        if not result.is_about_partner:
            return
        seconds = result.seconds if 0 <= result.seconds < math.inf else 0.0
        # A call that was sent before the last cut cannot know of it.
        is_recent = now - seconds >= self._cut_at
        if result.is_failure:
            self._fail(now, level, result, is_recent=is_recent)
        else:
            self._succeed(now, level, seconds)
            if is_recent:
                self._remember(is_pushback=False)
            # Partners that name a quota do so in each response: reading headers in vain would double the cost of a call.
            self._unread = (self._unread + 1) % READ_EVERY
            if self._unread == 1 or self._quota is not None:
                self._believe(now, now - seconds, result.headers)
        if now >= self._report_at:
            self._report(now)

    def pace(self, now: float) -> float:
        """Return the calls per second that are likely to start in the near future, at least one in `LAST_PROBE` s."""
        now = self._advance(now)
        if self._down_since is not None:
            return 1 / self._probe_pause(now)
        pace = min(self._rate.rate, self._bound, self._quota_rate)
        if self._concurrency.latency:
            pace = min(pace, self._concurrency.room / self._concurrency.latency)
        return max(min(pace, 1e6), 1 / LAST_PROBE)

    def outage(self, now: float) -> float | None:
        """Return the seconds since the partner was found to be down, None if it is not."""
        return None if self._down_since is None else self._advance(now) - self._down_since

    def snapshot(self, now: float, waiting: int = 0) -> Snapshot:
        """Return the state for metrics, the custom status and the console."""
        self._meter(self._advance(now), 0)
        limits = [self._rate.limit] if self._rate.limit is not None else []
        if self._concurrency.is_found and self._concurrency.latency:
            limits.append(self._concurrency.room / self._concurrency.latency)
        if self._quota is not None and self._quota.limit and self._quota.window:
            limits.append(self._quota.limit / self._quota.window)
        is_down = self._down_since is not None and not self._is_down_by_pushback
        return {
            "state": "down" if is_down else "limited" if limits or self._down_since is not None else "open",
            "limit": min(limits, default=None),
            "rate": self._measured,
            "in_flight": self.in_flight,
            "waiting": waiting,
        }

    def _advance(self, now: float) -> float:
        """Return a time that never goes back."""
        self._now = max(self._now, now)
        return self._now

    def _succeed(self, now: float, level: int, seconds: float) -> None:
        self._failures = 0
        if self._down_since is not None:
            self._down_since = None
            self._concurrency.restart()
            self._recent.clear()
            self._pushbacks = 0
            if not self._is_down_by_pushback:
                self._rate.restart(now)
        self._succeeded_at = now
        self._rate.succeed(now, self._needed_at)
        self._concurrency.succeed(now, level, seconds)
        self._meter(now, 1)

    def _fail(self, now: float, level: int, result: CallResult, *, is_recent: bool) -> None:
        pause = 0.0
        if result.is_pushback:
            pause = min(result.retry_after or 0.0, LONGEST_PAUSE) if (result.retry_after or 0.0) > 0 else 0.0
        self._failures += 1
        if self._down_since is not None:
            if self._is_down_by_pushback != result.is_pushback:
                # Another kind of trouble: its time begins now.
                self._is_down_by_pushback = result.is_pushback
                self._go_down(now)
            if pause:
                self._probe_at = now + pause
            return
        if self._failures == FAILURES:
            self._doubted_until = now + max(DOUBT, 4 * self._concurrency.latency)
        if result.status in {429, 503}:
            is_crowded = level >= self._concurrency.room
            if is_crowded:
                # Where only few are in flight, 429 is not for their number.
                self._concurrency.narrow(now, max(self.in_flight, FEWEST if result.status == 429 else 1))  # noqa: PLR2004
            if is_recent and not (is_crowded and result.status == 503):  # noqa: PLR2004
                self._remember(is_pushback=True)
                if result.is_pushback and self._is_about_all():
                    self._cut(now, pause)
        if self._failures >= FAILURES and not self.in_flight:
            self._is_down_by_pushback = result.is_pushback
            self._go_down(now)
            self._probe_at = max(self._probe_at, self._paused_until)

    def _cut(self, now: float, pause: float) -> None:
        limit, is_measured = self._rate.limit, self._rate.is_measured(now)
        is_closed = self._pushbacks == len(self._recent)
        pause = max(pause, PAUSE)
        if limit is None or is_measured or not is_closed:
            self._rate.cut(now, 1 - self._pushbacks / len(self._recent), pause)
        # Otherwise the partner takes nothing for a time, which says little about its rate. The next cut knows more.
        if limit is not None and self._rate.limit and (is_measured or not is_closed):
            # Some allowance in store evens out the jitter of the network.
            pause = CREDIT + 2 / self._rate.limit
        self._paused_until = now + pause
        self._turn_at = -math.inf
        self._cut_at = now
        self._recent.clear()
        self._pushbacks = 0

    def _is_about_all(self) -> bool:
        """Return whether recent pushback is about the partner, not about single records."""
        limit = self._rate.limit
        if limit is not None and not self._rate.is_measured(self._now):
            # Too little is known since the last cut: it takes more proof.
            return self._pushbacks >= MORE_PUSHBACK
        if limit is not None and self._rate.rate > limit:
            # This was a try to exceed the limit.
            return True
        return self._pushbacks >= PUSHBACK and self._rate.has_successes

    def _remember(self, *, is_pushback: bool) -> None:
        self._recent.append(is_pushback)
        self._pushbacks += is_pushback
        if len(self._recent) > RECENT:
            self._pushbacks -= self._recent.popleft()

    def _go_down(self, now: float) -> None:
        self._down_since = now
        self._probe_at = now + self._probe_pause(now)

    def _probe_pause(self, now: float) -> float:
        age = now - self._down_since if self._down_since is not None else 0.0
        if self._is_down_by_pushback:
            pause = min(max(age / 8, FIRST_PROBE), LAST_PROBE)
        else:
            pause = min(max(0.8 * age, FIRST_PROBE), max(PROBE, age / 25), LAST_PROBE)
        return pause * (0.9 + 0.2 * self._random())

    def _believe(self, now: float, sent_at: float, headers: Mapping[str, str]) -> None:
        # Responses overtake each other: the call that was sent last knows most.
        if sent_at >= self._quota_sent_at and (quota := read_quota(headers)) is not None:
            self._quota_sent_at = sent_at
            self._set_quota(now, quota, quota.remaining - self.in_flight)

    def _set_quota(self, now: float, quota: Quota, left: float) -> None:
        self._quota, self._left = quota, left
        self._quota_until = now + quota.seconds
        self._quota_probe_at = now + LONGEST_PAUSE
        self._quota_rate = max(left, 1) / (min(max(quota.seconds, 1.0), LONGEST_SPREAD) * SPREAD)

    def _quota_wait(self, now: float, quota: Quota) -> float:
        if now >= self._quota_until:
            if quota.limit:
                self._set_quota(now, Quota(quota.limit, quota.window or 1.0, quota.limit, quota.window), quota.limit)
            else:
                self._quota, self._left, self._quota_rate = None, math.inf, math.inf
        elif self._left < 1:
            if now < self._quota_probe_at:
                return min(self._quota_until, self._quota_probe_at) - now
            self._left, self._quota_probe_at = 1.0, now + LONGEST_PAUSE
        return 0.0

    def _meter(self, now: float, calls: int) -> None:
        self._metered += calls
        if now - self._metered_from >= 1:
            self._measured = self._metered / min(now - self._metered_from, 1e9)
            self._metered_from, self._metered = now, 0

    def _report(self, now: float) -> None:
        self._report_at = now + 1
        snapshot = self.snapshot(now)
        state, limit = self._reported
        is_same = state == snapshot["state"] and (limit is None) == (snapshot["limit"] is None)
        if is_same and (limit is None or limit / CHANGE < (snapshot["limit"] or 0) < limit * CHANGE):
            return
        self._reported = snapshot["state"], snapshot["limit"]
        self._report_at = now + REPORT
        if self._on_change is not None:
            self._on_change(snapshot)
