from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.access_token import Backoff, NegativeCache
from shared.errors import RelayError, SettingsError, TokenRejectedError, TokenUnavailableError

EVEN = Backoff(jitter=lambda: 0.0)


@given(failures=st.integers(min_value=1, max_value=10**9), jitter=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_step_is_at_least_half_of_itself_and_never_above_the_maximum(failures: int, jitter: float) -> None:
    full = EVEN.step(failures)
    assert full / 2 <= Backoff(jitter=lambda: jitter).step(failures) <= full <= 30


@pytest.mark.parametrize(("jitter", "last"), [(0.0, 5.0), (0.5, 3.75), (1.0, 2.5)])
def test_the_steps_of_a_refused_client_end_at_five_seconds_and_are_spread_as_well(jitter: float, last: float) -> None:
    backoff = Backoff(jitter=lambda: jitter)
    steps = [backoff.step(failures, is_rejected=True) for failures in (1, 2, 3, 4, 100)]
    assert steps == [backoff.step(1), backoff.step(2), backoff.step(3), last, last]
    assert Backoff(maximum=2.0, jitter=lambda: 0.0).step(100, is_rejected=True) == 2.0


@pytest.mark.parametrize(
    "failure",
    [
        TokenUnavailableError("503", status=503, retry_after=7),
        TokenRejectedError("invalid_client", "no such client", status=401, retry_after=7),
        SettingsError(["A is missing", "B is wrong"]),
        RelayError("something else"),
    ],
)
def test_a_caller_gets_an_equal_error_that_is_not_the_same(failure: RelayError) -> None:
    failure.__cause__ = OSError("broken")
    cache = NegativeCache(EVEN)
    cache.add(failure, 100.0)
    copy = cache.answer(100.0)
    assert copy is not None
    assert copy is not failure
    assert (type(copy), str(copy), copy.__cause__) == (type(failure), str(failure), failure.__cause__)
    assert vars(copy) == vars(failure)


def test_answers_until_the_step_is_over_and_not_longer() -> None:
    cache = NegativeCache(EVEN)
    assert cache.answer(0.0) is None
    cache.add(TokenUnavailableError("503"), 0.0)
    assert cache.answer(0.999) is not None
    assert cache.answer(1.0) is None
    cache.add(TokenUnavailableError("503"), 1.0)
    assert cache.answer(2.999) is not None
    assert cache.answer(3.0) is None


def test_a_success_clears_it() -> None:
    cache = NegativeCache(EVEN)
    cache.add(TokenUnavailableError("429", retry_after=100), 0.0)
    cache.clear()
    assert cache.answer(0.0) is None
    cache.add(TokenUnavailableError("503"), 0.0)
    assert cache.answer(1.0) is None


@pytest.mark.parametrize(("retry_after", "until"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (20.0, 20.0), (1e12, 3600.0)])
def test_a_retry_after_is_a_floor_up_to_an_hour(retry_after: float | None, until: float) -> None:
    for failure in (
        TokenUnavailableError("429", retry_after=retry_after),
        TokenRejectedError("x", retry_after=retry_after),
    ):
        cache = NegativeCache(EVEN)
        cache.add(failure, 0.0)
        assert cache.answer(until - 0.001) is not None
        assert cache.answer(until) is None


@pytest.mark.parametrize("retry_after", [None, 20.0])
def test_a_failure_holds_back_no_longer_than_it_may(retry_after: float | None) -> None:
    cache = NegativeCache(EVEN)
    for _ in range(6):
        cache.add(TokenUnavailableError("503", retry_after=retry_after), 0.0, latest=0.25)
    assert cache.answer(0.249) is not None
    assert cache.answer(0.25) is None
