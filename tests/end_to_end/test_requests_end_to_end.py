"""Requests as clients really send them: odd ones that are accepted, and wrong ones that get a problem."""

from __future__ import annotations

import codecs
import gzip
import json
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.end_to_end.stage import NO_TLS, RESOURCE, id_of, ids, record, records

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.end_to_end.stage import Stage

JSON, NDJSON = "application/json", "application/x-ndjson"
ID = RESOURCE.id_member
ONE, BATCH = RESOURCE.route, f"{RESOURCE.route}/batch"
GOOD = record(1)
TEXT = json.dumps(GOOD).encode()


def one(**members: object) -> bytes:
    return json.dumps(GOOD | members).encode()


def with_member(text: bytes) -> bytes:
    """Return the good record with a member "x" of this text."""
    return TEXT[:-1] + b', "x": ' + text + b"}"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (codecs.BOM_UTF8 + TEXT, {"content-type": JSON}),
        (gzip.compress(TEXT), {"content-type": JSON, "content-encoding": "gzip"}),
        (gzip.compress(TEXT), {"content-type": JSON, "content-encoding": "x-gzip"}),
        (TEXT, {"content-type": "application/vnd.partner.record+json; charset=utf-8"}),
        (b" \r\n" + TEXT + b"\n", {"content-type": 'APPLICATION/JSON;charset="UTF-8"'}),
    ],
    ids=["byte order mark", "gzip", "x-gzip", "+json", "white space"],
)
async def test_accepts_a_record_in_the_forms_that_clients_send(
    stage: Stage, body: bytes, headers: dict[str, str]
) -> None:
    single = await stage.ask("POST", ONE, content=body, headers=headers)
    await stage.finished(single.json())

    assert await stage.stored() == ids(1)


async def test_accepts_a_batch_with_a_byte_order_mark_and_gzip(stage: Stage) -> None:
    array = codecs.BOM_UTF8 + json.dumps(records(2)).encode()
    lines = codecs.BOM_UTF8 + b"\r\n".join(json.dumps(record(number)).encode() for number in (3, 4)) + b"\r\n"
    for body, media_type in ((array, JSON), (lines, NDJSON)):
        headers = {"content-type": media_type, "content-encoding": "gzip"}
        accepted = await stage.ask("POST", BATCH, content=gzip.compress(body), headers=headers)
        assert (await stage.finished(accepted.json()))["state"] == "delivered"

    assert await stage.stored() == ids(4)


async def test_a_chunked_body_gets_411_and_is_told_what_to_do(stage: Stage) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield TEXT

    response = await stage.ask("POST", ONE, content=chunks(), headers={"content-type": JSON})

    assert response.status_code == 411
    assert "Content-Length" in response.json()["detail"]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("br", TEXT), ("gzip", TEXT), ("gzip", gzip.compress(TEXT)[:-9]), ("gzip, br", TEXT)],
    ids=["unknown", "not encoded", "cut", "encoded twice"],
)
async def test_an_encoding_that_cannot_be_decoded_gets_415_and_the_accepted_ones(
    stage: Stage, encoding: str, body: bytes
) -> None:
    response = await stage.ask("POST", ONE, content=body, headers={"content-type": JSON, "content-encoding": encoding})

    assert (response.status_code, "gzip" in response.headers["accept-encoding"]) == (415, True)


async def test_a_body_that_unpacks_to_more_than_allowed_gets_413(stage: Stage) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    for path in (ONE, BATCH):
        headers = {"content-type": JSON, "content-encoding": "gzip"}
        assert (await stage.ask("POST", path, content=bomb, headers=headers)).status_code == 413


WRONG_IDS: list[object] = ["", ".", "..", "a\u0000b", "a\tb", "\u007f", "a\u0085", None, True, [], {}, 1.5]
CORPUS: list[tuple[str, str, bytes]] = [
    *(
        (ONE, JSON, body)
        for body in (
            *(b"", b" ", b"null", b"true", b"1", b'"text"', b"[]", b"{}", b"{", b"}", TEXT[:-1] + b",}"),
            *(TEXT + b" {}", TEXT + b"garbage", TEXT.decode().encode("utf-16"), TEXT.decode().encode("utf-32")),
            *(with_member(b'"%s"' % text) for text in (b"\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\\ud800", b"a\nb")),
            *(with_member(number) for number in (b"NaN", b"Infinity", b"-Infinity", b"1e400", b"01", b"+1", b".5")),
            *(with_member(number) for number in (b"1" * 30, b"9" * 5_000, b"0.12345678901234567890", b"0x10")),
            *(with_member(b"1, " + name + b": 2") for name in (b'"x"', b'"\\u0078"')),
            *(with_member(b"[" * depth + b"]" * depth) for depth in (32, 1_000)),
            b"[" * 30_000,
            one(x="y" * 70_000),
            *(one(**{ID: wrong}) for wrong in WRONG_IDS),
            json.dumps({name: value for name, value in GOOD.items() if name != ID}).encode(),
        )
    ),
    *(
        (ONE, media_type, TEXT)
        for media_type in (
            *("", "text/plain", "text/json", "application/xml", "multipart/form-data; boundary=x", "*/*", NDJSON),
            *("application/json; charset=utf-16", "application/jsonx", "application/json, text/plain"),
        )
    ),
    *(
        (BATCH, JSON, body)
        for body in (
            *(b"", b"[]", b"{}", b"null", TEXT, b"[" + TEXT, b"[" + TEXT + b",]", b"[null]", b"[[]]"),
            *(b"[" + TEXT + b"," + TEXT + b"]", b"[" + TEXT + b", 5]", b"[" + with_member(b'1, "x": 2') + b"]"),
            *(b"[" + one(x="y" * 70_000) + b"]", b"[" + b" " * 1_048_576 + b"]"),
        )
    ),
    *(
        (BATCH, NDJSON, body)
        for body in (b"", b"\n\n", TEXT + b"\n{", TEXT + b"\n" + TEXT, TEXT + TEXT, b"[" + TEXT + b"]", b"\x00\x01")
    ),
    (BATCH, "text/csv", b"a,b\n1,2\n"),
]
KEYS = ["a b", "x" * 256, "tab\there", "snow\u2603".encode().decode("latin-1")]
PATHS = ["%2e%2e", "%2E", "..", "a/b", "%0a", "a%7fb", "x" * 300, "%c2%85", "%20%09"]


def assert_is_problem(response: httpx.Response) -> None:
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == response.status_code
    assert content["title"]
    assert content["detail"]


@pytest.fixture
def url(shared_stage: Stage) -> Iterator[str]:
    """Check that the requests of a test have started nothing: no delivery was accepted meanwhile."""
    before = shared_stage.host.output.count("delivery accepted")
    yield f"{shared_stage.host.url}/api"
    assert shared_stage.host.output.count("delivery accepted") == before


def test_every_bad_request_of_the_corpus_is_a_problem_and_starts_nothing(url: str) -> None:
    with httpx.Client(timeout=60, verify=NO_TLS, trust_env=False) as http:
        for path, media_type, body in CORPUS:
            headers = {"content-type": media_type} if media_type else {}
            assert_is_problem(http.post(f"{url}/{path}", content=body, headers=headers))
        assert_is_problem(http.post(f"{url}/{BATCH}", json=records(1_001)))
        for key in KEYS:
            raw = [(b"idempotency-key", key.encode("latin-1"))]
            assert_is_problem(http.post(f"{url}/{ONE}", json=GOOD, headers=raw))
        for path in PATHS:
            assert_is_problem(http.get(f"{url}/{ONE}/{path}"))
        for query in ("state=gone", "resource=none", "top=0", "top=1000", "from=yesterday", "key=a%20b"):
            assert_is_problem(http.get(f"{url}/deliveries?{query}"))


# What Hypothesis makes is never a good record: it has no id that the intake takes.
JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=15,
)
BAD_BODIES = st.one_of(
    st.builds(lambda value: json.dumps(GOOD | {ID: value}).encode(), st.one_of(st.none(), st.booleans(), st.just([]))),
    JSON_VALUES.filter(lambda value: not isinstance(value, dict)).map(lambda value: json.dumps(value).encode()),
    JSON_VALUES.map(lambda value: json.dumps({"more": value}).encode()),
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


def test_every_bad_request_that_hypothesis_finds_is_a_problem_and_starts_nothing(url: str) -> None:
    with httpx.Client(timeout=60, verify=NO_TLS, trust_env=False) as http:

        @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(path=st.sampled_from([ONE, BATCH]), is_ndjson=st.booleans(), body=BAD_BODIES)
        def refuse(path: str, body: bytes, *, is_ndjson: bool) -> None:
            media_type = NDJSON if is_ndjson and path == BATCH else JSON
            assert_is_problem(http.post(f"{url}/{path}", content=body, headers={"content-type": media_type}))

        refuse()


async def test_every_fault_of_a_record_is_named_with_a_pointer(stage: Stage) -> None:
    key = uuid4().hex

    response = await stage.send(GOOD | {ID: None}, key=key)

    assert response.status_code == 422
    assert {error["pointer"] for error in response.json()["errors"]} == {f"#/{ID}"}
    assert id_of(1) not in await stage.stored()
