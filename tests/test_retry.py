from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.retry import RetryPolicy, retry_after, retry_wait

SECONDS = st.floats(0.001, 86_400)
ATTEMPTS = st.integers(1, 5_000)


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    first, most = sorted((draw(SECONDS), draw(SECONDS)))
    return RetryPolicy(draw(st.floats(0.001, 365 * 86_400)), first, most)


def bounds(policy: RetryPolicy, attempt: int) -> tuple[float, float]:
    high = min(policy.max, policy.first * 2.0 ** min(attempt, 900))
    return max(policy.first, high / 2), high


def test_the_default_policy_begins_with_seconds_and_ends_with_five_minutes() -> None:
    lows = [1, 2, 4, 8, 16, 32, 64, 128, 150, 150, 150]

    for attempt, low in enumerate(lows, 1):
        assert low <= retry_wait(RetryPolicy(), attempt, "an instance") <= min(2 * low, 300)


@given(policies(), ATTEMPTS, st.text(max_size=40))
def test_every_wait_is_between_the_bounds_of_its_step(policy: RetryPolicy, attempt: int, seed: str) -> None:
    low, high = bounds(policy, attempt)

    assert low <= retry_wait(policy, attempt, seed) <= high
    assert policy.first <= low
    assert high <= policy.max


@given(policies(), ATTEMPTS, st.text(max_size=40), st.none() | st.floats(0, 1e15))
def test_the_same_attempt_of_the_same_instance_always_waits_as_long(
    policy: RetryPolicy, attempt: int, seed: str, floor: float | None
) -> None:
    again = msgspec.json.decode(msgspec.json.encode(policy), type=RetryPolicy)

    assert retry_wait(policy, attempt, seed, floor) == retry_wait(again, attempt, seed, floor)


@given(policies(), ATTEMPTS, st.text(max_size=40), st.floats(0, 1e15))
def test_retry_after_is_a_floor_up_to_the_deadline_that_a_date_holds(
    policy: RetryPolicy, attempt: int, seed: str, floor: float
) -> None:
    wait = retry_wait(policy, attempt, seed, floor)

    assert wait >= retry_wait(policy, attempt, seed)
    assert wait >= min(floor, policy.deadline)
    assert datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=wait) > datetime(2030, 1, 1, tzinfo=UTC)


def test_those_who_are_told_to_come_back_together_do_not() -> None:
    waits = {retry_wait(RetryPolicy(), 8, f"instance {number}", 60) for number in range(100)}

    assert len(waits) == 100
    assert max(waits) - min(waits) > 60


def test_the_jitter_is_spread_over_the_whole_range() -> None:
    policy = RetryPolicy(first=1, max=300)
    parts = [(retry_wait(policy, 12, f"instance {number}") - 150) / 150 for number in range(2_000)]

    assert math.isclose(sum(parts) / len(parts), 0.5, abs_tol=0.03)
    assert sum(part < 0.1 for part in parts) in range(150, 250)


def test_a_wait_recorded_by_the_first_version_stays_what_it_was() -> None:
    # Instances in flight replay with it: another draw would schedule other timers than their history has.
    assert retry_wait(RetryPolicy(), 3, "0f5c2d") == pytest.approx(6.3677722303)


@pytest.mark.parametrize("policy", [{}, {"deadline": 5}, {"first": 2, "max": 3, "unknown": 9}])
def test_a_policy_takes_its_defaults_for_what_an_input_lacks(policy: dict[str, float]) -> None:
    known = {name: value for name, value in policy.items() if name != "unknown"}

    assert (
        msgspec.to_builtins(msgspec.convert(policy, RetryPolicy))
        == {"deadline": 86_400, "first": 1, "max": 300} | known
    )


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
