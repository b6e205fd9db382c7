"""How long a deferred delivery waits before its next attempt. Pure: the same arguments give the same wait."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated

from msgspec import Meta

DAY = 86_400.0
# Seconds. No setting and no orchestration's input asks for more.
MAX_DEADLINE, MAX_WAIT = 365 * DAY, DAY
NCRONTAB = re.compile(r"\S+(?:\s+\S+){4,5}")
# RFC 9110 section 10.2.3 has whole seconds only; some servers send fractions.
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. All are seconds; `deadline` counts from the delivery's start."""

    deadline: Annotated[float, Meta(gt=0, le=MAX_DEADLINE)] = DAY
    first: Annotated[float, Meta(gt=0, le=MAX_WAIT)] = 1.0
    max: Annotated[float, Meta(gt=0, le=MAX_WAIT)] = 300.0


def retry_wait(policy: RetryPolicy, attempt: int, seed: str, floor: float | None = None) -> float:
    """Return the seconds to wait after the `attempt`-th attempt (from 1) was deferred.

    The range doubles with each attempt: [first, 2 first], [2 first, 4 first] up to [max / 2, max]. The draw within the
    range is derived from `seed` and the attempt, so a replay waits as long as the first time. `floor` is what the
    partner asked for in Retry-After, and may be above `policy.max`; part of the backoff is added to it, so that
    deliveries that were told the same time do not come back together. It is cut off just above the deadline: a date
    cannot hold every number that servers send.
    """
    # 2 ** 1023 is the largest power that a float holds.
    high = min(policy.max, policy.first * 2.0 ** min(attempt, 1000))
    low = max(policy.first, high / 2)
    digest = hashlib.sha256(f"{seed}/{attempt}".encode()).digest()
    jitter = (high - low) * int.from_bytes(digest[:8]) / 2**64
    return max(low, min(floor or 0.0, policy.deadline + 1)) + jitter


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, None where it is missing or makes no sense.

    It is a number of seconds or an HTTP date in any of its three forms (RFC 9110 sections 10.2.3 and 5.6.7); a date in
    the past is 0. `now` is the aware time from which a date is measured.
    """
    if value is None:
        return None
    value = value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a year or an offset that no datetime can hold
        return None
    if date.tzinfo is None:  # asctime-date, and "-0000": both mean UTC
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
