from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.access_token import AccessToken, HeldToken, hold
from shared.auth.token_endpoint import Answer, access_token_from
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)
GOOD = {"access_token": "at-123", "token_type": "Bearer", "expires_in": 3600}
seconds = st.floats(min_value=0.001, max_value=1e9)


@pytest.mark.parametrize("value", ["", "a b", "a\r\nb", "tökén", "a\x00", "a\x7f"])
def test_a_value_that_cannot_stand_in_a_header_is_no_token_and_is_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        AccessToken(value)
    assert not value or value not in str(caught.value)


def held(
    expires_in: float | None, refresh_in: float | None = None, *, leeway: float = 60.0, jitter: float = 0.0
) -> HeldToken:
    token = AccessToken("token-1", expires_in, refresh_in)
    return hold(token, 1000.0, leeway=leeway, default_lifetime=300.0, jitter=jitter)


@pytest.mark.parametrize(
    ("expires_in", "refresh_in", "leeway", "jitter", "old_after", "expires_after"),
    [
        (3600.0, None, 60.0, 0.0, 3540.0, 3600.0),
        (3600.0, None, 60.0, 1.0, 3525.0, 3600.0),
        (3600.0, None, 0.0, 1.0, 3600.0, 3600.0),
        (None, None, 60.0, 0.0, 240.0, 300.0),
        (100.0, None, 60.0, 0.0, 60.0, 100.0),
        (100.0, None, 60.0, 1.0, 50.0, 100.0),
        (86400.0, 43200.0, 60.0, 0.0, 43200.0, 86400.0),
        (86400.0, 43200.0, 60.0, 1.0, 43185.0, 86400.0),
        (3600.0, 7200.0, 60.0, 0.0, 3540.0, 3600.0),
        (3600.0, 0.0, 60.0, 0.0, 360.0, 3600.0),
        (3600.0, -5.0, 60.0, 1.0, 360.0, 3600.0),
        # A time of day instead of a duration, and more than a clock can count: 30 days.
        (1_795_476_117.0, None, 60.0, 0.0, 2_591_940.0, 2_592_000.0),
        (1e300, None, 60.0, 0.0, 2_591_940.0, 2_592_000.0),
    ],
)
def test_a_token_is_old_a_leeway_before_it_expires(  # noqa: PLR0913, PLR0917, the columns of the table
    expires_in: float | None,
    refresh_in: float | None,
    leeway: float,
    jitter: float,
    old_after: float,
    expires_after: float,
) -> None:
    token = held(expires_in, refresh_in, leeway=leeway, jitter=jitter)
    assert token.requested_at == 1000
    assert token.old_at - 1000 == pytest.approx(old_after)
    assert token.expires_at - 1000 == pytest.approx(expires_after)


@given(
    expires_in=seconds,
    refresh_in=st.none() | st.floats(min_value=-1e9, max_value=1e9),
    leeway=st.floats(min_value=0, max_value=1e9),
    jitter=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_every_token_is_fresh_first_then_old_and_then_expired(
    expires_in: float, refresh_in: float | None, leeway: float, jitter: float
) -> None:
    token = held(expires_in, refresh_in, leeway=leeway, jitter=jitter)
    lifetime = min(expires_in, 30 * 86_400)
    least_leeway = min(leeway, lifetime * 0.4)
    assert token.requested_at <= token.old_at <= token.expires_at
    assert token.old_at - token.requested_at >= lifetime * 0.1 - 1e-6
    assert token.expires_at - token.old_at >= least_leeway - 1e-6
    assert token.expires_at - token.requested_at == pytest.approx(lifetime, abs=1e-6)


def read(document: object, status: int = 200, secrets: tuple[str, ...] = (), **headers: str) -> AccessToken:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return access_token_from(Answer(status, named, body), now=NOW, secrets=secrets)


@pytest.mark.parametrize(
    ("members", "expires_in", "refresh_in"),
    [
        ({}, 3600.0, None),
        ({"refresh_in": 1800}, 3600.0, 1800.0),
        ({"refresh_in": "soon"}, 3600.0, None),
        ({"refresh_in": 0}, 3600.0, None),
        ({"refresh_in": True}, 3600.0, None),
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


@pytest.mark.parametrize(
    "expires_in", [0, -1, "0", "-1", "", " ", "1e3", "inf", "abc", "at-123", "٣", True, [], {}, 10**400]
)
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
        read({"error": error, "error_description": "No."}, status, retry_after="7")
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
        read({"error": error}, status, retry_after="Sun, 01 Jun 2025 12:00:30 GMT")
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
