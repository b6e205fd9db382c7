"""How long a deferred delivery waits before its next attempt. Pure: the same arguments give the same wait."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY = 86_400.0
# Seconds. No setting and no orchestration's input asks for more.
MAX_DEADLINE, MAX_WAIT = 365 * DAY, DAY


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. All are seconds; `deadline` counts from the delivery's start."""

    deadline: float = DAY
    first: float = 1.0
    max: float = 300.0

    @classmethod
    def from_json(cls, policy: Mapping[str, Any]) -> RetryPolicy:
        """Read what `to_json` wrote; missing members have their defaults."""
        return cls(**{name: policy[name] for name in cls.__slots__ if name in policy})

    def to_json(self) -> dict[str, float]:
        """Return a plain object for a durable boundary."""
        return asdict(self)


def retry_wait(policy: RetryPolicy, attempt: int, seed: str, retry_after: float | None = None) -> float:
    """Return the seconds to wait after the `attempt`-th attempt (from 1) was deferred.

    The range doubles with each attempt: [first, 2 first], [2 first, 4 first] up to [max / 2, max]. The draw within the
    range is derived from `seed` and the attempt, so a replay waits as long as the first time. `retry_after` (seconds)
    is a floor, even above `policy.max`; part of the backoff is added to it, so that deliveries that were told the same
    time do not come back together. It is cut off just above the deadline: a date cannot hold every number that servers
    send.
    """
    # 2 ** 1023 is the largest power that a float holds.
    high = min(policy.max, policy.first * 2.0 ** min(attempt, 1000))
    low = max(policy.first, high / 2)
    digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
    jitter = (high - low) * int.from_bytes(digest[:8]) / 2**64
    if retry_after is None:
        return low + jitter
    return max(low, min(retry_after, policy.deadline + 1)) + jitter
