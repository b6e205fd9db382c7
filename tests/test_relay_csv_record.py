from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from relay.csv_record import csv_record
from relay.errors import CommandError
from relay.record_types import RecordType, choose, read_record_types, read_schema
from tests.fakes.relay_app import document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PARCEL = choose(read_record_types(document()), None)


def converted(
    header: Sequence[str], row: Sequence[str], mapping: Mapping[str, str] | None = None, type_: RecordType = PARCEL
) -> tuple[str, str | None]:
    text, fault = csv_record(type_, header, mapping or {}, []).convert(row)
    return text.decode(), fault


def record_type(**members: object) -> RecordType:
    schema = {"type": "object", "required": list(members), "properties": members}
    return RecordType("Thing", "things", read_schema(schema, {}))


def test_writes_each_cell_with_the_type_of_its_member() -> None:
    header = ["parcelId", "city", "grams", "isFragile", "price.amount"]
    text, fault = converted(header, ["007", 'K"öln', "12", "TRUE", "1.10"])
    assert text == '{"parcelId":"007","city":"K\\"öln","grams":12,"isFragile":true,"price":{"amount":1.10}}'
    assert fault is None


@pytest.mark.parametrize("number", ["1.10", "-0.0", "1e5", "12345678901234567890.123456789", "0"])
def test_keeps_a_number_as_the_cell_has_it(number: str) -> None:
    assert converted(["n"], [f" {number} "], type_=record_type(n={"type": "number"})) == (f'{{"n":{number}}}', None)


@pytest.mark.parametrize("cell", ["1,5", "007", "+1", "1.", ".5", "NaN", "0x10", "1 000", "€5", "\u0661"])
def test_reports_what_is_not_a_json_number(cell: str) -> None:
    _, fault = converted(["n"], [cell], type_=record_type(n={"type": "number"}))
    assert fault == f"/n: must be a number such as 12.50, not {cell!r}"


def test_an_empty_cell_is_null_where_null_is_allowed_and_left_out_where_the_member_is_optional() -> None:
    header = ["parcelId", "city", "grams", "isFragile", "price.amount", "price.note"]
    assert converted(header, ["p1", "", "", "", "", ""]) == (
        '{"parcelId":"p1","city":"","grams":null,"price":null}',
        None,
    )


def test_a_required_number_must_not_be_empty() -> None:
    _, fault = converted(["n"], [" "], type_=record_type(n={"type": "integer"}))
    assert fault == "/n: is empty, must be a whole number such as 12"


def test_names_every_bad_cell_of_a_row() -> None:
    _, fault = converted(["parcelId", "city", "grams", "isFragile"], ["p1", "Ulm", "x", "maybe"])
    assert fault == "/grams: must be a whole number such as 12, not 'x'; /isFragile: must be true or false, not 'maybe'"


def test_columns_of_list_elements_make_a_list_without_the_empty_ones() -> None:
    header = ["parcelId", "city", "/lines/0/amount", "lines.1.amount", "lines.2.amount"]
    text, _ = converted(header, ["p1", "Ulm", "1.0", "", "3.0"])
    assert json.loads(text)["lines"] == [{"amount": 1.0}, {"amount": 3.0}]
    assert "lines" not in json.loads(converted(header, ["p1", "Ulm", "", "", ""])[0])


def test_a_cell_can_hold_a_whole_list_as_json() -> None:
    header = ["parcelId", "city", "lines"]
    assert converted(header, ["p", "Ulm", '[{"amount":1.50}]'])[0].endswith('"lines":[{"amount":1.50}]}')
    assert converted(header, ["p", "Ulm", "1;2"])[1] == "/lines: must be a JSON array, not '1;2'"


def test_an_enumeration_has_the_type_of_its_values() -> None:
    type_ = record_type(n={"enum": [1, 2]}, s={"enum": ["1", "2"]})
    assert converted(["n", "s"], ["1", "1"], type_=type_) == ('{"n":1,"s":"1"}', None)


def test_a_column_matches_a_member_whatever_its_case_and_separators() -> None:
    assert converted(["Parcel ID", "CITY", "is_fragile"], ["p1", "Ulm", "no"]) == (
        '{"parcelId":"p1","city":"Ulm","isFragile":false}',
        None,
    )


def test_maps_and_ignores_columns() -> None:
    mapping = {"No.": "parcelId", "Cost": "price.amount", "Internal": ""}
    text, _ = converted(["No.", "city", "Cost", "Internal"], ["p1", "Ulm", "2.50", "x"], mapping)
    assert text == '{"parcelId":"p1","city":"Ulm","price":{"amount":2.50}}'


def test_passes_on_a_column_that_the_schema_does_not_describe_as_text_and_says_so() -> None:
    record = csv_record(PARCEL, ["parcelId", "city", "v1.0"], {}, [])
    assert record.convert(["p1", "Ulm", "5"]) == (b'{"parcelId":"p1","city":"Ulm","v1.0":"5"}', None)
    assert "v1.0" in record.notices[0]


@pytest.mark.parametrize(
    ("header", "mapping", "message"),
    [
        (["parcelId"], {}, "No column is the required member 'city'"),
        (["number", "town"], {}, "No column is the required members 'parcelId', 'city'"),
        (["parcelId", "city"], {"town": "city"}, "--map names the column 'town'"),
        (["parcelId", "city", "town"], {"town": "city"}, "'town' and another one are the same member"),
        (["parcelId", "city", "city"], {}, "the column 'city' twice"),
        (["parcelId", "city", "price", "price.amount"], {}, "a member of a member that is a column itself"),
    ],
)
def test_refuses_columns_that_do_not_fit_the_record_type(
    header: list[str], mapping: dict[str, str], message: str
) -> None:
    with pytest.raises(CommandError, match=message):
        csv_record(PARCEL, header, mapping, [])


def test_refuses_an_unknown_column_where_the_record_type_is_closed() -> None:
    schema = {"type": "object", "properties": {"a": {}}, "additionalProperties": False}
    with pytest.raises(CommandError, match="no member for the column 'b'"):
        csv_record(RecordType("Thing", "things", read_schema(schema, {})), ["a", "b"], {}, [])


def test_a_record_type_is_chosen_by_name_or_route_and_needs_no_choice_if_it_is_alone() -> None:
    types = read_record_types(document(("Parcel", "Letter")))
    assert choose(types, "letter").route == choose(types, "letters").route == "letters"
    with pytest.raises(CommandError, match="several record types: Parcel, Letter"):
        choose(types, None)
    with pytest.raises(CommandError, match="no record type 'order'"):
        choose(types, "order")
