"""The quota that a response's header fields name, and how to live within it.

Three families are in use: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers, versions 7 to 10), the
older triple RateLimit-Limit, -Remaining and -Reset (versions 0 to 6), and X-RateLimit-* with a reset in seconds or as
Unix time.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SECONDS = 86_400.0
"""The longest window that is believed, in seconds."""

# A quota is spread over this part of its time, and at most over so many seconds.
SPREAD, LONGEST_SPREAD = 1 / 3, 10.0
# A quota that is used up is asked for again after so many seconds, whatever it says.
LONGEST_WAIT = 30.0
# The headers of every so many responses are read until they name a quota: reading in vain costs as much as a turn.
READ_EVERY = 16

# Characters of a field that is read. The patterns take up to the square of it, in steps of nanoseconds.
_MAX_FIELD = 1_000
# An item of the structured field: its name, then parameters; version 7 has `limit=50, remaining=9, reset=3` instead.
# Possessive quantifiers: with backtracking, a field of spaces would take the cube of its length.
_ITEM = re.compile(r'\s*+("(?:[^"\\]|\\.)*+"|[^",;]*+)((?:;(?:"(?:[^"\\]|\\.)*+"|[^",])*+)?)(?:,|$)')
_PARAMETER = re.compile(r"([a-z]++)\s*+=\s*+([0-9]{1,15})(?![0-9.A-Za-z])")
_NUMBER = re.compile(r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)")
# A reset above this is a time, not a duration: 1e9 s after the epoch was in 2001. Above the second it is in ms.
_UNIX_TIME, _UNIX_TIME_IN_MS = 1e9, 1e11


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left: `remaining` calls in the next `seconds`, of `limit` calls (None: not said) in each `window` s."""

    remaining: int
    seconds: float
    limit: int | None = None
    window: float | None = None


def read_quota(headers: Mapping[str, str]) -> Quota | None:
    """Return the quota that has the fewest calls left, None where the headers name none or make no sense.

    `headers` is case-insensitive, or has names in lower case.
    """

    def field(name: str) -> str:
        value = headers.get(name, "")
        return value if len(value) <= _MAX_FIELD else ""

    if structured := field("ratelimit"):
        return _from_structured_field(structured, dict(_items(field("ratelimit-policy"))))
    for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-"):
        if remaining := field(prefix + "remaining"):
            left, seconds = _number(remaining), _number(field(prefix + "reset"))
            if seconds is not None and seconds > _UNIX_TIME:
                seconds = _until(seconds, headers.get("date", ""))
            limit = field(prefix + "limit")
            terms = {"q": _number(limit) or 0, **dict(_PARAMETER.findall(limit))}
            return None if left is None or seconds is None else _quota(left, seconds, terms)
    return None


class QuotaLimit:
    """Keeps calls within the quota that the partner named last. `rate` is in calls per second."""

    def __init__(self) -> None:
        self.quota: Quota | None = None
        self.rate = math.inf
        self._left = math.inf
        self._until = self._probe_at = self._sent_at = -math.inf
        self._unread = 0

    def read(self, now: float, sent_at: float, headers: Mapping[str, str], in_flight: int) -> None:
        """Take in the headers of a response to a call that was sent at `sent_at`."""
        self._unread = (self._unread + 1) % READ_EVERY
        if self.quota is None and self._unread != 1:
            return
        # Responses overtake each other: the call that was sent last knows most.
        if sent_at >= self._sent_at and (quota := read_quota(headers)) is not None:
            self._sent_at = sent_at
            self._set(now, quota, quota.remaining - in_flight)

    def enter(self) -> None:
        """Count a call."""
        self._left -= 1

    def wait(self, now: float) -> float:
        """Return the seconds until the quota has a call left."""
        if self.quota is None:
            return 0.0
        if now >= self._until:
            limit, window = self.quota.limit, self.quota.window
            if limit:
                self._set(now, Quota(limit, window or 1.0, limit, window), limit)
            else:
                self.quota, self._left, self.rate = None, math.inf, math.inf
        elif self._left < 1:
            if now < self._probe_at:
                return min(self._until, self._probe_at) - now
            self._left, self._probe_at = 1.0, now + LONGEST_WAIT
        return 0.0

    def _set(self, now: float, quota: Quota, left: float) -> None:
        self.quota, self._left = quota, left
        self._until, self._probe_at = now + quota.seconds, now + LONGEST_WAIT
        self.rate = max(left, 1) / (min(max(quota.seconds, 1.0), LONGEST_SPREAD) * SPREAD)


def _from_structured_field(field: str, policies: Mapping[str, Mapping[str, str]]) -> Quota | None:
    items = _items(field)
    if not any(parameters for _, parameters in items):
        # Version 7: a dictionary. Each member is an item of its own here, and its value a parameter.
        values = dict(_PARAMETER.findall(field))
        items = [("", {"r": values["remaining"], "t": values.get("reset", "1")})] if "remaining" in values else []
    quotas = []
    for name, parameters in items:
        if "r" in parameters:
            terms = policies.get(name, {})
            quotas.append(_quota(float(parameters["r"]), float(parameters.get("t", terms.get("w", 1))), terms))
    return min(quotas, key=lambda quota: quota.remaining, default=None)


def _until(time: float, date: str) -> float | None:
    """Return the seconds until a Unix time in s or ms. The server's own clock says how far away its time is."""
    try:
        now = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
    return (time / 1000 if time > _UNIX_TIME_IN_MS else time) - now


def _quota(remaining: float, seconds: float, terms: Mapping[str, str | float]) -> Quota:
    window = min(float(terms.get("w", 0)), MAX_SECONDS)
    return Quota(int(remaining), min(max(seconds, 0.0), MAX_SECONDS), int(terms.get("q", 0)) or None, window or None)


def _items(field: str) -> list[tuple[str, dict[str, str]]]:
    return [(name.strip(), dict(_PARAMETER.findall(rest))) for name, rest in _ITEM.findall(field) if name or rest]


def _number(value: str) -> float | None:
    match = _NUMBER.match(value)
    return float(match[1]) if match else None
