from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.host.schedule import parse_schedule

NOW = datetime(2026, 11, 23, 21, 59, 30, 250_000, tzinfo=UTC)  # a Monday


def due(text: str, count: int = 1) -> list[str]:
    schedule, moment, found = parse_schedule(text, NOW), NOW, []
    for _ in range(count):
        moment = schedule.next_after(moment)
        found.append(f"{moment:%a %Y-%m-%d %H:%M:%S}")
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 */5 * * * *", "Mon 2026-11-23 22:00:00"),
        ("*/5 * * * *", "Mon 2026-11-23 22:00:00"),
        ("* * * * * *", "Mon 2026-11-23 21:59:31"),
        ("*/10 * * * * *", "Mon 2026-11-23 21:59:40"),
        ("30 59 21 * * *", "Tue 2026-11-24 21:59:30"),
        ("0 30 9 * * 1-5", "Tue 2026-11-24 09:30:00"),
        ("0 0 0 * * Mon", "Mon 2026-11-30 00:00:00"),
        ("0 0 0 * * 0", "Sun 2026-11-29 00:00:00"),
        ("0 0 0 * Feb *", "Mon 2027-02-01 00:00:00"),
        ("0 0 0 1,15 * *", "Tue 2026-12-01 00:00:00"),
        ("0 0 3 29 2 *", "Tue 2028-02-29 03:00:00"),
    ],
)
def test_finds_the_next_time_of_an_ncrontab_expression(text: str, expected: str) -> None:
    assert due(text) == [expected]


def test_wants_both_the_day_of_the_month_and_the_day_of_the_week() -> None:
    assert due("0 0 0 13 * 5", 2) == ["Fri 2027-08-13 00:00:00", "Fri 2028-10-13 00:00:00"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:00:05", 5), ("01:30:00", 5400), ("1.00:00:00", 86400), (" 24:00:00 ", 86400)]
)
def test_an_interval_counts_from_the_last_time(text: str, seconds: int) -> None:
    assert parse_schedule(text, NOW).next_after(NOW) - NOW == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now and then",
        "* * * *",
        "* * * * * * *",
        "61 * * * * *",
        "0 0 0 L * *",
        "0 0 0 * * 5#2",
        "0 0 0 * * 5L",
        "0 0 0 30 2 *",
        "0 0 0 30 2 1",
        "00:00:00",
        "5",
    ],
)
def test_refuses_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ValueError, match=r"NCRONTAB|interval|never comes to pass"):
        parse_schedule(text, NOW)


@given(st.integers(min_value=0, max_value=4_000_000_000))
def test_the_next_time_is_always_later(seconds: int) -> None:
    moment = datetime.fromtimestamp(seconds, UTC)
    for text in ("*/7 * * * * *", "0 0 12 * * 1", "00:00:01"):
        assert parse_schedule(text, moment).next_after(moment) > moment
