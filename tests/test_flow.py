from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.flow import CallResult, Flow, Snapshot
from shared.rules.flow_limits import FEW

if TYPE_CHECKING:
    from collections.abc import Mapping

OK = CallResult(0.1, 201)
REFUSED = CallResult(0.1, 429, retry_after=1.0)
CROWDED = CallResult(0.0, 503)
BROKEN = CallResult(0.1, 500)


def start(flow: Flow, now: float, most: int = 1_000) -> int:
    """Start as many calls as may start now, and return their number."""
    count = 0
    while count < most and flow.wait(now) == 0:
        flow.enter(now)
        count += 1
    return count


def answer(flow: Flow, now: float, *results: CallResult) -> None:
    for result in results:
        flow.leave(now, result)


def opened(now: float = 0.0) -> Flow:
    """A flow to a partner that has answered well, with room for more than FEW calls."""
    flow = Flow()
    for step in range(5):
        answer(flow, now + step / 10, *[OK] * start(flow, now + step / 10))
    return flow


def test_asks_a_partner_of_whom_nothing_is_known_with_few_calls() -> None:
    assert start(Flow(), 0) == FEW


def test_opens_wide_within_a_few_round_trips() -> None:
    assert start(opened(), 0.5) == 64


def test_exceeds_a_limit_of_calls_more_and_more_rarely_and_never_with_one_that_follows() -> None:
    flow = opened()
    start(flow, 0.5)
    answer(flow, 0.5, *[CROWDED] * 24)
    tries = []
    for step in range(1, 400):
        now = 0.5 + step / 10
        answer(flow, now, *[OK] * flow.in_flight)
        while flow.wait(now, follows=True) == 0:
            flow.enter(now)
        assert flow.in_flight == 40
        if start(flow, now):
            tries.append(now)
            answer(flow, now, *[CROWDED] * (flow.in_flight - 40))

    pauses = [later - earlier for earlier, later in itertools.pairwise(tries)]
    assert pauses == pytest.approx([2, 4, 8, 8, 8, 8], abs=0.2)


def test_asks_a_silent_partner_with_few_calls() -> None:
    assert start(opened(), 60) == FEW


def test_stops_sending_when_the_answers_stay_out() -> None:
    flow = opened()
    start(flow, 0.5, 20)

    assert start(flow, 5) == 0


@pytest.mark.parametrize("lone", [REFUSED, CallResult(0.1, 503, retry_after=86_400.0), CallResult(0.1, 503), BROKEN])
def test_the_pushback_on_one_record_is_that_records_alone(lone: CallResult) -> None:
    flow = opened()
    start(flow, 0.5, 30)
    answer(flow, 0.6, *[OK] * 15, lone, *[OK] * 14)

    assert start(flow, 0.6) == 64
    assert flow.snapshot(0.6)["state"] == "open"


def test_pushback_on_several_calls_closes_the_partner_for_as_long_as_it_asks() -> None:
    flow = opened()
    start(flow, 0.5, 30)
    answer(flow, 0.6, *[OK] * 10, REFUSED, REFUSED, REFUSED)

    assert flow.wait(0.7) == pytest.approx(0.9)
    assert flow.snapshot(0.7)["state"] == "limited"


def test_a_long_retry_after_closes_the_partner_for_half_a_minute_at_most() -> None:
    flow = opened()
    start(flow, 0.5, 30)
    answer(flow, 0.6, *[CallResult(0.1, 429, retry_after=86_400.0)] * 30)

    assert 25 < flow.wait(0.6) <= 30


def test_a_crowd_is_refused_so_fewer_go() -> None:
    flow = opened()
    running = start(flow, 0.5)
    answer(flow, 0.6, *[CallResult(0.01, 503)] * (running - 50))
    answer(flow, 0.7, *[OK] * 50)

    assert start(flow, 0.7) == 50


@pytest.mark.parametrize(
    ("failure", "most"),
    [(CallResult(0.1), 30), (BROKEN, 60), (CallResult(0.1, 503), 60), (CallResult(0.1, 429), 60), (REFUSED, 60)],
)
def test_a_minute_without_a_success_costs_few_calls_one_at_a_time(failure: CallResult, most: int) -> None:
    flow = Flow()
    calls, now = start(flow, 0), 0.1
    answer(flow, now, *[failure] * calls)
    while now < 60:
        now += max(flow.wait(now), 0.1)
        assert start(flow, now) == 1
        calls += 1
        answer(flow, now, failure)

    assert 20 <= calls <= most
    assert flow.snapshot(now)["state"] == ("limited" if failure.status == 429 else "down")
    assert flow.wait(now) <= 30


def test_thirty_refusals_in_a_row_are_over_within_seconds() -> None:
    flow, now = Flow(), 0.1
    answer(flow, now, *[CallResult(0.05, 429)] * start(flow, 0))
    for number in range(25):
        now += flow.wait(now)
        assert start(flow, now) == 1
        answer(flow, now, CallResult(0.05, 429 if number < 10 else 503))

    assert now <= 5


def test_the_first_success_reopens_it() -> None:
    flow = Flow()
    answer(flow, 0.1, *[BROKEN] * start(flow, 0))
    start(flow, 10)
    answer(flow, 10.1, OK)

    assert start(flow, 10.1) == FEW
    assert flow.snapshot(10.1)["state"] == "open"


def test_errors_between_successes_do_not_close_it() -> None:
    flow = opened()
    for step in range(50):
        now = 0.5 + step / 10
        running = start(flow, now)
        answer(flow, now + 0.05, *[OK, BROKEN] * (running // 2), *[OK] * (running % 2))

    assert start(flow, 5.5) == 64


def test_a_call_that_never_reached_the_partner_says_nothing_about_it() -> None:
    flow = opened()
    for step in range(20):
        answer(flow, step, *[CallResult(0.0, is_about_partner=False)] * start(flow, step))

    assert flow.snapshot(20)["state"] == "open"
    assert flow.in_flight == 0


def headers(left: int, seconds: int) -> Mapping[str, str]:
    return {"ratelimit": f'"d";r={left};t={seconds}'}


def test_a_quota_that_is_used_up_stops_calls_until_it_is_renewed() -> None:
    flow = Flow()
    start(flow, 0, 1)
    answer(flow, 0.1, CallResult(0.1, 200, headers(0, 7)))

    assert flow.wait(0.1) == pytest.approx(7.0)
    assert flow.wait(7.2) == 0


def test_no_more_calls_start_than_the_quota_has_left() -> None:
    flow = Flow()
    start(flow, 0, 1)
    answer(flow, 0.1, CallResult(0.1, 200, headers(3, 28)))

    assert sum(start(flow, second) for second in range(1, 28)) == 3


def test_a_quota_of_zero_for_ever_is_asked_again_after_half_a_minute() -> None:
    flow = Flow()
    start(flow, 0, 1)
    answer(flow, 0.1, CallResult(0.1, 200, headers(0, 10**9)))

    assert 0 < flow.wait(0.1) <= 30
    assert start(flow, 31) >= 1


def test_tells_of_a_limit_when_it_changes_and_not_all_the_time() -> None:
    told: list[Snapshot] = []
    flow = Flow(on_change=told.append)
    now = 0.0
    for step in range(2_000):
        now = step / 100
        start(flow, now)
        refused = flow.in_flight > 1 and step % 7 == 0
        answer(flow, now, *[REFUSED if refused else OK] * flow.in_flight)

    assert told[0]["state"] == "limited"
    assert told[0]["limit"]
    assert 1 <= len(told) <= 5


def test_measures_the_rate() -> None:
    flow = Flow(rate=20)
    for step in range(300):
        answer(flow, step / 100, *[OK] * start(flow, step / 100))

    assert flow.snapshot(3)["rate"] == pytest.approx(20, rel=0.15)
    assert flow.pace == 20


@given(
    rate=st.floats(0.05, 500),
    steps=st.lists(
        st.tuples(st.floats(0, 3), st.sampled_from([OK, REFUSED, BROKEN, CallResult(0.0, 503)])), max_size=60
    ),
)
def test_never_exceeds_the_rate_that_is_set(rate: float, steps: list[tuple[float, CallResult]]) -> None:
    flow = Flow(rate=rate)
    now, times = 0.0, []
    for seconds, result in steps:
        now += seconds
        times += [now] * start(flow, now)
        answer(flow, now, *[result] * flow.in_flight)

    # In any span of time, the calls exceed what the rate allows by no more than the credit of a moment.
    excess = [count - at * rate for count, at in enumerate(times)]
    lowest = math.inf
    for each in excess:
        lowest = min(lowest, each)
        assert each - lowest <= 1 + 0.05 * rate + 1e-6


NUMBERS = st.none() | st.sampled_from([0.0, 1e15]) | st.floats(0, 100)
ANY_RESULT = st.builds(
    CallResult,
    st.sampled_from([0.0, 0.1, 5.0]),
    st.sampled_from([None, 200, 404, 429, 500, 503]),
    st.builds(headers, st.integers(0, 10**6), st.integers(0, 10**12)),
    NUMBERS,
    st.booleans(),
)


@given(steps=st.lists(st.tuples(st.floats(0, 50) | st.just(1e9), st.lists(ANY_RESULT, max_size=8)), max_size=40))
def test_whatever_the_partner_says_a_call_may_start_within_a_minute(
    steps: list[tuple[float, list[CallResult]]],
) -> None:
    flow = Flow(most=10)
    now = 0.0
    for seconds, results in steps:
        now += seconds
        start(flow, now, 10)
        assert 0 <= flow.in_flight <= 10
        answer(flow, now, *results[: flow.in_flight])
    answer(flow, now, *[CallResult(0.0, is_about_partner=False)] * flow.in_flight)

    assert flow.in_flight == 0
    assert flow.pace > 0
    wait = flow.wait(now)
    assert wait <= 60
    # A pause, or a quota, may end in the other.
    assert start(flow, now + wait + 0.001) >= 1 or start(flow, now + wait + 60) >= 1
