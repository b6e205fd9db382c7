from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api.responses import MAX_MEMBERS, MAX_TEXT, ApiResponse, ProblemDetails, read_response

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)
TOKEN = 'a/b"c\\d+e=='


def read(status: int, body: bytes = b"", *, redact: str | None = None, **headers: str) -> ApiResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    authorization = None if redact is None else f"Bearer {redact}"
    return read_response(status, httpx.Headers(named), body, now=NOW, authorization=authorization)


def problem_of(body: bytes, *, redact: str | None = None) -> ProblemDetails:
    answer = read(400, body, redact=redact)
    assert answer.content is None
    assert answer.problem is not None
    return answer.problem


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_a_success_has_its_content_and_no_problem(status: int) -> None:
    answer = read(status, b'{"id": 1}')
    assert (answer.is_success, answer.is_readable, answer.content, answer.problem) == (True, True, {"id": 1}, None)


@pytest.mark.parametrize("status", [100, 199, 300, 302, 304, 400, 404, 499, 500, 503, 599, 999])
def test_every_other_status_has_a_problem_and_no_content(status: int) -> None:
    answer = read(status, b'{"title": "No"}')
    assert (answer.is_success, answer.content, answer.problem) == (False, None, ProblemDetails("No"))


@pytest.mark.parametrize("body", [b"", b"null"])
def test_a_success_may_have_no_content(body: bytes) -> None:
    answer = read(204, body)
    assert (answer.is_success, answer.is_readable, answer.content) == (True, True, None)


@pytest.mark.parametrize(
    ("body", "content"),
    [(b"[1]", [1]), (b"0", 0), (b'"a"', "a"), (b"false", False), (b'\xef\xbb\xbf{"a":1}', {"a": 1})],
)
def test_the_content_is_any_json_and_may_begin_with_a_byte_order_mark(body: bytes, content: object) -> None:
    answer = read(200, body)
    assert (answer.is_readable, answer.content) == (True, content)


@pytest.mark.parametrize(
    "body", [b"<html>", b" ", b"{", b"[1,]", b"NaN", b'"\xff"', b'"\\ud800"', b"1e999", b"[" * 100_000, b"1" * 5_000]
)
def test_a_success_that_is_not_json_is_not_readable(body: bytes) -> None:
    answer = read(200, body)
    assert (answer.is_success, answer.is_readable, answer.content, answer.problem) == (True, False, None, None)


@pytest.mark.parametrize("status", [200, 429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("Sun, 01 Jun 2025 12:01:30 GMT", 90.0), ("soon", None), ("1, 2", None)]
)
def test_the_wish_to_wait_is_seconds_from_now(status: int, value: str, seconds: float | None) -> None:
    assert read(status, b"{}", retry_after=value).retry_after == seconds


def test_the_wish_to_wait_is_read_where_the_body_is_not() -> None:
    assert read(200, b"<html>", retry_after="7").retry_after == 7.0
    assert read(200, b"{}").retry_after is None


def test_a_date_is_measured_from_the_clock_where_no_time_is_given() -> None:
    past = read_response(503, httpx.Headers({"retry-after": "Sun, 01 Jun 2025 12:01:30 GMT"}), b"")
    assert past.retry_after == 0.0


def test_the_members_of_problem_details_are_kept() -> None:
    body = {"type": "urn:x", "title": "Bad", "detail": "Very", "status": 400, "instance": "/1", "code": 7, "e": ["f"]}
    problem = problem_of(msgspec.json.encode(body))
    assert problem == ProblemDetails("Bad", "Very", "urn:x", (("code", 7), ("e", ["f"])))
    assert problem.to_json() == {"type": "urn:x", "title": "Bad", "detail": "Very", "code": 7, "e": ["f"]}


def test_problem_details_with_nothing_in_them_are_an_empty_object() -> None:
    assert ProblemDetails().to_json() == {}
    assert problem_of(b"{}") == problem_of(b"") == problem_of(b"null") == problem_of(b" \n ") == ProblemDetails()


def test_standard_members_of_another_type_are_extension_members() -> None:
    assert problem_of(b'{"title": 1, "detail": null}') == ProblemDetails(members=(("title", 1), ("detail", None)))


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"Service  down\r\n", "Service down"),
        (b"<h1>No</h1>", "<h1>No</h1>"),
        (b"[1, 2]", "[1, 2]"),
        (b'"text"', '"text"'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"a": NaN}', '{"a": NaN}'),
    ],
)
def test_an_error_that_is_no_object_is_told_as_text(body: bytes, detail: str) -> None:
    assert problem_of(body) == ProblemDetails(detail=detail)


def test_text_is_one_line_of_printable_characters() -> None:
    body = msgspec.json.encode({"title": "a\x00b\n\nc\u202e\u2028d", "e\nf": 1})
    assert problem_of(body) == ProblemDetails("a b c d", members=(("e f", 1),))


def test_long_texts_and_many_members_are_cut_off() -> None:
    long = "x" * 100_000
    problem = problem_of(msgspec.json.encode({"title": long, "big": [long], long: 1}))
    assert problem.title == "x" * (MAX_TEXT - 1) + "…"
    members = dict(problem.members)
    assert members["big"] == '["' + "x" * (MAX_TEXT - 3) + "…"
    assert members[problem.title] == 1
    assert problem_of(long.encode()).detail == problem.title
    many = problem_of(msgspec.json.encode({f"m{number}": number for number in range(100)}))
    assert many.members == tuple((f"m{number}", number) for number in range(MAX_MEMBERS))


def test_the_longest_text_that_is_kept_whole() -> None:
    assert problem_of(b"x" * MAX_TEXT).detail == "x" * MAX_TEXT
    value = "y" * (MAX_TEXT - 2)
    assert problem_of(msgspec.json.encode({"m": value})).members == (("m", value),)


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail": "token a/b\\"c\\\\d+e== is bad"}',
        b'{"detail": "token a\\/b\\u0022c\\u005cd\\u002be\\u003d= is bad"}',
        b'{"error": {"deep": ["a\\/b\\"c\\\\d+e=="]}}',
        b'{"a\\/b\\"c\\\\d+e==": 1}',
        b'"a\\/b\\"c\\\\d+e=="',
        b'["a/b\\"c\\\\d+e=="]',
        b'token a/b"c\\d+e== is bad',
        b'{"title": "' + b"x" * 990 + b' a/b\\"c\\\\d+e=="}',
    ],
)
def test_no_error_repeats_the_token_however_it_is_written(body: bytes) -> None:
    problem = problem_of(body, redact=TOKEN)
    shown = repr(problem) + str(problem.to_json()) + msgspec.json.encode(problem.to_json()).decode()
    for part in (TOKEN, TOKEN[:4], "c\\d+e=="):
        assert part not in shown
    assert "[reda" in shown


@pytest.mark.parametrize("redact", ["t", '"', "{", "true", "\\"])
def test_a_token_of_one_character_breaks_nothing(redact: str) -> None:
    assert problem_of(b'{"title": "t", "a": true}', redact=redact) is not None


SURROGATES = st.text() | st.none() | st.integers() | st.floats() | st.booleans()


@given(st.integers(100, 999), st.binary(max_size=200), st.none() | st.text(min_size=1, max_size=5))
def test_no_response_raises(status: int, body: bytes, redact: str | None) -> None:
    answer = read(status, body, redact=redact)
    assert answer.status == status
    assert (answer.problem is None) is answer.is_success


@given(st.recursive(SURROGATES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10))
def test_what_is_kept_of_any_error_can_be_stored_as_json(value: Any) -> None:  # noqa: ANN401, it is any JSON
    try:
        body = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate in the text
        return
    problem = problem_of(body)
    assert len(msgspec.json.encode(problem.to_json())) < 200_000


@pytest.mark.parametrize(
    ("content_type", "is_readable"),
    [
        ("text/plain", True),
        ("text/plain; charset=utf-8", True),
        ("application/xml", True),
        ("", False),
        ("application/json", False),
        ("application/problem+json", False),
        ("text/html; charset=utf-8", False),
        ("Application/XHTML+XML", False),
    ],
)
def test_only_what_ought_to_be_json_or_is_a_page_makes_a_success_unreadable(
    content_type: str, *, is_readable: bool
) -> None:
    response = read_response(201, httpx.Headers({"content-type": content_type}), b"OK")

    assert (response.is_readable, response.content) == (is_readable, None)
