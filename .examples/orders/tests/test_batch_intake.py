from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest
from azure.functions import HttpRequest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.api.business import MAX_BYTES
from shared.api.strict_json import MAX_DEPTH
from shared.delivery.batch_input import MAX_RECORDS
from shared.delivery.batch_intake import MAX_BATCH_BYTES, MAX_FAULTS, read_batch
from shared.delivery.exchange import Request
from shared.delivery.problem import ProblemError

RECORD = business("b-0", more=[1, None, "ö"])
WITHOUT_ID = {name: value for name, value in RECORD.items() if name != "externalId"}
NDJSON = "application/x-ndjson"


def records(count: int) -> list[dict[str, Any]]:
    return [RECORD | {"externalId": f"b-{index}"} for index in range(count)]


def request(body: object, content_type: str | None = "application/json") -> Request:
    octets = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {} if content_type is None else {"Content-Type": content_type}
    host = HttpRequest("POST", "https://app.example/api/businesses/batch", headers=headers, body=octets)
    return Request(host.url, host.headers, host.get_body())


def lines(values: list[Any], end: str = "\n") -> bytes:
    return end.join(json.dumps(value) for value in values).encode()


def read(body: object, content_type: str | None = "application/json") -> list[dict[str, Any]]:
    return [business.to_json() for business in read_batch(request(body, content_type))]


def refusal(body: object, content_type: str | None = "application/json") -> dict[str, Any]:
    with pytest.raises(ProblemError) as caught:
        read(body, content_type)
    reply = caught.value.reply
    assert reply.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = json.loads(reply.body)
    assert document["status"] == reply.status
    return document


def pointers(document: dict[str, Any]) -> list[str]:
    return [error["pointer"] for error in document["errors"]]


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_an_array_is_a_batch(content_type: str) -> None:
    assert read(records(3), content_type) == records(3)


@pytest.mark.parametrize("content_type", [NDJSON, "application/jsonl", "Application/X-NDJSON; charset=utf-8"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n  \n", "\n\r\n"])
def test_lines_are_a_batch_whatever_ends_them(content_type: str, end: str) -> None:
    assert read(lines(records(3), end) + end.encode(), content_type) == records(3)
    assert read(end.encode() + lines(records(3), end), content_type) == records(3)


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\u000b"])
def test_only_a_line_feed_ends_a_line(separator: str) -> None:
    # Python's splitlines() would break a record at each of these, JSON does not.
    record = RECORD | {"note": f"one{separator}two"}
    assert read(json.dumps(record, ensure_ascii=separator < " ").encode(), NDJSON) == [record]


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/xml", "application/jsonlines", "json"])
def test_another_media_type_is_a_415_that_names_those_that_are_taken(content_type: str | None) -> None:
    document = refusal(records(1), content_type)

    assert document["status"] == 415
    for media_type in ("application/json", NDJSON, "application/jsonl"):
        assert media_type in document["detail"]


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_as_many_records_as_are_allowed_are_taken_and_one_more_is_a_413(content_type: str) -> None:
    def body(count: int) -> bytes:
        return lines(records(count)) if content_type == NDJSON else json.dumps(records(count)).encode()

    assert len(read(body(MAX_RECORDS), content_type)) == MAX_RECORDS
    document = refusal(body(MAX_RECORDS + 1), content_type)
    assert (document["status"], "1001 records" in document["detail"]) == (413, True)


def test_too_many_lines_are_refused_before_they_are_read() -> None:
    assert refusal(b"{\n" * 100_000, NDJSON)["status"] == 413


def padded(size: int) -> bytes:
    """A batch of exactly so many bytes."""
    body = json.dumps(records(20)).encode()
    return body + b" " * (size - len(body))


def test_as_many_bytes_as_are_allowed_are_taken_and_one_more_is_a_413() -> None:
    assert len(read(padded(MAX_BATCH_BYTES))) == 20
    assert refusal(padded(MAX_BATCH_BYTES + 1))["status"] == 413


def written(record: dict[str, Any], size: int) -> bytes:
    """The record's JSON text in exactly so many bytes, most of them in a member of its own."""
    empty = len(json.dumps(record | {"note": ""}).encode())
    return json.dumps(record | {"note": "x" * (size - empty)}).encode()


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
def test_a_record_of_as_many_bytes_as_are_allowed_is_taken_and_one_more_is_a_422(content_type: str) -> None:
    def body(size: int) -> bytes:
        two = [json.dumps(RECORD | {"externalId": "b-1"}).encode(), written(RECORD, size)]
        return b"\r\n".join([*two, b""]) if content_type == NDJSON else b"[ " + b" ,\n".join(two) + b" ]"

    assert len(read(body(MAX_BYTES), content_type)) == 2
    document = refusal(body(MAX_BYTES + 1), content_type)
    assert (document["status"], pointers(document)) == (422, ["#/1"])
    assert f"{MAX_BYTES + 1} bytes" in document["errors"][0]["detail"]


def test_a_record_may_be_no_longer_where_it_is_sent_on() -> None:
    # Five bytes as they come, nineteen as they go: 9000000000000000.0 and a comma.
    empty = json.dumps(RECORD | {"x": []}).encode()
    numbers = empty.replace(b'"x": []', b'"x": [' + b",".join([b"9e15"] * 4_000) + b"]")

    (fault,) = refusal(b"[" + numbers + b"]")["errors"]
    assert fault["pointer"] == "#/0"
    assert re.fullmatch(f"has 7[0-9]{{4}} bytes, more than the {MAX_BYTES} allowed", fault["detail"])


def test_too_large_a_record_is_named_beside_the_faults_of_the_others() -> None:
    large = written(RECORD, MAX_BYTES + 1)
    assert pointers(refusal(b"[" + lines([WITHOUT_ID]) + b"," + large + b",5]")) == ["#/0/externalId", "#/1", "#/2"]


@pytest.mark.parametrize("content_type", ["application/json", NDJSON])
@pytest.mark.parametrize(
    ("text", "status"),
    [
        # None of these is JSON as the app takes it: decoded, they would be a 400.
        ([b'{"a": 1, "a": 2}'] * (MAX_RECORDS + 1), 413),
        ([b'{"a": 1, "a": 2, "b": "' + b"x" * MAX_BYTES + b'"}'], 422),
    ],
)
def test_the_limits_are_checked_before_a_record_is_decoded(content_type: str, text: list[bytes], status: int) -> None:
    body = b"\n".join(text) if content_type == NDJSON else b"[" + b",".join(text) + b"]"

    assert refusal(body, content_type)["status"] == status


@pytest.mark.parametrize("element", [b"{}", b"0", b"[]", b'""'])
def test_a_megabyte_of_nothing_is_refused_in_no_time(element: bytes) -> None:
    body = b"[" + (element + b",") * ((MAX_BATCH_BYTES - 10) // (len(element) + 1)) + element + b"]"
    start = time.process_time()

    assert refusal(body)["status"] == 413
    # 20 ms where each element is left as it is, seconds where each is decoded.
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"[]", "application/json"), (b" [ ] ", "application/json"), (b"", NDJSON), (b"\n \r\n", NDJSON)],
)
def test_a_batch_without_records_is_a_422(body: bytes, content_type: str) -> None:
    assert refusal(body, content_type)["status"] == 422


@pytest.mark.parametrize("body", [b"{}", b"null", b'"text"', b"1", b'{"externalId": "b-1", "name": "Ada"}'])
def test_json_that_is_no_array_is_a_422_that_says_where_it_belongs(body: bytes) -> None:
    document = refusal(body)

    assert document["status"] == 422
    assert "POST /businesses" in document["detail"]
    assert NDJSON in document["detail"]


@pytest.mark.parametrize("body", [b"", b" ", b"[", b"[1,]", b"[NaN]", b"\xff", b"[] []", b"[]\xff"])
def test_what_is_not_json_is_a_400_with_the_place(body: bytes) -> None:
    document = refusal(body)

    assert (document["status"], pointers(document)) == (400, ["#"])
    assert document["detail"].endswith("Nothing was started.")


@pytest.mark.parametrize(
    "text",
    [b'{"a": 1, "a": 2}', b'{"a": "\xff"}', b"[1" + b"0" * 30 + b"]", b"[" * 40 + b"]" * 40],
)
def test_a_record_of_an_array_that_is_not_strict_json_is_a_400_with_its_index(text: bytes) -> None:
    document = refusal(b"[ {} ,\n" + text + b" , {}]")

    assert (document["status"], pointers(document)) == (400, ["#/1"])
    assert document["detail"].startswith("Record 1 ")


@pytest.mark.parametrize("line", [b"{", b"[1,]", b'{"a": NaN}', b"\xff", b'{"a": 1, "a": 2}', b"{} {}"])
def test_a_line_that_is_not_json_is_a_400_with_its_index(line: bytes) -> None:
    # An empty line has no index.
    document = refusal(lines(records(2)) + b"\n\n" + line + b"\n" + lines(records(1)), NDJSON)

    assert (document["status"], pointers(document)) == (400, ["#/2"])
    assert document["detail"].startswith("Record 2 ")


def nested(depth: int) -> bytes:
    """A record that is nested so deep."""
    return json.dumps(RECORD | {"x": 0}).encode().replace(b'"x": 0', b'"x": ' + b"[" * (depth - 1) + b"]" * (depth - 1))


def test_a_record_may_be_as_deep_in_a_batch_as_alone() -> None:
    assert len(read(b"[" + nested(MAX_DEPTH) + b"]")) == 1
    assert len(read(nested(MAX_DEPTH), NDJSON)) == 1
    assert refusal(b"[" + nested(MAX_DEPTH + 1) + b"]")["status"] == 400
    assert refusal(nested(MAX_DEPTH + 1), NDJSON)["status"] == 400


def test_every_fault_of_every_record_is_named_by_its_index() -> None:
    batch = [*records(2), 5, business(""), None, WITHOUT_ID, RECORD | {"externalId": ".."}]

    document = refusal(batch)
    assert document["status"] == 422
    assert pointers(document) == ["#/2", "#/3/externalId", "#/4", "#/5/externalId", "#/6/externalId"]
    assert "in 5 places. Nothing was started." in document["detail"]


def test_an_external_id_that_is_there_twice_is_named_with_the_first() -> None:
    batch = [*records(3), RECORD | {"externalId": "b-1"}, RECORD | {"externalId": "b-1", "note": "Bob"}]

    document = refusal(batch)
    assert pointers(document) == ["#/3/externalId", "#/4/externalId"]
    assert {error["detail"] for error in document["errors"]} == {"is the same as that of record 1"}


def test_a_record_that_durable_would_take_for_its_own_is_refused_where_it_stands() -> None:
    marked = {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}
    batch = [RECORD, RECORD | {"externalId": "b-1", "deep": [{"er": marked}]}]

    assert pointers(refusal(batch)) == ["#/1/deep/0/er"]


@pytest.mark.parametrize(("bad", "said"), [(MAX_FAULTS, ""), (MAX_FAULTS + 1, "; the first 100 are named")])
def test_of_very_many_faults_the_first_are_named(bad: int, said: str) -> None:
    document = refusal([RECORD, *[business("", index=index) for index in range(bad)]])

    assert len(document["errors"]) == min(bad, MAX_FAULTS)
    assert document["detail"] == f"The batch breaks rules in {bad} places{said}. Nothing was started."


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=6,
)


good_records = st.builds(
    lambda number, more: {**more, **business(f"b-{number}"), "isGood": True},
    st.integers(0, 50),
    st.dictionaries(st.text(max_size=5), json_values, max_size=2),
)


def is_good(values: list[Any]) -> bool:
    ids = [value["externalId"] for value in values if isinstance(value, dict) and value.get("isGood") is True]
    return 0 < len(values) == len(ids) == len(set(ids))


@given(
    st.lists(good_records, max_size=5) | st.lists(good_records | json_values, max_size=5),
    st.sampled_from(["application/json", NDJSON]),
)
def test_a_batch_is_taken_as_it_is_or_refused_as_a_whole(values: list[Any], content_type: str) -> None:
    body = lines(values) if content_type == NDJSON else json.dumps(values).encode()

    if is_good(values):
        assert read(body, content_type) == values
    else:
        assert refusal(body, content_type)["status"] == 422


@given(st.binary(max_size=60), st.sampled_from(["application/json", NDJSON]))
def test_any_bytes_are_answered(body: bytes, content_type: str) -> None:
    assert refusal(body, content_type)["status"] in {400, 422}
