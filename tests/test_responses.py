from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.redaction import Redactor
from shared.client.responses import MAX_ERROR, MAX_MEMBERS, MAX_TEXT, read_response

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.resource import ApiResponse

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)


def read(status: int, body: bytes = b"", *, redact: str | None = None, **headers: str) -> ApiResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    redactor = None if redact is None else Redactor([redact])
    return read_response(status, httpx.Headers(named), body, redactor=redactor, clock=lambda: NOW)


def problem_of(body: bytes, *, redact: str | None = None) -> Mapping[str, Any]:
    return read(400, body, redact=redact).problem


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
def test_a_success_has_its_content_and_no_problem(status: int) -> None:
    answer = read(status, b'{"id": 1}')
    assert (answer.is_success, answer.is_readable, answer.content, answer.problem) == (True, True, {"id": 1}, {})


@pytest.mark.parametrize("status", [100, 199, 300, 302, 304, 400, 404, 499, 500, 503, 599, 999])
def test_every_other_status_has_a_problem_and_its_content(status: int) -> None:
    answer = read(status, b'{"title": "No"}')
    assert (answer.is_success, answer.content, answer.problem) == (False, {"title": "No"}, {"title": "No"})


@pytest.mark.parametrize("body", [b"", b" \r\n", b"\xef\xbb\xbf", b"null"])
def test_a_success_may_have_no_content(body: bytes) -> None:
    answer = read(204, body)
    assert (answer.is_success, answer.is_readable, answer.content) == (True, True, None)


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (b"[1]", [1]),
        (b"0", 0),
        (b'"a"', "a"),
        (b"false", False),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b"99999999999999.99", Decimal("99999999999999.99")),
    ],
)
def test_the_content_is_any_json_and_may_begin_with_a_byte_order_mark(body: bytes, content: object) -> None:
    answer = read(200, body)
    assert (answer.is_readable, answer.content) == (True, content)


@pytest.mark.parametrize("body", [b"<html>", b"{", b"[1,]", b"NaN", b'"\xff"', b'"\\ud800"', b"[" * 100_000, b"OK"])
def test_a_success_that_should_be_json_and_is_not_is_not_readable(body: bytes) -> None:
    answer = read(200, body, content_type="application/json")
    assert (answer.is_success, answer.is_readable, answer.content, answer.problem) == (True, False, None, {})


@pytest.mark.parametrize("status", [200, 429, 503])
@pytest.mark.parametrize(
    ("value", "seconds"), [("7", 7.0), ("Sun, 01 Jun 2025 12:01:30 GMT", 90.0), ("soon", None), ("1, 2", None)]
)
def test_the_wish_to_wait_is_seconds_from_now(status: int, value: str, seconds: float | None) -> None:
    assert read(status, b"{}", retry_after=value).retry_after == seconds


def test_the_members_of_problem_details_are_kept() -> None:
    body = {"type": "urn:x", "title": "Bad", "detail": "Very", "status": 400, "instance": "/1", "code": 7, "e": ["f"]}
    problem = problem_of(msgspec.json.encode(body))
    assert problem == {"type": "urn:x", "title": "Bad", "detail": "Very", "code": 7, "e": ["f"]}


def test_problem_details_with_nothing_in_them_are_an_empty_object() -> None:
    assert problem_of(b"{}") == problem_of(b"") == problem_of(b"null") == problem_of(b" \n ") == {}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"Service  down\r\n", "Service down"),
        (b'{"cut": "' + b"x" * MAX_ERROR + b'"}', '{"cut": "' + "x" * (MAX_TEXT - 10) + "…"),
        (b"<h1>No</h1>", "<h1>No</h1>"),
        (b"[1, 2]", "[1, 2]"),
        (b'"text"', '"text"'),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b'{"a": NaN}', '{"a": NaN}'),
    ],
)
def test_an_error_that_is_no_object_is_told_as_text(body: bytes, detail: str) -> None:
    assert problem_of(body) == {"detail": detail}


def test_text_is_one_line_of_printable_characters() -> None:
    body = msgspec.json.encode({"title": "a\x00b\n\nc\u202e\u2028d", "e\nf": 1})
    assert problem_of(body) == {"title": "a b c d", "e f": 1}


def test_long_texts_and_many_members_are_cut_off() -> None:
    long = "x" * 5_000
    problem = problem_of(msgspec.json.encode({"title": long, "big": [long], long: 1}))
    assert problem["title"] == "x" * (MAX_TEXT - 1) + "…"
    assert problem["big"] == '["' + "x" * (MAX_TEXT - 3) + "…"
    assert problem[problem["title"]] == 1
    assert problem_of(long.encode())["detail"] == problem["title"]
    many = problem_of(msgspec.json.encode({f"m{number}": number for number in range(100)}))
    assert many == {f"m{number}": number for number in range(MAX_MEMBERS)}


@pytest.mark.parametrize(
    "body",
    [
        b'{"detail": "s3cret-token is bad"}',
        b"s3cret-token is bad",
        b'{"e": {"s3cret-token": ["s3cret-token"]}}',
        b'["s3cret-token"]',
    ],
)
def test_no_error_repeats_the_token(body: bytes) -> None:
    answer = read(403, body, redact="s3cret-token")
    assert "s3cret" not in repr(answer)
    assert "[redacted]" in repr(answer.problem)


@given(st.integers(100, 999), st.binary(max_size=200), st.none() | st.text(min_size=1, max_size=5))
def test_no_response_raises(status: int, body: bytes, redact: str | None) -> None:
    answer = read(status, body, redact=redact)
    assert answer.status == status
    assert not (answer.is_success and answer.problem)
    assert not (answer.is_html and answer.is_readable)


PAGE = b"<!DOCTYPE html><title>Log in</title>"


@pytest.mark.parametrize(
    ("content_type", "body", "is_readable", "is_html"),
    [
        ("text/plain", b"OK", True, False),
        ("text/plain; charset=utf-8", b"OK\n", True, False),
        ("", b"OK", True, False),
        ("application/xml", b"<stored/>", True, False),
        ("application/json", b"OK", False, False),
        ("application/problem+json", b"OK", False, False),
        ("", b'{"id": 1', False, False),
        ("", b"\xff\x00", False, False),
        ("text/html; charset=utf-8", PAGE, False, True),
        ("Application/XHTML+XML", b"<?xml version='1.0'?><html/>", False, True),
        ("application/json", PAGE, False, True),
        ("text/plain", b"\n<HTML><body>", False, True),
        ("", PAGE, False, True),
        ("text/html", b"", True, False),
        ("text/html", b'{"id": 1}', True, False),  # PHP's own type
    ],
)
@pytest.mark.parametrize("status", [201, 404])
def test_a_page_and_broken_json_are_told_from_other_text(
    status: int, content_type: str, body: bytes, *, is_readable: bool, is_html: bool
) -> None:
    answer = read(status, body, content_type=content_type)
    assert (answer.is_readable, answer.is_html) == (is_readable, is_html)


@pytest.mark.parametrize("value", [b"[" * 100 + b"]" * 100, b'{"a":' * 20 + b"1" + b"}" * 20, b"9" * 400])
def test_a_member_that_dotnet_cannot_read_is_kept_as_text(value: bytes) -> None:
    response = read_response(422, {"content-type": "application/json"}, b'{"title":"bad","more":' + value + b"}")

    assert response.problem == {"title": "bad", "more": value.decode()}
