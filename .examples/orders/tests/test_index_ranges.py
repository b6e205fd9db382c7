from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.delivery.index_ranges import from_ranges, to_ranges

indices = st.sets(st.integers(0, 1_100), max_size=400)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((), ""),
        ((7,), "7"),
        ((0, 1), "0-1"),
        ((0, 2), "0,2"),
        ((3, 1, 2, 9, 11, 10, 0), "0-3,9-11"),
        (range(1_000), "0-999"),
        ((4, 4, 5, 5, 7), "4-5,7"),
    ],
)
def test_runs_are_written_by_their_ends(numbers: tuple[int, ...], text: str) -> None:
    assert to_ranges(numbers) == text
    assert from_ranges(text) == set(numbers)


@given(indices)
def test_what_is_written_is_read_as_it_was(numbers: set[int]) -> None:
    assert from_ranges(to_ranges(numbers)) == numbers


@given(indices)
def test_the_same_set_is_the_same_text_in_any_order(numbers: set[int]) -> None:
    assert to_ranges(sorted(numbers, reverse=True)) == to_ranges(numbers) == to_ranges([*numbers, *numbers])


@given(indices)
def test_no_two_runs_could_be_one(numbers: set[int]) -> None:
    runs = [run.split("-") for run in to_ranges(numbers).split(",") if run]
    ends = [int(end) for run in runs for end in (run[0], run[-1])]

    assert ends == sorted(ends)
    assert all(int(later[0]) - int(earlier[-1]) > 1 for earlier, later in pairwise(runs))
