from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from azure.functions import HttpRequest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.api.business import MAX_BYTES
from shared.delivery import intake
from shared.delivery.exchange import Reply, Request
from shared.delivery.problem import ProblemError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.api.business import Business

RECORD = business("b-1", more=[1, None, "ö"])


def request(body: bytes | object = RECORD, content_type: str | None = "application/json", **headers: str) -> Request:
    """A request as function_app makes it of the host's: header names are in any case."""
    named = {name.replace("_", "-").title(): value for name, value in headers.items()}
    if content_type is not None:
        named["Content-Type"] = content_type
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    host = HttpRequest("POST", "https://app.example/api/businesses", headers=named, body=octets)
    return Request(host.url, host.headers, host.get_body())


def refusal(read: Callable[[Request], object], given: Request) -> Reply:
    with pytest.raises(ProblemError) as caught:
        read(given)
    reply = caught.value.reply
    assert reply.headers["content-type"] == "application/problem+json"
    assert json.loads(reply.body)["status"] == reply.status
    return reply


def business_or_status(given: Request) -> Business | int:
    try:
        return intake.read_business(given)
    except ProblemError as exc:
        return exc.reply.status


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "application/json ; charset=utf8; x=1",
        "application/json; charset=us-ascii",
    ],
)
def test_a_good_record_passes_unchanged(content_type: str) -> None:
    assert intake.read_business(request(content_type=content_type)).to_json() == RECORD


@pytest.mark.parametrize(
    ("content_type", "words"),
    [
        (None, "none is given"),
        ("", "none is given"),
        ("text/plain", "not 'text/plain'"),
        ("application/x-www-form-urlencoded", "not 'application/x-www-form-urlencoded'"),
        ("application/jsonp", "not 'application/jsonp'"),
        ("application/json, text/html", "not 'application/json, text/html'"),
        ("application/x-ndjson", "not 'application/x-ndjson'"),
        ("x" * 9_999, "x" * 100 + "'"),
    ],
)
def test_another_media_type_is_a_415_that_names_the_right_one(content_type: str | None, words: str) -> None:
    reply = refusal(intake.read_business, request(content_type=content_type))

    assert reply.status == 415
    assert reply.headers["accept"] == "application/json"
    assert words in json.loads(reply.body)["detail"]
    assert len(reply.body) < 500


@pytest.mark.parametrize("charset", ["latin-1", "utf-16", "utf-7", '"iso-8859-1"'])
def test_another_charset_is_a_415(charset: str) -> None:
    reply = refusal(intake.read_business, request(content_type=f"application/json; charset={charset}"))

    assert reply.status == 415
    assert "utf-8" in json.loads(reply.body)["detail"]


def test_the_largest_body_passes_and_one_byte_more_is_a_413() -> None:
    largest = json.dumps(RECORD | {"padding": ""}).encode()
    largest = json.dumps(RECORD | {"padding": "x" * (MAX_BYTES - len(largest))}).encode()

    assert len(largest) == MAX_BYTES
    assert intake.read_business(request(largest)).external_id == "b-1"
    reply = refusal(intake.read_business, request(largest + b" "))
    assert reply.status == 413
    assert "65537" in json.loads(reply.body)["detail"]


def test_a_record_that_is_longer_as_it_is_sent_on_is_a_422() -> None:
    # 9e15 is written out as 9000000000000000.0.
    empty = json.dumps(RECORD | {"x": []}).encode()
    numbers = empty.replace(b'"x": []', b'"x": [' + b",".join([b"9e15"] * 4_000) + b"]")

    reply = refusal(intake.read_business, request(numbers))
    assert reply.status == 422
    assert f"bytes, more than the {MAX_BYTES} allowed" in json.loads(reply.body)["errors"][0]["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b'{"externalId": "b-1", "name": "Ada"} {}',
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b'{"externalId": "b-1", "name": "Ada", "size": NaN}',
        b'{"externalId": "b-1", "name": "Ada", "size": 1e999}',
        b'{"externalId": "b-1", "name": "Ada", "size": 123456789012345678901234567890}',
        b'{"externalId": "b-1", "name": "\\ud800"}',
        b'{"externalId": "b-1", "externalId": "b-2", "name": "Ada"}',
        b'{"\\ud800": 1, "\\ud800": 2}',
        b'{"externalId": "b-1", "name": "Ada", "deep": ' + b"[" * 32 + b"]" * 32 + b"}",
        b"[" * 60_000,
        b"externalId=b-1&name=Ada",
    ],
)
def test_what_is_not_strict_json_is_a_400(body: bytes) -> None:
    reply = refusal(intake.read_business, request(body))

    assert reply.status == 400
    assert json.loads(reply.body)["errors"][0]["pointer"] == "#"


@pytest.mark.parametrize(
    ("record", "pointers"),
    [
        ([], ["#"]),
        ("Ada", ["#"]),
        (None, ["#"]),
        (RECORD | {"externalId": 1}, ["#/externalId"]),
        (RECORD | {"externalId": ""}, ["#/externalId"]),
        (RECORD | {"externalId": "x" * 129}, ["#/externalId"]),
        (RECORD | {"externalId": "."}, ["#/externalId"]),
        (RECORD | {"externalId": ".."}, ["#/externalId"]),
        (RECORD | {"externalId": "a\nb"}, ["#/externalId"]),
        (RECORD | {"externalId": "a\x00"}, ["#/externalId"]),
        (RECORD | {"a": [{"__class__": 1, "__module__": 2, "__data__": 3}]}, ["#/a/0"]),
    ],
)
def test_a_record_that_breaks_rules_is_a_422_that_names_each(record: object, pointers: list[str]) -> None:
    reply = refusal(intake.read_business, request(record))

    assert reply.status == 422
    assert [error["pointer"] for error in json.loads(reply.body)["errors"]] == pointers


@given(st.binary(max_size=200), st.text(max_size=60))
def test_no_body_and_no_media_type_ends_in_anything_but_a_record_or_a_problem(body: bytes, content_type: str) -> None:
    for given_type in ("application/json", content_type):
        passed = business_or_status(request(body, given_type))
        assert not isinstance(passed, int) or passed in {400, 415, 422}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_no_json_at_all_raises_anything_but_a_problem(value: object) -> None:
    passed = business_or_status(request(business("b-1", value=value)))

    if isinstance(passed, int):
        assert passed in {400, 422}
    else:
        assert json.loads(passed.encode())["value"] == value


def test_a_request_without_a_key_names_no_delivery() -> None:
    assert intake.instance_id(request()) is None


@given(st.text(alphabet=[chr(code) for code in range(0x21, 0x7F)], min_size=1, max_size=255))
def test_the_same_key_names_the_same_delivery(key: str) -> None:
    assert intake.instance_id(request(idempotency_key=key)) == intake.instance_id(request(idempotency_key=key))


@given(st.lists(st.text(alphabet="aB%/?#&.~\"'", min_size=1, max_size=6), min_size=2, max_size=2, unique=True))
def test_another_key_names_another_delivery_and_all_can_stand_in_a_url(keys: list[str]) -> None:
    one, two = (intake.instance_id(request(idempotency_key=key)) for key in keys)

    assert one is not None
    assert one != two
    assert one.removeprefix("key-").isalnum()


def test_the_id_derived_from_a_key_stays_what_it_was_in_the_first_version() -> None:
    # After an upgrade the same key must still find the instance that it started.
    id_ = intake.instance_id(request(idempotency_key="8e03978e-40d5-43dd-bc93-6894a57f9324"))

    assert id_ == "key-d77da8028f3c5a13752873cb9c7581d5a1a17396"


@pytest.mark.parametrize("key", ["", " ", "a b", "a\tb", "ö", "x" * 256, "a\x7f", "a,\x01"])
def test_a_key_that_is_not_visible_ascii_is_a_400(key: str) -> None:
    reply = refusal(intake.instance_id, request(idempotency_key=key))

    assert reply.status == 400
    assert "1 to 255 visible ASCII characters" in json.loads(reply.body)["detail"]


@pytest.mark.parametrize("key", ["x", "x" * 255, '"quoted"', "!#$%&'*+-.^_`|~"])
def test_every_visible_ascii_character_may_stand_in_a_key(key: str) -> None:
    assert str(intake.instance_id(request(idempotency_key=key))).startswith("key-")
