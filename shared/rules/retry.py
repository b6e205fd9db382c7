"""How long a deferred delivery waits before its next attempt. Pure: the same arguments give the same wait."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY = 86_400.0
# Seconds: no setting and no orchestration's input asks for more.
MAX_DEADLINE, MAX_WAIT = 365 * DAY, DAY


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. All are seconds; `deadline` counts from the delivery's start."""

    deadline: float = DAY
    first: float = 1.0
    max: float = 300.0

    @classmethod
    def from_json(cls, policy: Mapping[str, float]) -> RetryPolicy:
        """Read what `to_json` wrote; what is missing has its default."""
        return cls(**{name: policy[name] for name in cls.__slots__ if name in policy})

    def to_json(self) -> dict[str, float]:
        """Give a plain object for a durable boundary."""
        return asdict(self)


def retry_wait(policy: RetryPolicy, attempt: int, seed: str, retry_after: float | None = None) -> float:
    """Give the seconds to wait after the `attempt`-th attempt (from 1) was deferred.

    Between `policy.first` and `policy.max`: each step draws from twice the range of the one before, [first, 2 first],
    [2 first, 4 first] up to [max / 2, max]. The draw is derived from `seed` and the attempt, so that a replay waits as
    long as the first time. `retry_after` (seconds) is a floor, also above `policy.max`; a part of the backoff is added
    to it, so that those who are told to come back together do not. A wish for more than the deadline is cut off behind
    it: what it asks for is that the delivery be given up, and no date holds some of the numbers that servers send.
    """
    # 2 ** 1023 is the largest power a float holds; no policy is that patient.
    high = min(policy.max, policy.first * 2.0 ** min(attempt, 1000))
    low = max(policy.first, high / 2)
    digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
    jitter = int.from_bytes(digest[:8]) / 2**64
    wait = low + (high - low) * jitter
    if retry_after is None:
        return wait
    return max(wait, min(retry_after, policy.deadline + 1) + (high - low) * jitter)
