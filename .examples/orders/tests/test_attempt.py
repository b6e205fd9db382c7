from __future__ import annotations

import json

import pytest

from sandbox.sample import business
from shared.delivery.attempt import Attempt

RECORD = business("b-1")


def test_an_attempt_comes_back_as_it_went() -> None:
    attempt = Attempt(RECORD, "instance", "instance-3", 4, look_up=False, age=12.5)

    assert Attempt.from_json(json.loads(json.dumps(attempt.to_json()))) == attempt


def test_its_names_are_those_of_the_first_version() -> None:
    # They stand in the histories of instances in flight.
    assert Attempt(RECORD, "instance", "key").to_json() == {
        "business": RECORD,
        "instanceId": "instance",
        "idempotencyKey": "key",
        "attempt": 1,
        "lookUp": True,
        "age": 0.0,
    }


def test_an_attempt_that_does_not_say_looks_up_before_it_posts() -> None:
    attempt = Attempt.from_json({"business": RECORD, "instanceId": "instance", "idempotencyKey": "key"})

    assert attempt == Attempt(RECORD, "instance", "key", 1, look_up=True)


@pytest.mark.parametrize("name", ["business", "instanceId", "idempotencyKey"])
def test_an_attempt_without_what_it_needs_is_a_defect(name: str) -> None:
    attempt = Attempt(RECORD, "instance", "key").to_json()
    del attempt[name]

    with pytest.raises(KeyError, match=name):
        Attempt.from_json(attempt)
