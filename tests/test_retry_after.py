from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.retry_after import retry_after

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("  7 ", 7.0),
        ("1.5", 1.5),
        ("Sun, 01 Jun 2025 12:01:30 GMT", 90.0),  # IMF-fixdate
        ("Sunday, 01-Jun-25 12:01:30 GMT", 90.0),  # rfc850-date
        ("Sun Jun  1 12:01:30 2025", 90.0),  # asctime-date
        ("Sun, 01 Jun 2025 14:01:30 +0200", 90.0),
        ("Sun, 01 Jun 2025 12:01:30 -0000", 90.0),
    ],
)
def test_reads_seconds_and_every_form_of_an_http_date(value: str, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds


def test_a_date_in_the_past_asks_for_no_wait() -> None:
    assert retry_after("Sun, 01 Jun 2025 11:00:00 GMT", NOW) == 0.0


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "-5",
        "+5",
        "1e3",
        "inf",
        "nan",
        "1_000",
        "٣",
        "9" * 400,
        "Sun, 99 Jun 2025 12:00:00 GMT",
        "Sun, 01 Jun 99999 12:00:00 GMT",
        "Sun, 01 Jun 2025 12:00:00 +99999999999999",
    ],
)
def test_a_missing_or_senseless_value_is_none(value: str | None) -> None:
    assert retry_after(value, NOW) is None


@given(st.text(max_size=60))
def test_no_text_at_all_raises_or_gives_a_negative_wait(value: str) -> None:
    seconds = retry_after(value, NOW)
    assert seconds is None or 0 <= seconds < float("inf")


@given(st.timedeltas(timedelta(0), timedelta(days=3650)))
def test_a_formatted_date_comes_back_as_its_distance(distance: timedelta) -> None:
    whole = timedelta(seconds=distance // timedelta(seconds=1))
    assert retry_after(format_datetime(NOW + whole, usegmt=True), NOW) == whole.total_seconds()
