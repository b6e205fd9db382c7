"""When a timer function is due: NCRONTAB expressions and intervals. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from cronsim import CronSim, CronSimError

_INTERVAL = re.compile(r"(?:(\d+)\.)?(\d+):(\d{1,2}):(\d{1,2})")
_FIVE_FIELDS, _SIX_FIELDS = 5, 6
# cronsim knows more than NCRONTAB does.
_FOREIGN = re.compile(r"[LW#]")
_NAMES = re.compile(r"JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC|SUN|MON|TUE|WED|THU|FRI|SAT")


@dataclass(frozen=True, slots=True)
class Interval:
    """Due again and again after a length of time."""

    length: timedelta

    def next_after(self, moment: datetime) -> datetime:
        """Return the time one length after `moment`."""
        return moment + self.length


@dataclass(frozen=True, slots=True)
class Cron:
    """Due when the clock fits an NCRONTAB expression of six fields: second, minute, hour, day, month, day of week."""

    fields: tuple[str, ...]

    def next_after(self, moment: datetime) -> datetime:
        """Return the next second after `moment` that fits every field.

        Raises:
            ValueError: none does, ever (30 February).
        """
        ticks = CronSim(" ".join(self.fields), moment)
        # With days of the month and of the week NCRONTAB wants both to fit, cron either.
        ticks.day_and = True
        try:
            return next(ticks)
        except StopIteration:
            raise ValueError(f"the schedule {' '.join(self.fields)!r} never comes to pass") from None


# Tells when a timer function is due.
Schedule = Interval | Cron


def parse_time_span(text: str) -> timedelta | None:
    """Read a length of time as .NET writes it, `hh:mm:ss` or `d.hh:mm:ss`; None where it is something else."""
    found = _INTERVAL.fullmatch(text.strip())
    if found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)


def parse_schedule(text: str, now: datetime) -> Schedule:
    """Read a schedule: NCRONTAB with or without seconds, or an interval as `hh:mm:ss`.

    Raises:
        ValueError: it is neither, or never comes to pass after `now`.
    """
    length = parse_time_span(text)
    if length is not None:
        if not length:
            raise ValueError(f"the interval {text!r} is empty")
        return Interval(length)
    fields = text.upper().split()
    if len(fields) == _FIVE_FIELDS:
        fields.insert(0, "0")
    if len(fields) != _SIX_FIELDS or any(_FOREIGN.search(_NAMES.sub("", field)) for field in fields):
        raise ValueError(f"{text!r} is neither an NCRONTAB expression of 5 or 6 fields nor an interval hh:mm:ss")
    schedule = Cron(tuple(fields))
    try:
        schedule.next_after(now)
    except CronSimError as error:
        raise ValueError(f"{text!r} is no NCRONTAB expression: {error}") from error
    return schedule
