from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.token_endpoint import AccessToken, Answer, access_token_from, endpoint_problem
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError

GOOD = {"access_token": "at-123", "token_type": "Bearer", "expires_in": 3600}


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example/token",
        "https://login.example:8443/token?tenant=a",
        "http://localhost:7/token",
        "http://127.0.0.1/token",
        "http://127.8.9.10:80/token",
        "http://[::1]:80/token",
        "HTTPS://LOGIN.EXAMPLE/",
        "https://xn--bcher-kva.example/b%C3%BCcher",
    ],
)
def test_https_and_loopback_http_may_be_sent_a_secret(url: str) -> None:
    assert endpoint_problem(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://login.example/token", "must be https"),
        ("http://10.0.0.1/token", "must be https"),
        ("http://127.0.0.1.example/token", "must be https"),
        ("http://localhost.example/token", "must be https"),
        ("ftp://login.example/token", "must be https"),
        ("//login.example/token", "must be https"),
        ("https:///token", "not an absolute URL"),
        ("/token", "not an absolute URL"),
        ("", "not an absolute URL"),
        ("https://login.example/to ken", "not an absolute URL"),
        ("https://login.example/\n", "not an absolute URL"),
        ("https://login.example:99999/", "not a URL"),
        ("https://[::1/", "not a URL"),
        ("https://bücher.example/token", "Punycode"),
        ("https://login.example/bücher", "percent-encoded"),
        ("https://login.example/token?ä", "percent-encoded"),
        ("http://[::1%25lo]:1/", "Punycode"),
        ("http://[::1%lo]/", "Punycode"),
        ("https://b%C3%BCcher.example/", "Punycode"),
        ("https://user@login.example/", "user name or a password"),
        ("https://:pass@login.example/", "user name or a password"),
        ("https://login.example/#", "fragment"),
    ],
)
def test_every_other_url_has_its_problem(url: str, problem: str) -> None:
    assert problem in (endpoint_problem(url) or "")


def read(
    document: object, status: int = 200, secrets: tuple[str, ...] = (), retry_after: float | None = None
) -> AccessToken:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return access_token_from(Answer(status, body, retry_after=retry_after), secrets=secrets)


@pytest.mark.parametrize(
    ("members", "expires_in", "refresh_in"),
    [
        ({}, 3600.0, None),
        ({"refresh_in": 1800}, 3600.0, 1800.0),
        ({"refresh_in": "soon"}, 3600.0, None),
        ({"refresh_in": 0}, 3600.0, None),
        *(({"token_type": token_type}, 3600.0, None) for token_type in ("BEARER", " bearer ", None)),
        ({"expires_in": "59.5"}, 59.5, None),
        ({"expires_in": " 3599 "}, 3599.0, None),
        ({"expires_in": None, "error": None}, None, None),
    ],
)
def test_reads_what_servers_send(members: dict[str, object], expires_in: float, refresh_in: float | None) -> None:
    assert read(GOOD | members) == AccessToken("at-123", expires_in, refresh_in)


@pytest.mark.parametrize("status", [200, 201, 203])
def test_any_success_may_hold_a_token(status: int) -> None:
    assert read({"access_token": "at-123"}, status) == AccessToken("at-123")


@pytest.mark.parametrize("expires_in", [0, -1, "0", "-1", "", " ", "inf", "abc", "at-123", [], {}, 10**400])
def test_a_senseless_expires_in_counts_as_missing_with_a_warning(
    expires_in: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert read(GOOD | {"expires_in": expires_in}) == AccessToken("at-123")
    [record] = caplog.records
    assert (record.levelno, record.message) == (logging.WARNING, "token response has no usable expires_in")
    assert "at-123" not in str(vars(record))


@pytest.mark.parametrize("number", [b"NaN", b"-Infinity", b"1e999"])
def test_numbers_outside_of_json_count_as_missing(number: bytes) -> None:
    assert read(b'{"access_token": "at-123", "expires_in": ' + number + b"}") == AccessToken("at-123")


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        *((GOOD | {"token_type": kind}, "token_type other than Bearer") for kind in ("DPoP", "", 1, ["Bearer"])),
        *((GOOD | {"access_token": value}, "no access_token of visible") for value in ("", "a b", "é", "a\0", None, 7)),
        *((body, "no access_token") for body in (b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 60_000, b"9" * 5_000)),
        ({"error": "bad_verification_code"}, "error bad_verification_code"),
    ],
)
def test_a_success_without_a_usable_token_is_an_outage(document: object, problem: str) -> None:
    with pytest.raises(TokenUnavailableError, match=problem) as caught:
        read(document)
    assert caught.value.status == 200


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("error", ["invalid_client", "unauthorized_client", "invalid_scope", "invalid_grant"])
def test_an_error_that_blames_the_client_is_a_configuration_problem(status: int, error: str) -> None:
    with pytest.raises(TokenRejectedError) as caught:
        read({"error": error, "error_description": "No."}, status, retry_after=7.0)
    assert (caught.value.error, caught.value.description, caught.value.status) == (error, "No.", status)
    assert caught.value.retry_after == 7


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *((error, 400) for error in ("too_many_requests", "slow_down", "unknown_error", "temporarily_unavailable")),
        *((error, 400) for error in ("invalid_request", "unsupported_grant_type", None, 5, "", "bad\ncode", "x" * 101)),
        *(("invalid_client", status) for status in (302, 404, 408, 429, 500, 503)),
    ],
)
def test_every_other_error_passes_with_time(error: object, status: int) -> None:
    with pytest.raises(TokenUnavailableError, match=f"it answered {status}") as caught:
        read({"error": error}, status, retry_after=30.0)
    assert (caught.value.status, caught.value.retry_after) == (status, 30.0)


@pytest.mark.parametrize("status", [200, 400, 503])
def test_words_never_repeat_a_secret_or_a_token_that_came_with_them(status: int) -> None:
    document = {"access_token": "at-777", "id_token": "it-888", "token_type": "mac", "error": "at-777 s3cret"}
    with pytest.raises(TokenError) as caught:
        read(document | {"error_description": "at-777, it-888, s3cret"}, status, ("s3cret",))
    assert not any(secret in str(caught.value) for secret in ("at-777", "it-888", "s3cret"))
    assert "[redacted], [redacted], [redacted]" in str(caught.value)


@given(st.integers(100, 599), st.binary(max_size=200))
def test_every_answer_is_a_token_or_one_of_the_two_errors(status: int, body: bytes) -> None:
    with pytest.raises(TokenError):  # random bytes are no token
        read(body, status)
