from __future__ import annotations

import pytest

from shared.durable.inputs import from_json, to_json
from shared.rules.outcome import MAX_STATUS, Outcome, fitted_status, kept_problem, written_size


@pytest.mark.parametrize(
    ("text", "kilobytes"),
    [
        # What the Durable extension said of these texts; it rounds down.
        ("x" * 10_000, 19),
        ("x" * 16_382, 32),
        ("é" * 9_000, 17),
        ("\u2028" * 5_000, 58),
        ("\x85" * 5_000, 58),
        ('"' * 8_000, 31),
        ("<" * 9_000, 17),
        ("\U0001f600" * 4_500, 17),
    ],
)
def test_a_status_is_measured_as_the_durable_extension_measures_it(text: str, kilobytes: int) -> None:
    assert written_size(text) * 2 // 1024 in {kilobytes, kilobytes - 1}


@pytest.mark.parametrize("letter", ["x", "\u2028", '"', "\U0001f600", "\x00"])
def test_a_status_that_is_too_long_loses_its_problem_and_then_the_end_of_its_reason(letter: str) -> None:
    status = {"state": "waiting", "recordId": "P-1", "reason": letter * 9_000, "problem": {"detail": letter * 4_000}}

    shown = fitted_status(status)

    assert written_size(shown) <= MAX_STATUS
    assert shown["recordId"] == "P-1"
    assert shown["reason"].startswith(letter * 100)
    assert fitted_status({"reason": "short", "problem": {"a": 1}}) == {"reason": "short", "problem": {"a": 1}}


def test_a_problem_keeps_the_members_for_which_there_is_room() -> None:
    assert kept_problem({"title": "no", "detail": "x" * 5_000, "code": 7}, 4_000) == {"title": "no", "code": 7}


@pytest.mark.parametrize("wrap", [lambda mark: mark, lambda mark: {"errors": [{"a": mark}]}])
def test_a_problem_that_the_durable_sdk_would_turn_into_an_object_is_dropped(wrap: object) -> None:
    mark = {"__class__": "A", "__module__": "os", "__data__": "b", "more": 1}

    assert kept_problem(wrap(mark), 4_000) == {}  # type: ignore[operator]


def test_an_outcome_survives_a_durable_boundary() -> None:
    outcome = Outcome(
        "deferred", "P-1", 503, "why", {"a": 1}, 2.5, is_uncertain=True, is_absent=True, was_held=True, differing=["a"]
    )

    assert from_json(to_json(outcome), Outcome) == outcome
    assert to_json(Outcome("created", "P-1", 201)) == {"outcome": "created", "recordId": "P-1", "status": 201}
