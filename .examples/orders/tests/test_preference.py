from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.delivery.preference import MAX_WAIT, preferred_wait


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=20", 20),
        ("Wait=20", 20),
        ("WAIT = 20", 20),
        ('wait="20"', 20),
        ("  wait=20  ", 20),
        ("respond-async, wait=10", 10),
        ("respond-async;x=1,wait=10", 10),
        ("wait=10, respond-async", 10),
        ("wait=10; strict", 10),
        ('wait=10; why="a, b"', 10),
        ('note="quoted, wait=5", wait=7', 7),
        (r'note="a \", wait=5", wait=7', 7),
        ("wait=5, wait=7", 5),
        ("wait=soon, wait=7", 7),
        ("wait=0", 0),
        ("wait=200", MAX_WAIT),
        ("wait=201", MAX_WAIT),
        ("wait=99999999999999999999", MAX_WAIT),
        (f"wait={'9' * 400}", MAX_WAIT),
    ],
)
def test_reads_every_form_of_the_preference(prefer: str, seconds: float) -> None:
    assert preferred_wait({"prefer": prefer}) == seconds


@pytest.mark.parametrize(
    "prefer",
    [
        "",
        "respond-async",
        "wait",
        "wait=",
        "wait=soon",
        "wait=-5",
        "wait=1.5",
        "wait=1e3",
        'wait="5',
        "wait=5 6",
        "await=5",
        "x-wait=5",
        "respond-async; wait=5",
        "wait=٣",
        'note="x, wait=5"',
    ],
)
def test_anything_else_is_no_wish(prefer: str) -> None:
    assert preferred_wait({"prefer": prefer}) == 0.0


def test_a_request_without_the_header_has_no_wish() -> None:
    assert preferred_wait({}) == 0.0


@given(st.text(alphabet='wait=0123456789",; \\x', max_size=80))
def test_no_header_at_all_raises_or_waits_too_long(prefer: str) -> None:
    assert 0.0 <= preferred_wait({"prefer": prefer}) <= MAX_WAIT


@given(st.integers(0, 10**6), st.sampled_from(["", "respond-async, ", 'a="b, wait=9", ', "x=1;y=2,"]))
def test_the_wait_is_found_among_other_preferences(seconds: int, before: str) -> None:
    assert preferred_wait({"prefer": f"{before}wait={seconds}"}) == min(seconds, MAX_WAIT)
