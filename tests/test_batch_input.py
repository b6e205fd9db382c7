from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.delivery.batch_input import batch_input, is_batch, records_of, total_of

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)
batches = st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=4), max_size=4)


@given(batches)
def test_the_records_come_back_as_they_went(batch: list[dict[str, Any]]) -> None:
    # The text stands for the history: 1 and 1.0, true and 1 are not the same in it.
    expected = [record for record in batch if not _has_infinity(record)]
    stored = json.loads(json.dumps(batch_input(expected)))

    assert is_batch(stored)
    assert total_of(stored) == len(expected)
    assert json.dumps(records_of(stored)) == json.dumps(expected)


@given(batches)
def test_the_digest_is_the_same_for_the_same_records_only(batch: list[dict[str, Any]]) -> None:
    shuffled = [dict(reversed(record.items())) for record in batch]

    assert batch_input(shuffled)["digest"] == batch_input(batch)["digest"]
    assert batch_input([*batch, {}])["digest"] != batch_input(batch)["digest"]
    assert len(batch_input(batch)["digest"]) == hashlib.sha256().digest_size * 2


def test_records_that_are_alike_take_a_fraction_of_the_room() -> None:
    records = [{"externalId": f"b-{number}", "name": "Ada", "address": {"city": "London"}} for number in range(1_000)]

    assert len(json.dumps(batch_input(records))) < len(json.dumps(records)) / 5


def test_an_input_of_version_0_1_is_read_as_well() -> None:
    records = [{"externalId": "b-1", "name": "Ada"}, 5]
    old = {"businesses": records, "digest": "d"}

    assert is_batch(old)
    assert (total_of(old), records_of(old)) == (2, records)


def test_what_is_no_batch_is_told() -> None:
    others: list[object] = [None, 5, "packed", [], {}, {"business": {}}]

    assert not any(map(is_batch, others))


def _has_infinity(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(_has_infinity, value))
    return value in {float("inf"), float("-inf")} if isinstance(value, float) else False
