from __future__ import annotations

import json
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from shared.api.business import MAX_BYTES, Business, check_external_id
from shared.errors import Fault, InvalidBusinessError

ALLOWED = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
FORBIDDEN = st.characters(categories=["Cc", "Cs"])


class Shop(Business, frozen=True, kw_only=True, rename="camel"):
    """A model changed as its docstring says."""

    city: Annotated[str, Meta(max_length=3)]
    vat_id: str | None = None
    tags: list[Annotated[str, Meta(max_length=2)]] = msgspec.field(default_factory=list)
    hours: dict[Annotated[str, Meta(max_length=3)], int] = msgspec.field(default_factory=dict)


def faults(record: object, model: type[Business] = Business) -> dict[str, str]:
    with pytest.raises(InvalidBusinessError) as caught:
        model.from_json(record)
    return {fault.pointer: fault.detail for fault in caught.value.faults}


def test_a_record_is_passed_on_unchanged() -> None:
    record = {"externalId": "a", "name": "b", "$record": 1, "record": 2, "external_id": 3, "zip": None, "x": {"y": []}}
    business = Business.from_json(record)
    assert (business.external_id, business.name) == ("a", "b")
    assert business.to_json() == record
    assert json.loads(business.encode()) == record


def test_the_record_is_encoded_in_its_order_as_utf_8() -> None:
    text = '{"name":"ä😀","z":1.5,"externalId":"a","n":18446744073709551615}'.encode()
    assert Business.decode(text).encode() == text


@pytest.mark.parametrize("length", [1, 128])
def test_an_external_id_may_have_1_to_128_characters(length: int) -> None:
    assert Business.from_json({"externalId": "😀" * length, "name": "n"}).external_id == "😀" * length


@pytest.mark.parametrize("length", [1, 256])
def test_a_name_may_have_1_to_256_characters(length: int) -> None:
    assert Business.from_json({"externalId": "a", "name": "ä" * length}).name == "ä" * length


@pytest.mark.parametrize("record", [None, [], "text", 1, True, [{"externalId": "a", "name": "b"}]])
def test_what_is_no_object_is_no_record(record: object) -> None:
    assert faults(record) == {"": "must be a JSON object"}


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({}, {"/externalId": "is missing", "/name": "is missing"}),
        ({"external_id": "a", "name": "b"}, {"/externalId": "is missing"}),
        ({"externalId": "a", "name": ""}, {"/name": "must be str of length >= 1"}),
        ({"externalId": "a", "name": "b" * 257}, {"/name": "must be str of length <= 256"}),
        ({"externalId": "", "name": "b"}, {"/externalId": "must be str of length >= 1"}),
        ({"externalId": "a" * 129, "name": "b"}, {"/externalId": "must be str of length <= 128"}),
        (
            {"externalId": 7, "name": None},
            {"/externalId": "must be str, got int", "/name": "must be str, got null"},
        ),
        (
            {"externalId": ["a"], "name": {"b": 1}},
            {"/externalId": "must be str, got array", "/name": "must be str, got object"},
        ),
        (
            {"externalId": ".."},
            {"/externalId": 'must not be "." or "..": a URL takes them for folders', "/name": "is missing"},
        ),
        ({"externalId": "a\x00", "name": "b"}, {"/externalId": "must not have control characters"}),
    ],
)
def test_every_broken_rule_is_named_at_once(members: dict[str, object], expected: dict[str, str]) -> None:
    assert faults(members) == expected


def test_a_model_of_ones_own_is_checked_down_to_its_leaves() -> None:
    record = {
        "externalId": "a",
        "name": "b",
        "city": "Ulm",
        "vatId": None,
        "tags": ["ab"],
        "hours": {"mon": 8},
        "other": 1,
    }
    shop = Shop.decode(json.dumps(record).encode())
    assert (shop.city, shop.vat_id, shop.tags, shop.hours) == ("Ulm", None, ["ab"], {"mon": 8})
    assert shop.to_json() == record
    assert faults({"externalId": "a", "name": "b", "vatId": 1, "tags": ["ok", "bad"], "hours": {"mon": "8"}}, Shop) == {
        "/city": "is missing",
        "/vatId": "must be str | null, got int",
        "/tags/1": "must be str of length <= 2",
        "/hours": "must be int, got str",
    }
    assert faults({"externalId": "a", "name": "b", "city": "Ulm", "hours": {"monday": 8}}, Shop) == {
        "/hours": "must be str of length <= 3"
    }


def test_members_that_may_be_missing_may_be_missing() -> None:
    shop = Shop.from_json({"externalId": "a", "name": "b", "city": "Ulm"})
    assert (shop.vat_id, shop.tags, shop.hours) == (None, [], {})


def test_the_text_of_a_record_may_have_64_kib() -> None:
    envelope = b'{"externalId":"a","name":"b","x":"%s"}'
    filling = MAX_BYTES - len(envelope % b"")
    assert Business.decode(envelope % (b"x" * filling)).external_id == "a"
    with pytest.raises(InvalidBusinessError, match="has 65537 bytes, more than the 65536 allowed"):
        Business.decode(envelope % (b"x" * (filling + 1)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is not JSON"),
        (b'{"externalId":"a","externalId":"b","name":"c"}', "more than once"),
        (b'{"externalId":"a","name":"\\ud800"}', "lone surrogate"),
        (b'{"externalId":"a","name":"b","x":NaN}', "NaN"),
        (b'{"externalId":"a","name":"b","x":1e400}', "no double"),
        (b'{"externalId":"a","name":"b","x":' + b"[" * 32 + b"]" * 32 + b"}", "deeper than 32"),
        (b'\xff{"externalId":"a","name":"b"}', "not UTF-8"),
    ],
)
def test_a_text_that_is_not_strict_json_is_an_invalid_record(text: bytes, words: str) -> None:
    with pytest.raises(InvalidBusinessError, match=words) as caught:
        Business.decode(text)
    assert [fault.pointer for fault in caught.value.faults] == [""]


def test_a_record_of_strict_json_that_breaks_a_rule_says_which() -> None:
    with pytest.raises(InvalidBusinessError) as caught:
        Business.decode(b'{"externalId":"a"}')
    assert caught.value.faults == (Fault("/name", "is missing"),)


@given(ALLOWED.filter(lambda external_id: external_id not in {".", ".."}))
def test_every_text_of_printable_characters_is_an_external_id(external_id: str) -> None:
    check_external_id(external_id)
    assert Business.from_json({"externalId": external_id, "name": "n"}).external_id == external_id


@given(st.text(max_size=64), FORBIDDEN, st.text(max_size=63))
def test_no_external_id_has_a_control_character_or_half_a_character(before: str, bad: str, after: str) -> None:
    with pytest.raises(InvalidBusinessError, match="must not have control characters"):
        check_external_id(before + bad + after)


@pytest.mark.parametrize(
    ("external_id", "detail"),
    [
        ("", "must have 1 to 128 characters"),
        ("x" * 129, "must have 1 to 128 characters"),
        (".", 'must not be "." or "..": a URL takes them for folders'),
        ("..", 'must not be "." or "..": a URL takes them for folders'),
        ("a\r\nb", "must not have control characters"),
    ],
)
def test_an_external_id_alone_is_refused_as_a_whole(external_id: str, detail: str) -> None:
    with pytest.raises(InvalidBusinessError) as caught:
        check_external_id(external_id)
    assert caught.value.faults == (Fault("", detail),)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["externalId", "name", "other"]), JSON) | JSON)
def test_any_json_is_a_record_or_has_faults_that_name_its_members(record: Any) -> None:  # noqa: ANN401, it is any JSON
    try:
        kept = Business.from_json(record).to_json()
    except InvalidBusinessError as exc:
        pointers = {fault.pointer for fault in exc.faults}
    else:
        assert kept == record
        return
    assert pointers
    assert pointers <= {"", "/externalId", "/name"}


def test_the_model_has_a_schema_for_the_api_description() -> None:
    schema = msgspec.json.schema(Business)["$defs"]["Business"]
    assert schema["properties"]["externalId"]["maxLength"] == 128
    assert schema["properties"]["name"]["maxLength"] == 256
    assert {"externalId", "name"} <= set(schema["required"])


def test_a_record_is_written_out_once() -> None:
    its = Business.from_json({"externalId": "b-1", "name": "Acme"})
    assert its.encode() is its.encode()
    assert "_text_of_record" not in repr(its)
    assert Business.from_json({"externalId": "b-1", "name": "Acme"}) == its


@pytest.mark.parametrize(
    "text", [b'{"externalId":"b-1","name":"Acme","x":[1.5]}', b'{"externalId": "b-1", "name": "Acme"}']
)
def test_what_was_decoded_is_written_out_as_any_other(text: bytes) -> None:
    its = Business.decode(text)
    assert its.encode() == msgspec.json.encode(its.record) == Business.from_json(json.loads(text)).encode()
