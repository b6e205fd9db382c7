from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.api import strict_json
from shared.api.business import MAX_BYTES, Business
from shared.delivery.record_limits import checked_again, limit_faults, size_fault
from shared.errors import InvalidBusinessError

RECORD = business("b-1")
MARKED = {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}
NUMBERS = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


class Made:
    """What the Durable SDK may make of a marked object."""


def long_record(size: int) -> dict[str, Any]:
    """A record of so many bytes as it is sent on."""
    return RECORD | {"x": "y" * (size - len(Business.from_json(RECORD | {"x": ""}).encode()))}


def nested(depth: int) -> dict[str, Any]:
    deep: Any = {}
    for _ in range(depth - 2):
        deep = [deep]
    return RECORD | {"deep": deep}


def faults(record: object) -> list[tuple[str, str]]:
    with pytest.raises(InvalidBusinessError) as caught:
        checked_again(record)
    return [(fault.pointer, fault.detail) for fault in caught.value.faults]


def test_a_text_may_be_as_long_as_a_record_and_no_longer() -> None:
    assert size_fault(b"x" * MAX_BYTES) is None
    assert str(size_fault(b"x" * (MAX_BYTES + 1))) == "has 65537 bytes, more than the 65536 allowed"


def test_a_good_record_has_no_faults() -> None:
    assert limit_faults(Business.from_json(RECORD)) == []


def test_every_fault_is_listed() -> None:
    both = Business.from_json(long_record(MAX_BYTES) | {"z": MARKED})

    assert [fault.pointer for fault in limit_faults(both)] == ["", "/z"]


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=4))
def test_what_the_intake_takes_passes_again(members: dict[str, Any]) -> None:
    record = strict_json.decode(json.dumps(members | RECORD).encode())
    # So does it go through the history.
    stored = json.loads(json.dumps(record))

    assert checked_again(stored).to_json() == record


def test_the_largest_and_the_deepest_record_pass_and_the_next_do_not() -> None:
    assert checked_again(long_record(MAX_BYTES))
    assert checked_again(nested(strict_json.MAX_DEPTH))
    assert faults(long_record(MAX_BYTES + 1)) == [("", "has 65537 bytes, more than the 65536 allowed")]
    assert faults(nested(strict_json.MAX_DEPTH + 1)) == [("", "is nested deeper than 32 levels")]
    assert faults(nested(20_000)) == [("", "is not JSON as this app takes it")]


def test_what_durable_would_take_for_its_own_is_refused() -> None:
    [(pointer, detail)] = faults(RECORD | {"x": [MARKED]})
    assert pointer == "/x/0"
    assert "__class__" in detail


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "\ud800", Made(), Business.from_json(RECORD)], ids=lambda value: type(value).__name__
)
def test_what_is_not_json_is_refused(value: object) -> None:
    assert faults(RECORD | {"x": value}) == [("", "is not JSON as this app takes it")]


def test_a_number_that_others_would_round_is_refused() -> None:
    [(_, detail)] = faults(RECORD | {"x": 10**30})
    assert "more than 64 bits" in detail


@pytest.mark.parametrize("record", [None, 5, [], "text", Made()])
def test_what_is_no_object_is_refused(record: object) -> None:
    assert faults(record) == [("", "must be a JSON object")]


def test_the_rules_of_the_model_come_first() -> None:
    assert [pointer for pointer, _ in faults(RECORD | {"externalId": ".", "x": math.nan})] == ["/externalId"]


@pytest.mark.parametrize(
    "member",
    [10**30, 12345678901234567.5, [[[[]]] * 9] * 9, json.loads("[" * 40 + "]" * 40), "x" * MAX_BYTES, MARKED],
    ids=["64 bits", "digits", "wide", "deep", "long", "object"],
)
def test_what_was_decoded_by_us_is_looked_at_like_any_other(member: object) -> None:
    record = RECORD | {"x": member}

    def what(*, is_json: bool) -> object:
        try:
            return checked_again(record, is_json=is_json).to_json()
        except InvalidBusinessError as exc:
            return exc.faults

    assert what(is_json=True) == what(is_json=False)


def test_what_was_not_decoded_by_us_may_be_no_json() -> None:
    for odd in (float("nan"), float("inf"), (1, 2), b"x", Made()):
        with pytest.raises(InvalidBusinessError):
            checked_again(RECORD | {"x": odd})
