from __future__ import annotations

import gzip
import json
from contextlib import ExitStack

import msgspec
import pytest

from shared.errors import RefusedError
from shared.http.intake import MAX_BATCH_BYTES, IntakeBudget, idempotency_key, read_batch, read_one
from shared.http.messages import Request, problem
from tests.models import PARCEL

ONE = b'{"parcelId": "P-1", "weight": 1.50}'
JSON = {"content-type": "application/json"}


def parcel(number: int) -> bytes:
    return b'{"parcelId": "P-%d", "weight": 1}' % number


def posted(body: bytes, **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("POST", "http://app/api/parcels", JSON | named, body)


def refusal(read: object, *arguments: object) -> dict[str, object]:
    with pytest.raises(RefusedError) as caught:
        read(*arguments)  # type: ignore[operator]  # one of the functions above
    reply = problem(caught.value.kind, caught.value.detail, **caught.value.options)
    content = msgspec.json.decode(reply.body)
    assert content["type"].startswith("/api/docs#")
    return {**content, "kind": content["type"].rpartition("#")[2], "headers": reply.headers}


@pytest.mark.parametrize(
    "media_type", ["application/json", "Application/JSON; charset=UTF-8", 'application/x+json; charset="us-ascii"']
)
def test_reads_a_record_under_every_json_media_type(media_type: str) -> None:
    assert read_one(posted(ONE, content_type=media_type), PARCEL).text == ONE


@pytest.mark.parametrize("encoding", ["gzip", "X-GZIP", "identity, gzip"])
def test_unpacks_a_body(encoding: str) -> None:
    assert read_one(posted(gzip.compress(ONE), content_encoding=encoding), PARCEL).id == "P-1"


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (posted(ONE, content_type=""), "media-type", "and none is given"),
        (
            posted(ONE, content_type="text/json"),
            "media-type",
            "application/json or application/*+json, not 'text/json'",
        ),
        (posted(ONE, content_type="application/x-ndjson"), "media-type", "not 'application/x-ndjson'"),
        (posted(ONE, content_type="application/json; charset=utf-16"), "media-type", "not 'utf-16'"),
        (posted(ONE, content_encoding="br"), "content-encoding", "'br'"),
        (posted(ONE, content_encoding="gzip"), "content-encoding", "not gzip"),
        (posted(b"", transfer_encoding="Chunked"), "length-required", "Content-Length"),
        (posted(b" " * 65_537), "too-large", "65537 bytes, more than the 65536"),
        (posted(gzip.compress(b" " * 10**7), content_encoding="gzip"), "too-large", "more than the 65536"),
        (posted(b"{"), "malformed", "is not JSON"),
        (posted(b"{}"), "invalid-record", "The record breaks a rule"),
    ],
)
def test_says_why_a_body_is_refused(request_: Request, kind: str, words: str) -> None:
    told = refusal(read_one, request_, PARCEL)

    assert (told["kind"], words in str(told["detail"])) == (kind, True), told


@pytest.mark.parametrize(
    ("request_", "header"),
    [
        (posted(ONE, content_encoding="br"), {"accept-encoding": "gzip, deflate"}),
        (posted(ONE, content_type="text/json"), {"accept": "application/json"}),
        (posted(ONE, content_type="application/json; charset=utf-16"), {"accept": "application/json"}),
    ],
)
def test_a_refused_type_or_encoding_names_the_accepted_ones(request_: Request, header: dict[str, str]) -> None:
    told = refusal(read_one, request_, PARCEL)

    assert told["headers"] == {"content-type": "application/problem+json", **header}


@pytest.mark.parametrize(
    ("media_type", "opening", "between", "closing"),
    [
        ("application/json", b"\xef\xbb\xbf [", b" , ", b"]"),
        ("application/x-ndjson", b"\xef\xbb\xbf", b"\r\n", b"\n"),
        ("application/ndjson", b"", b"\n\n", b""),
        ("application/jsonl", b"", b"\n", b""),
    ],
)
def test_reads_a_batch_and_keeps_the_text_of_each_record(
    media_type: str, opening: bytes, between: bytes, closing: bytes
) -> None:
    texts = [parcel(number) for number in range(3)]
    whole = opening + between.join(texts) + closing

    assert [record.text for record in read_batch(posted(whole, content_type=media_type), PARCEL)] == texts


@pytest.mark.parametrize(
    ("body", "kind", "pointers"),
    [
        (b"[]", "invalid-record", None),
        (ONE, "invalid-record", None),
        (b"[" + parcel(1) + b",]", "malformed", [""]),
        (b"[" + parcel(1) + b", {]", "malformed", None),
        (b'[{"a": 1, "a": 2}]', "malformed", ["#/0"]),
        (b"[" + b",".join([parcel(1), b"5", b"{}", parcel(1)]) + b"]", "invalid-record", None),
        (b"[" + b",".join(map(parcel, range(1_001))) + b"]", "too-large", None),
        (b"[" + b"{}," * 400_000 + b"{}]", "too-large", None),
    ],
)
def test_says_why_a_batch_is_refused(body: bytes, kind: str, pointers: list[str] | None) -> None:
    told = refusal(read_batch, posted(body), PARCEL)

    assert told["kind"] == kind, told
    if pointers == ["#/0"]:
        assert [error["pointer"] for error in told["errors"]] == pointers  # type: ignore[attr-defined]  # a list


def test_names_each_bad_record_of_a_batch_and_at_most_a_hundred_faults() -> None:
    few = refusal(read_batch, posted(b"[" + b",".join([parcel(1), b"5", parcel(1)]) + b"]"), PARCEL)
    one = refusal(read_batch, posted(b"[5]"), PARCEL)
    many = refusal(read_batch, posted(json.dumps([{}] * 300).encode()), PARCEL)

    assert few["errors"] == [
        {"pointer": "#/1", "detail": "must be a JSON object"},
        {"pointer": "#/2/parcelId", "detail": "is the same as that of record 0"},
    ]
    assert len(many["errors"]) == 100  # type: ignore[arg-type]  # a list
    assert "has 1 fault. Nothing" in str(one["detail"])
    assert "600 faults. The first 100 are named." in str(many["detail"])


def test_a_broken_line_is_named_by_its_number() -> None:
    told = refusal(read_batch, posted(parcel(1) + b"\n{", content_type="application/x-ndjson"), PARCEL)

    assert (told["kind"], told["errors"][0]["pointer"]) == ("malformed", "#/1")  # type: ignore[index]  # a list


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "ü", "a\tb"])
def test_an_idempotency_key_is_visible_ascii(key: str) -> None:
    assert idempotency_key(posted(ONE)) is None
    assert idempotency_key(posted(ONE, idempotency_key="k-1")) == "k-1"
    assert refusal(idempotency_key, posted(ONE, idempotency_key=key))["kind"] == "malformed"


def test_a_flag_is_true_or_false() -> None:
    def asked(**query: str) -> Request:
        return Request("GET", "http://app/api", {}, query=query)

    assert asked().flag("probe", default=True)
    assert not asked(probe="False").flag("probe", default=True)
    with pytest.raises(RefusedError):
        asked(probe="maybe").flag("probe", default=True)


def test_the_bytes_in_work_are_bounded_and_given_back() -> None:
    budget = IntakeBudget(2 * MAX_BATCH_BYTES)
    packed = posted(b"small", content_encoding="gzip")
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(budget.hold(packed))
        told = refusal(lambda: held.enter_context(budget.hold(posted(b"x"))))

    assert (told["status"], told["headers"]) == (429, {"content-type": "application/problem+json", "retry-after": "1"})
    with budget.hold(posted(b"x" * MAX_BATCH_BYTES)), budget.hold(packed):
        pass
