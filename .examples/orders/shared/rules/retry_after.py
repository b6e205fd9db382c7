"""The Retry-After header as seconds from now."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# RFC 9110 section 10.2.3 has whole seconds only; some servers send fractions.
_SECONDS = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,15})?")


def retry_after(headers_value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, None where it is missing or makes no sense.

    `headers_value` is delay-seconds or an HTTP date in any of its three forms (RFC 9110 sections 10.2.3 and 5.6.7); a
    date in the past is 0. `now` is the aware time from which a date is measured.
    """
    if headers_value is None:
        return None
    value = headers_value.strip()
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # OverflowError: a year or an offset that no datetime can hold
        return None
    if date.tzinfo is None:  # asctime-date, and "-0000": both mean UTC
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())
