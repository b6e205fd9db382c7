"""Find the limits of a partner: calls per second, calls in flight, whether it is down. docs/flow.md explains how."""

from __future__ import annotations

import math
from collections import deque

# The limiter never goes below this rate, in calls per second.
SLOWEST = 0.1
# A rate is measured after so many successes, if their number times their seconds is so much; before, it is guessed.
ENOUGH, LONG_ENOUGH = 5, 12
# A guessed rate doubles in so many seconds, and the first that was measured, which is too low after a low guess.
GUESS_DOUBLING, ROUGH_DOUBLING = 1.0, 3.0
# A measured rate starts just below the limit and reaches it after so many seconds. Then it grows with the cube of time.
BELOW, PLATEAU, GROWTH = 0.96, 4.0, 0.009
# Beside that it grows by this times the root of the limit, each second: the smaller of two shares catches up.
SHARE = 0.1
# Below this rate, time counts in proportion: few calls a second tell little.
UNHURRIED = 10.0
# A limit that is exceeded by this factor without pushback is forgotten.
FORGOTTEN = 16.0
# What was counted more than so many seconds ago weighs half.
HALF_LIFE = 5.0

# Calls in flight before anything is known, and the fewest that latency alone leaves.
FEW = 5
# The seconds and the calls between two attempts to exceed a ceiling, at first, and the longest time between them, in
# seconds.
PROBE_SECONDS, PROBE_CALLS, LONGEST_PROBE = 1.0, 100, 8.0
# After so many refusals that were no attempts to exceed a ceiling, fewer than MANY of them in LATEST calls, the partner
# may refuse calls whatever their number. So for OPEN seconds more and more go, until many are refused. In that case
# refusals are about the number for a second, and each further time for twice as long, up to the longest.
LONE, MANY, LATEST = 4, 10, 40
OPEN, FIRST_DOUBT, LONGEST_DOUBT = 30.0, 1.0, 16.0
# Latency above twice the lowest, and above it by so many seconds, may be a queue at the partner.
QUEUE = 0.1
# Latency is compared over so many seconds and calls.
EPOCH, EPOCH_CALLS = 0.5, 10

# So many calls without a success, and none under way, mean that the partner is down.
FAILURES = 5
# Calls under way hold back that verdict for so many seconds, or four times the latency.
DOUBT = 1.0
# Seconds between probes: they double from the first to the second, stay there for a minute, then grow to the last.
FIRST_PROBE, PROBE, LAST_PROBE = 1.0, 3.4, 30.0
# A partner that answers may be about to recover: so many probes follow so soon after the answer, and one more for so
# many successes.
QUICK_PROBES, QUICK_PROBE, EARNED = 30, 0.1, 10


class RateLimit:
    """Finds the rate at which pushback begins.

    Each pushback marks a moment at which the partner's allowance was used up. The successes between two such moments,
    divided by the time, are the rate at which the allowance grows, or this process's share of it.
    """

    def __init__(self) -> None:
        self.limit: float | None = None
        self.rate = math.inf
        self._doubling = 0.0
        self._grown, self._halve_at = 0.0, 2.0
        self._seen_at = self._since = -math.inf
        self._successes = 0.0
        self._is_scarce, self._resumed_at = False, -math.inf

    def restart(self, now: float) -> None:
        """Count anew: what was counted before was not limited by the rate."""
        self._since, self._successes, self._is_scarce = now, 0.0, False

    def resume(self, now: float, since: float) -> None:
        """Take in that the partner accepts calls again, after it has pushed all back since the time `since`.

        Where there was only a handful of successes since the time before, these were all that it had to give.
        """
        if self.limit is None:
            self._is_scarce = 0 < self._successes < ENOUGH and self._since == self._resumed_at
            self._since, self._successes, self._seen_at = since if self._is_scarce else now, 0.0, now
            self._resumed_at = self._since

    @property
    def soon(self) -> float:
        """The rate that can be expected within a few seconds."""
        return 4 * self.rate if self._doubling == GUESS_DOUBLING else self.rate

    def succeed(self, now: float, needed_at: float) -> None:
        """Count a success. `needed_at` is when a call last had to wait for the rate."""
        passed, self._seen_at = now - self._seen_at, now
        if self.limit is None:
            if passed > HALF_LIFE:
                self.restart(now)
            elif now - self._since > HALF_LIFE and not self._is_scarce:
                self._halve(now)
            self._successes += 1
            return
        self._successes += 1
        if now - needed_at > max(1.0, 3 / self.rate):
            # Fewer calls than the rate allows say nothing about a higher one.
            self.restart(now)
            return
        self._grown += min(passed, max(0.25, 1.5 / self.rate)) * min(self.rate / UNHURRIED, 1.0)
        growth = _growth(self._grown, self._doubling)
        self.rate = self.limit * growth + SHARE * math.sqrt(self.limit) * self._grown
        if growth > self._halve_at:
            # The partner allows more: what was counted at a lower rate weighs half.
            self._halve_at = 2 * growth
            self._halve(now)
        if growth > FORGOTTEN:
            self.limit, self.rate = None, math.inf

    def proof(self, now: float) -> float:
        """Return how many of the recent calls must be pushed back before the rate is to blame."""
        if self.limit is None:
            is_known = (self._successes >= ENOUGH or self._is_scarce) and now - self._seen_at <= HALF_LIFE
            return 2 if is_known else math.inf
        if not self._is_measured(now):
            return 3
        # One is enough where this was a try to exceed the limit.
        return 1 if self.rate > self.limit else 2

    def cut(self, now: float, pause: float) -> float:
        """Lower the rate after pushback, which a pause of so many seconds follows. Return the limit."""
        is_first = self.limit is None
        is_measured = is_first or self._is_measured(now)
        if is_first:
            # A burst was accepted on credit: the time to earn it back counts.
            limit, self._doubling = self._successes / (now - self._since + pause), GUESS_DOUBLING
        elif is_measured:
            limit = min(self._successes / (now - self._since), self.rate)
            self._doubling = ROUGH_DOUBLING if self._doubling == GUESS_DOUBLING else 0.0
        else:
            # Too little was counted since the last cut: go on counting, at a lower rate.
            limit = 0.75 * self.rate
        self.limit = max(limit, SLOWEST)
        self.rate = self.limit * (BELOW if is_measured and not self._doubling else 1.0)
        self._grown, self._halve_at = 0.0, 2.0
        if is_measured:
            # In a long pause nothing can succeed.
            self.restart(now + max(0.0, pause - 1) if is_first else now)
        return self.limit

    def _is_measured(self, now: float) -> bool:
        return self._successes >= ENOUGH and self._successes * (now - self._since) >= LONG_ENOUGH

    def _halve(self, now: float) -> None:
        self._since, self._successes = (now + self._since) / 2, self._successes / 2


def _growth(seconds: float, doubling: float) -> float:
    if doubling:
        return 2 ** (seconds / doubling)
    if seconds <= PLATEAU:
        return BELOW + (1 - BELOW) * seconds / PLATEAU
    return 1 + GROWTH * (seconds - PLATEAU) ** 3


class ConcurrencyLimit:
    """Finds how many calls may be in flight, at most `most`.

    It doubles with each round trip until the partner refuses calls because of their number, or until more of them only
    wait longer. Then it stays just below, and tries one more from time to time: of the `room`, a part is `firm`, and
    the rest is for calls whose refusal does no harm.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.room = self.firm = min(FEW, most)
        self.is_found = False
        self.latency = 0.0
        self.full_at = -math.inf  # when a call last found no room
        self._step, self._trust = 1, PROBE_SECONDS
        self._widen_at = -math.inf
        self._lowest = math.inf
        self._epoch_at, self._calls, self._seconds, self._peak = -math.inf, 0, 0.0, 0
        self._epoch_room = self._steady = 0  # the room of the last epoch, and for how many it has not changed
        self._trial: tuple[float, int] | None = None
        # Whether each of the latest calls was refused, and how many lone refusals there were.
        self._refused: deque[bool] = deque(maxlen=LATEST)
        self._lone, self._narrowed_at = 0, -math.inf
        self._open_until = self._doubted_until = -math.inf
        self._doubt = FIRST_DOUBT

    def restart(self) -> None:
        """Begin again with few calls."""
        self.room = self.firm = min(FEW, self.room)
        self.is_found = False
        self._refused.clear()
        self._lone = 0

    def succeed(self, now: float, level: int, seconds: float) -> None:
        """Take in a success that took `seconds`, with `level` calls in flight, itself included."""
        self.latency += (seconds - self.latency) * (0.1 if self.latency else 1.0)
        self._refused.append(False)
        self._calls += 1
        self._seconds += seconds
        self._peak = max(self._peak, level)
        if now >= self._epoch_at and self._calls >= EPOCH_CALLS:
            self._compare(now, level)
        if now - seconds > self.full_at or now < self._widen_at:
            return
        self.firm = self.room
        if not self.is_found:
            self.room = self.firm = min(self.room + 1, self._most)
        elif self.room < self._most:
            self.room = min(self.room + self._step, self._most)
            self._step *= 2
            self._widen_at = now + min(max(0.2, 3 * self.latency), 1.0)
        else:
            self.is_found = False

    def refuse(self, now: float, sent_at: float, room: int) -> None:
        """Take in that a call in full flight was refused, which leaves `room` where their number is the cause."""
        self._refused.append(True)
        are_many, is_open = sum(self._refused) >= MANY, now < self._open_until
        if is_open and not are_many:
            if now - (self._open_until - OPEN) > LONGEST_DOUBT:
                self._doubt = FIRST_DOUBT
            return
        if is_open:
            self._open_until, self._doubted_until = now, now + self._doubt
            self._doubt = min(2 * self._doubt, LONGEST_DOUBT)
        if self.firm < self.room or are_many:
            self._lone = 0
        elif sent_at > self._narrowed_at:
            self._lone += 1
        self.narrow(now, room)
        if self._lone >= LONE and now >= self._doubted_until:
            self._lone, self._open_until, self.is_found = 0, now + OPEN, False
            self._widen_at = now

    def narrow(self, now: float, room: int) -> None:
        """Leave room for so many calls: one more was refused."""
        room = max(1, room)
        self._narrowed_at = now
        # As often as the same limit has been found, so much longer it is trusted.
        self._trust = min(2 * self._trust, LONGEST_PROBE) if room == self.firm < self.room else PROBE_SECONDS
        self.room = self.firm = room
        self.is_found, self._step = True, 1
        pause = max(self._trust, PROBE_CALLS * self.latency / self.room)
        self._widen_at = now + min(pause, LONGEST_PROBE)

    def _compare(self, now: float, level: int) -> None:
        """See whether fewer calls are faster, where latency has risen."""
        mean, peak = self._seconds / self._calls, self._peak
        self._epoch_at, self._calls, self._seconds, self._peak = now + max(EPOCH, 3 * mean), 0, 0.0, 0
        # Room that nobody needs would be filled when the partner falls silent.
        self.room = min(self.room, max(2 * peak, FEW))
        self.firm = min(self.firm, self.room)
        self._steady = self._steady + 1 if self.room == self._epoch_room else 0
        self._epoch_room = self.room
        if self._trial is not None:
            (before, room), self._trial = self._trial, None
            if mean > 0.93 * before:
                # Fewer calls did not make it faster: it is slow, not crowded.
                self._lowest = mean
                self.room = self.firm = max(self.room, room)
                return
        self._lowest = min(self._lowest, mean)
        if self._steady > 1 and mean > 2 * self._lowest + QUEUE and level > FEW and level >= 0.8 * self.room:
            self._trial = mean, self.room
            self.narrow(now, max(FEW, self.room * 4 // 5))
            self._epoch_room = self.room
            self._widen_at = max(self._widen_at, now + 3 * mean + LONGEST_PROBE)


class Outage:
    """Tells when the partner is down, and when to probe it."""

    def __init__(self) -> None:
        self.failures = 0
        self.since: float | None = None
        self.is_pushback = False  # it refuses all calls, which is not an outage
        self._quick: float = QUICK_PROBES
        self._doubted_until = self._probe_at = -math.inf

    def succeed(self) -> float | None:
        """Take in a success. Return since when the partner was down, None if it was not."""
        since, self.failures, self.since = self.since, 0, None
        # Who refuses most calls does not get many quick ones again and again.
        self._quick = min(self._quick + 1 / EARNED, QUICK_PROBES)
        return since

    def fail(self, now: float, in_flight: int, latency: float, status: int | None, pause: float) -> None:
        """Take in a failure, with `in_flight` calls still under way. `pause` is what it asks for, in seconds."""
        self.failures += 1
        if self.failures == FAILURES:
            self._doubted_until = now + max(DOUBT, 4 * latency)
        if self.since is None:
            if self.failures < FAILURES or in_flight:
                return
            self._begin(now)
        if pause:
            self._probe_at = max(self._probe_at, now + pause)
        elif status is not None and self._quick >= 1:
            self._quick -= 1
            self._probe_at = now + QUICK_PROBE

    def wait(self, now: float) -> float | None:
        """Return the seconds until a call may find out how the partner is, None where it is not in doubt."""
        if self.failures < FAILURES:
            return None
        if self.since is None:
            if now < self._doubted_until:
                return self._doubted_until - now
            self._begin(now)
        return max(0.0, self._probe_at - now)

    def enter(self, now: float) -> None:
        """Note that a call is sent, which is a probe while the partner is down."""
        if self.since is not None:
            age = now - self.since
            self._probe_at = now + min(max(age, FIRST_PROBE), max(PROBE, age / 25), LAST_PROBE)

    def _begin(self, now: float) -> None:
        self.since = now
        self._probe_at = now + FIRST_PROBE
