from __future__ import annotations

import base64
import hashlib
import json
import tracemalloc
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery.batch_input import (
    MAX_PACKED,
    MAX_RECORDS,
    MAX_UNPACKED,
    batch_input,
    is_batch,
    records_of,
    total_of,
)
from shared.delivery.batch_intake import MAX_BATCH_BYTES, read_batch
from shared.delivery.exchange import Request
from shared.errors import DeliveryError

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
    records = [business(f"b-{number}", address={"city": "London"}) for number in range(1_000)]

    assert len(json.dumps(batch_input(records))) < len(json.dumps(records)) / 5


def test_an_input_of_version_0_1_is_read_as_well() -> None:
    records = [business("b-1"), 5]
    old = {"businesses": records, "digest": "d"}

    assert is_batch(old)
    assert (total_of(old), records_of(old)) == (2, records)


def test_what_is_no_batch_is_told() -> None:
    others: list[object] = [None, 5, "packed", [], {}, {"business": {}}]

    assert not any(map(is_batch, others))


def packed(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text)).decode()


def test_the_longest_batch_that_the_intake_takes_is_unpacked() -> None:
    # Nothing grows more where it is written again: 9e15 becomes 9000000000000000.0.
    numbers = ",".join(["9e15"] * 3_300)
    record = json.dumps(business("b-%d", x=[]), ensure_ascii=False, separators=(",", ":"))
    record = record.replace('"x":[]', f'"x":[{numbers}]')
    most = MAX_BATCH_BYTES // (len(record.encode()) + 2)
    body = "[" + ",".join(record.replace("%d", str(number)) for number in range(most)) + "]"
    businesses = read_batch(Request("/", {"content-type": "application/json"}, body.encode()))

    records = [business.to_json() for business in businesses]
    assert len(body) > 0.98 * MAX_BATCH_BYTES
    assert 3.5 * MAX_BATCH_BYTES < len(json.dumps(records)) <= MAX_UNPACKED
    assert records_of(batch_input(records)) == records


def test_what_cannot_be_compressed_is_not_too_long_where_it_is_packed() -> None:
    noise = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(MAX_UNPACKED // 32))

    assert len(base64.b64encode(zlib.compress(noise, 1))) <= MAX_PACKED


def test_a_bomb_is_not_unpacked() -> None:
    # 256 MiB of white space in 350 KB.
    compressor = zlib.compressobj(9)
    bomb = b"".join(compressor.compress(b" " * 2**20) for _ in range(256)) + compressor.compress(b"[]")
    given_input = {"total": 0, "packed": base64.b64encode(bomb + compressor.flush()).decode()}
    assert len(given_input["packed"]) < MAX_PACKED  # type: ignore[arg-type]  # it is a string
    tracemalloc.start()

    with pytest.raises(DeliveryError, match=f"more than {MAX_UNPACKED} bytes"):
        records_of(given_input)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * MAX_UNPACKED


@pytest.mark.parametrize(
    ("text", "taken"), [(b"[]" + b" " * (MAX_UNPACKED - 2), True), (b"[]" + b" " * (MAX_UNPACKED - 1), False)]
)
def test_as_many_bytes_as_are_allowed_are_unpacked_and_one_more_is_not(text: bytes, taken: bool) -> None:  # noqa: FBT001, a case of a table
    given_input = {"total": 0, "packed": packed(text)}
    if taken:
        assert records_of(given_input) == []
        return
    with pytest.raises(DeliveryError, match="or broken off"):
        records_of(given_input)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "ö",
        "AAAA",
        base64.b64encode(zlib.compress(b"[{}]")[:-1]).decode(),
        base64.b64encode(zlib.compress(b"[{}]" * 9)[:-6]).decode(),
        packed(b""),
        packed(b"[{}"),
        packed(b"[NaN]"),
        packed(b"\xff"),
        packed(b"[" * 100_000),
    ],
)
def test_what_was_not_packed_here_is_an_error_of_one_kind(text: str) -> None:
    with pytest.raises(DeliveryError, match=r"The records of the batch (cannot be unpacked|are more than)"):
        records_of({"total": 1, "packed": text})


@pytest.mark.parametrize(
    ("total", "text"),
    [
        (1, b"{}"),
        (1, b"null"),
        (1, b"[]"),
        (1, b"[{},{}]"),
        (MAX_RECORDS + 1, b"[" + b"0," * MAX_RECORDS + b"0]"),
    ],
)
def test_the_records_are_as_many_as_the_input_says(total: int, text: bytes) -> None:
    with pytest.raises(DeliveryError, match="are not as many as it says"):
        records_of({"total": total, "packed": packed(text)})


def _has_infinity(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    if isinstance(value, list):
        return any(map(_has_infinity, value))
    return value in {float("inf"), float("-inf")} if isinstance(value, float) else False
