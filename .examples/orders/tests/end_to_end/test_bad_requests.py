from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sandbox.sample import business

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.end_to_end.stage import Stage

# Answers come in milliseconds; a second is the promise, and a stuck request would take the client's minute.
JSON = "application/json"
NDJSON = "application/x-ndjson"
WRONG_IDS: list[object] = ["", ".", "..", "a\u0000b", "a\tb", "\u007f", "a\u0085", 1, None, True, [], {}]
WRONG_NAMES: list[object] = ["", 1, None, False, [], {}, 1.5]
GOOD = business("good")


def _one(**members: object) -> bytes:
    return json.dumps({**GOOD, **members}).encode()


def _nested(depth: int) -> bytes:
    return b'{"externalId": "x", "name": "x", "deep": ' + b"[" * depth + b"]" * depth + b"}"


CORPUS: list[tuple[str, str, bytes]] = [
    *[
        ("businesses", JSON, body)
        for body in (
            b"",
            b" ",
            b"null",
            b"true",
            b"1",
            b'"text"',
            b"[]",
            b"{}",
            b"{",
            b"}",
            b'{"externalId": "x", "name": "x",}',
            b"{'externalId': 'x', 'name': 'x'}",
            b'{"externalId": "x", "name": "x"} {}',
            b'{"externalId": "x", "name": "x"}garbage',
            b'\xef\xbb\xbf{"externalId": "x", "name": "x"}',
            json.dumps(GOOD).encode("utf-16"),
            json.dumps(GOOD).encode("utf-32"),
            b'{"externalId": "x", "name": "\xff"}',
            b'{"externalId": "x", "name": "\xed\xa0\x80"}',
            b'{"externalId": "x", "name": "\xc0\x80"}',
            b'{"externalId": "x", "name": "\\ud800"}',
            b'{"externalId": "x", "name": "a\nb"}',
            b'{"externalId": "x", "name": "x", "externalId": "y"}',
            b'{"externalId": "x", "name": "x", "a": {"b": 1, "\\u0062": 2}}',
            b'{"externalId": "x", "name": "x", "n": NaN}',
            b'{"externalId": "x", "name": "x", "n": Infinity}',
            b'{"externalId": "x", "name": "x", "n": -Infinity}',
            b'{"externalId": "x", "name": "x", "n": 1e400}',
            b'{"externalId": "x", "name": "x", "n": 1e-400}',
            b'{"externalId": "x", "name": "x", "n": 123456789012345678901234567890}',
            b'{"externalId": "x", "name": "x", "n": ' + b"9" * 5_000 + b"}",
            b'{"externalId": "x", "name": "x", "n": 0.12345678901234567890}',
            b'{"externalId": "x", "name": "x", "n": 01}',
            b'{"externalId": "x", "name": "x", "n": +1}',
            b'{"externalId": "x", "name": "x", "n": .5}',
            b'{"externalId": "x", "name": "x", "n": 0x10}',
            _nested(32),
            _nested(1_000),
            b"[" * 30_000,
            _one(name="x" * 70_000),
            _one(name="x" * 257),
            _one(externalId="x" * 129),
            _one(externalId="x" * 10_000),
            *[_one(externalId=wrong) for wrong in WRONG_IDS],
            *[_one(name=wrong) for wrong in WRONG_NAMES],
            b'{"externalId": "x"}',
            b'{"name": "x"}',
            b'{"ExternalId": "x", "Name": "x"}',
            _one(x={"__class__": "a", "__module__": "os", "__data__": "{}"}),
        )
    ],
    *[
        ("businesses", media_type, _one())
        for media_type in (
            "",
            "text/plain",
            "text/json",
            "application/xml",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=utf-16",
            "application/json; charset=latin-1",
            "application/jsonx",
            NDJSON,
            "*/*",
            "application/json, text/plain",
        )
    ],
    *[
        ("businesses/batch", JSON, body)
        for body in (
            b"",
            b"[]",
            b"{}",
            b"null",
            _one(),
            b"[" + _one(),
            b"[" + _one() + b",]",
            b"[" + _one() + b"," + _one() + b"]",
            b"[" + _one() + b", 5]",
            b"[null]",
            b"[[]]",
            b"[" + _one(name=1) + b"]",
            b"[" + _nested(32) + b"]",
            b"[" + _one(name="x" * 70_000) + b"]",
            b"[" + b",".join(_one(externalId=f"x{number}") for number in range(1_001)) + b"]",
            b"[" + b" " * 1_048_576 + b"]",
            b'[{"externalId": "x", "name": "x", "name": "y"}]',
        )
    ],
    *[
        ("businesses/batch", NDJSON, body)
        for body in (
            b"",
            b"\n\n\n",
            _one() + b"\n{",
            _one() + b"\n" + _one(),
            _one() + _one(externalId="second"),
            b"[" + _one() + b"]",
            _one() + b"\nnot json\n",
            b"\x00\x01\x02",
            b"\n".join([_one(externalId=f"x{number}") for number in range(1_001)]),
        )
    ],
    ("businesses/batch", "text/csv", b"externalId,name\nx,x\n"),
    ("businesses/batch", "", b"[]"),
]
# The host passes no empty header on: an empty key is no key.
KEYS = ["a b", "x" * 256, "tab\there", "snow\u2603".encode().decode("latin-1"), "\u00e9"]
# A NUL in a path is refused by the server itself, before there is a request.
PATHS = ["%2e%2e", "%2E", "..", "a/b", "a%2Fb", "%0a", "a%7fb", "x" * 129, "%c2%85", "%20%09"]

# What Hypothesis makes is never a good business: one of its two members is always wrong.
_wrong = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.lists(st.text(max_size=5), max_size=3))
_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=15,
)
BAD_JSON = st.one_of(
    st.builds(lambda name, rest: json.dumps({**rest, "externalId": "x", "name": name}).encode(), _wrong, st.just({})),
    st.builds(
        lambda value: json.dumps(value).encode(), st.one_of(_json.filter(lambda value: not isinstance(value, dict)))
    ),
    st.builds(lambda value: json.dumps({"name": "x", "more": value}).encode(), _json),
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
)


@pytest.fixture
def url(shared_stage: Stage) -> Iterator[str]:
    url = shared_stage.host.url
    before = _instances(url)
    yield url
    # Nothing was started by any of them.
    assert _instances(url) == before


def _instances(url: str) -> int:
    return len(httpx.get(f"{url}/runtime/webhooks/durabletask/instances?top=10000").json())


def _assert_is_a_problem(response: httpx.Response) -> None:
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == response.status_code
    assert content["title"]
    assert content["detail"]


def test_every_bad_request_of_the_corpus_is_a_problem_and_starts_nothing(url: str) -> None:
    assert len(CORPUS) + len(KEYS) + len(PATHS) >= 100
    with httpx.Client(timeout=60) as http:
        for path, media_type, body in CORPUS:
            headers = {"content-type": media_type} if media_type else {}
            _assert_is_a_problem(http.post(f"{url}/api/{path}", content=body, headers=headers))
        for key in KEYS:
            raw = [(b"idempotency-key", key.encode("latin-1"))]
            _assert_is_a_problem(http.post(f"{url}/api/businesses", json=GOOD, headers=raw))
        for path in PATHS:
            _assert_is_a_problem(http.get(f"{url}/api/businesses/{path}"))


def test_every_bad_request_that_hypothesis_finds_is_a_problem_and_starts_nothing(url: str) -> None:
    with httpx.Client(timeout=60) as http:

        @settings(max_examples=220, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
        @given(path=st.sampled_from(["businesses", "businesses/batch"]), ndjson=st.booleans(), body=BAD_JSON)
        def refuse(path: str, body: bytes, *, ndjson: bool) -> None:
            media_type = NDJSON if ndjson and path.endswith("batch") else JSON
            _assert_is_a_problem(http.post(f"{url}/api/{path}", content=body, headers={"content-type": media_type}))

        refuse()
