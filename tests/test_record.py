from __future__ import annotations

import codecs
from dataclasses import replace
from decimal import Decimal
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from shared.errors import InvalidRecordError, JsonError
from shared.resource import LookUp, Record
from shared.rules.record import MAX_BYTES, at_pointer, named_id, read_record, shown_id
from tests.models import PARCEL

TEXT = b'{"parcelId": "P-1", "weight": 1.50, "more": [1, {"deep": null}]}'


class Line(Record):
    sku: Annotated[str, Meta(min_length=1)]


class Order(Record, forbid_unknown_fields=True):
    number: int
    lines: list[Line]
    low: int = 0
    high: int = 9

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low must not exceed high")


ORDER = replace(PARCEL, model=Order, id="number", name="Order")


@pytest.mark.parametrize("text", [TEXT, codecs.BOM_UTF8 + TEXT, b" \r\n" + TEXT + b"\t"])
def test_a_record_keeps_the_text_that_its_caller_sent(text: bytes) -> None:
    record = read_record(PARCEL, text)

    assert (record.id, record.text) == ("P-1", TEXT)
    assert record.content()["weight"] == Decimal("1.50")
    assert "P-1" in repr(record)
    assert "1.50" not in repr(record)


@pytest.mark.parametrize(
    ("resource", "text", "faults"),
    [
        (PARCEL, b"{}", [("/parcelId", "is missing"), ("/weight", "is missing")]),
        (PARCEL, b'{"parcelId": "", "weight": []}', [("/parcelId", "str of length >= 1"), ("/weight", "got array")]),
        (PARCEL, b'{"parcelId": "..", "weight": 1}', [("/parcelId", "")]),
        (PARCEL, b'{"parcelId": "a\\u0000", "weight": 1}', [("/parcelId", "control character")]),
        (PARCEL, b"[]", [("", "must be a JSON object")]),
        (ORDER, b'{"number": 1, "lines": [{"sku": "a"}, {"sku": ""}]}', [("/lines/1/sku", "length >= 1")]),
        (ORDER, b'{"number": 1, "lines": [], "low": 5, "high": 1}', [("", "low must not exceed high")]),
        (ORDER, b'{"number": 1, "lines": [], "other": 1}', [("", "unknown field")]),
    ],
)
def test_names_every_fault_with_a_pointer(resource, text: bytes, faults: list[tuple[str, str]]) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001, a Resource
    with pytest.raises(InvalidRecordError) as caught:
        read_record(resource, text)

    assert [fault.pointer for fault in caught.value.faults] == [pointer for pointer, _ in faults]
    for fault, (_, words) in zip(caught.value.faults, faults, strict=True):
        assert words in fault.detail


def test_a_record_that_is_too_long_or_no_json_is_refused_before_it_is_checked() -> None:
    with pytest.raises(InvalidRecordError, match="more than the 65536 allowed"):
        read_record(PARCEL, b'{"parcelId": "P-1", "weight": 1, "x": "' + b"y" * MAX_BYTES + b'"}')
    with pytest.raises(JsonError, match="more than once"):
        read_record(PARCEL, b'{"parcelId": "P-1", "weight": 1, "weight": 2}')


def test_a_whole_number_can_be_the_id() -> None:
    assert read_record(ORDER, b'{"number": 70001, "lines": []}').id == "70001"


@pytest.mark.parametrize(
    ("text", "shown"),
    [(TEXT, "P-1"), ("[]", ""), (b"{", ""), (b'{"parcelId": "a\\n"}', "a\\n"), (b'{"parcelId": 5}', "5")],
)
def test_shows_the_id_of_a_record_that_nobody_has_checked(text: str | bytes, shown: str) -> None:
    assert shown_id(PARCEL, text) == shown
    assert len(shown_id(PARCEL, msgspec.json.encode({"parcelId": "x" * 5_000}))) == 128


def test_finds_the_id_that_a_partner_names_where_the_look_up_says() -> None:
    nested = replace(PARCEL, look_up=LookUp("/parcels/{id}", id="/data/refs/0"))

    assert named_id(PARCEL, {"parcelId": "P-1"}) == "P-1"
    assert named_id(nested, {"parcelId": "no", "data": {"refs": [7, 8]}}) == "7"
    odd_ids: list[object] = [None, True, [], {}]
    assert [named_id(PARCEL, {"parcelId": odd}) for odd in odd_ids] == [None] * 4
    assert at_pointer({"a/b": {"~": [1]}}, "/a~1b/~0/0") == 1
    assert [at_pointer({"a": [1]}, pointer) for pointer in ("/b", "/a/1", "/a/x", "/a/0/0")] == [None] * 4
