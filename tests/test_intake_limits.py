from __future__ import annotations

import gzip
import json

import pytest

from shared.errors import ProblemError
from shared.http.intake import MAX_BATCH_BYTES, IntakeBudget, idempotency_key, read_batch, read_one
from shared.http.request import Reply, Request
from tests.models import PARCEL

RECORD = b'{"parcelId":"P-1","weight":1.50}'


def request(body: bytes = RECORD, **headers: str) -> Request:
    named = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "http://relay.example/api/parcels", named, body)


def refusal(caught: pytest.ExceptionInfo[ProblemError]) -> Reply:
    reply: Reply = caught.value.reply
    return reply


def test_a_process_that_holds_as_much_as_it_can_says_when_to_come_back() -> None:
    budget = IntakeBudget(2 * MAX_BATCH_BYTES)
    large = request(b"x" * MAX_BATCH_BYTES)

    with budget.hold(large), budget.hold(request(content_encoding="gzip")):
        with pytest.raises(ProblemError) as caught, budget.hold(request()):
            pass
        assert (refusal(caught).status, refusal(caught).headers["retry-after"]) == (429, "1")
    with budget.hold(large), budget.hold(large):
        pass


def test_what_fails_frees_what_it_held() -> None:
    budget = IntakeBudget(MAX_BATCH_BYTES)

    for _ in range(3):
        with pytest.raises(ZeroDivisionError), budget.hold(request(b"x" * MAX_BATCH_BYTES)):
            raise ZeroDivisionError


@pytest.mark.parametrize("key", ["", "a b", "\u00e9", "x" * 256, "a\r\nX-Injected: 1"])
def test_a_key_that_no_header_can_hold_is_refused(key: str) -> None:
    with pytest.raises(ProblemError) as caught:
        idempotency_key(request(idempotency_key=key))

    assert refusal(caught).status == 400


@pytest.mark.parametrize("body", [RECORD, b"\xef\xbb\xbf" + RECORD, b" \r\n" + RECORD + b"\n"])
def test_a_record_keeps_its_text(body: bytes) -> None:
    assert read_one(request(body), PARCEL).text == RECORD
    assert read_one(request(gzip.compress(body), content_encoding="x-gzip"), PARCEL).text == RECORD
    assert [record.text for record in read_batch(request(b"[" + RECORD + b"]"), PARCEL)] == [RECORD]


def test_a_chunked_body_that_the_host_has_lost_is_asked_for_with_its_length() -> None:
    with pytest.raises(ProblemError) as caught:
        read_one(request(b"", transfer_encoding="chunked"), PARCEL)

    assert refusal(caught).status == 411


def test_each_fault_of_a_batch_is_named_by_its_record() -> None:
    records = [{"parcelId": "P-1", "weight": "1"}, {"parcelId": "", "weight": 1}, {"parcelId": "P-1", "weight": 1}]

    with pytest.raises(ProblemError) as caught:
        read_batch(request(json.dumps(records).encode()), PARCEL)

    pointers = [error["pointer"] for error in json.loads(refusal(caught).body)["errors"]]
    assert (refusal(caught).status, pointers) == (422, ["#/1/parcelId", "#/2/parcelId"])
