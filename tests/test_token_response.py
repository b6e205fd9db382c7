from __future__ import annotations

import html
import json
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.access_token import AccessToken
from shared.auth.token_response import access_token_from_response, safe_words
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError

NOW = datetime(2025, 6, 1, 12, 0, 0, tzinfo=UTC)
GOOD = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600}


def read(document: object, status: int = 200, secrets: tuple[str, ...] = (), **headers: str) -> AccessToken:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return access_token_from_response(status, named, body, now=NOW, secrets=secrets)


def without(*names: str) -> dict[str, object]:
    return {name: value for name, value in GOOD.items() if name not in names}


def test_reads_the_token_and_its_lifetime() -> None:
    assert read(GOOD) == AccessToken("at-1", 3600.0)


def test_reads_the_servers_wish_to_be_asked_again_early() -> None:
    assert read(GOOD | {"refresh_in": 1800}).refresh_in == 1800.0


@pytest.mark.parametrize("wish", ["soon", 0, -1, True, None, [], {}])
def test_a_senseless_refresh_in_is_no_wish(wish: object) -> None:
    assert read(GOOD | {"refresh_in": wish}) == AccessToken("at-1", 3600.0)


@pytest.mark.parametrize("token_type", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_token_type_has_no_case(token_type: str) -> None:
    assert read(GOOD | {"token_type": token_type}).value == "at-1"


def test_a_missing_token_type_counts_as_bearer() -> None:
    assert read(without("token_type")).value == "at-1"


@pytest.mark.parametrize("token_type", ["DPoP", "mac", "", None, 1, ["Bearer"]])
def test_another_token_type_is_nonsense(token_type: object) -> None:
    with pytest.raises(TokenUnavailableError, match="token_type other than Bearer"):
        read(GOOD | {"token_type": token_type})


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [(3600, 3600.0), (1, 1.0), (59.5, 59.5), ("3600", 3600.0), ("59.5", 59.5), (None, None)],
)
def test_reads_every_lenient_form_of_expires_in(expires_in: object, seconds: float | None) -> None:
    assert read(GOOD | {"expires_in": expires_in}).expires_in == seconds


def test_a_missing_expires_in_is_none_and_neither_an_error_nor_forever() -> None:
    assert read(without("expires_in")).expires_in is None


@pytest.mark.parametrize(
    "expires_in",
    [0, -1, 0.0, -0.5, "0", "-1", "", " ", "1e3", "inf", "nan", "soon", "3_600", "٣", True, False, [], {}, 10**400],
)
def test_a_senseless_expires_in_is_an_error(expires_in: object) -> None:
    with pytest.raises(TokenUnavailableError, match="expires_in that is no positive number") as caught:
        read(GOOD | {"expires_in": expires_in})
    assert caught.value.status == 200
    assert "at-1" not in str(caught.value)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_outside_of_json_are_an_error(number: bytes) -> None:
    with pytest.raises(TokenUnavailableError, match="expires_in"):
        read(b'{"access_token": "at-1", "token_type": "Bearer", "expires_in": ' + number + b"}")


@pytest.mark.parametrize("token", ["", " ", "a b", "a\r\nb", "a\tb", "é", "\x7f", "a\x00", None, 7, True, ["at-1"], {}])
def test_a_token_that_fits_no_header_is_nonsense(token: object) -> None:
    with pytest.raises(TokenUnavailableError, match="no access_token of visible ASCII"):
        read(GOOD | {"access_token": token})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"at-1"',
        b"<html>",
        b"\xff\xfe",
        b"[" * 60_000,
        b"9" * 5_000,
        without("access_token"),
    ],
)
def test_a_200_with_no_token_in_it_is_nonsense(body: object) -> None:
    with pytest.raises(TokenUnavailableError, match="no access_token") as caught:
        read(body)
    assert caught.value.status == 200


def test_an_error_in_a_200_is_named() -> None:
    with pytest.raises(TokenUnavailableError, match=r"; error bad_verification_code$"):
        read({"error": "bad_verification_code"})


@pytest.mark.parametrize("status", [400, 401])
@pytest.mark.parametrize(
    "error",
    [
        "invalid_request",
        "invalid_client",
        "invalid_grant",
        "unauthorized_client",
        "unsupported_grant_type",
        "invalid_scope",
    ],
)
def test_every_error_of_rfc_6749_is_a_rejection(status: int, error: str) -> None:
    with pytest.raises(TokenRejectedError) as caught:
        read({"error": error, "error_description": "No."}, status)
    assert (caught.value.error, caught.value.description, caught.value.status) == (error, "No.", status)


@pytest.mark.parametrize(
    "error", [None, 5, "", "bad\ncode", 'quo"te', "é", "x" * 101, "temporarily_unavailable", "server_error"]
)
def test_a_400_that_names_no_lasting_error_is_no_rejection(error: object) -> None:
    with pytest.raises(TokenUnavailableError) as caught:
        read({"error": error}, 400)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "status", [100, 201, 204, 301, 302, 307, 403, 404, 405, 408, 413, 429, 500, 502, 503, 504, 599]
)
def test_every_other_status_passes_with_time_even_with_an_error_or_a_token_in_it(status: int) -> None:
    for document in (GOOD, {"error": "invalid_client"}):
        with pytest.raises(TokenUnavailableError, match=f"it answered {status}") as caught:
            read(document, status)
        assert caught.value.status == status


@pytest.mark.parametrize("status", [200, 400, 429, 503])
@pytest.mark.parametrize(("value", "seconds"), [("17", 17.0), ("Sun, 01 Jun 2025 12:00:30 GMT", 30.0), ("soon", None)])
def test_the_servers_wish_to_be_left_alone_is_kept(status: int, value: str, seconds: float | None) -> None:
    with pytest.raises(TokenUnavailableError) as caught:
        read(b"", status, retry_after=value)
    assert caught.value.retry_after == seconds


def test_a_description_that_echoes_a_secret_is_redacted() -> None:
    secrets = ("s3cret", "s3cret-and-more", "")
    with pytest.raises(TokenRejectedError) as caught:
        read(
            {"error": "invalid_client", "error_description": "secret s3cret-and-more (s3\x00cret, s3cret) is wrong"},
            401,
            secrets,
        )
    assert caught.value.description == "secret [redacted] (s3 cret, [redacted]) is wrong"


def test_the_words_of_a_server_in_trouble_are_redacted_too() -> None:
    with pytest.raises(TokenUnavailableError, match=r"it answered 503; error busy; not \[redacted\]$"):
        read({"error": "busy", "error_description": "not s3cret"}, 503, ("s3cret",))


def test_an_error_code_that_echoes_a_secret_is_redacted() -> None:
    with pytest.raises(TokenRejectedError) as caught:
        read({"error": "unknown s3cret"}, 401, ("s3cret",))
    assert caught.value.error == "unknown [redacted]"
    assert "s3cret" not in str(caught.value)


AWKWARD = "s3cr3t/+ <&>'\"é\\x="


@pytest.mark.parametrize(
    "echo",
    [
        AWKWARD,
        AWKWARD.rstrip("="),
        quote(AWKWARD, safe=""),
        quote(AWKWARD),
        quote_plus(AWKWARD),
        quote_plus(AWKWARD).lower(),
        quote_plus(AWKWARD).replace("%2F", "%2f"),
        repr(AWKWARD),
        json.dumps(AWKWARD),
        json.dumps(AWKWARD, ensure_ascii=False),
        html.escape(AWKWARD),
    ],
)
def test_a_secret_is_redacted_in_whatever_form_it_is_echoed(echo: str) -> None:
    words = safe_words(f"not {echo}!", (AWKWARD,))
    assert words is not None
    assert "[redacted]" in words
    assert "s3cr3t" not in words


@pytest.mark.parametrize("status", [200, 400, 503])
def test_words_never_repeat_a_token_that_came_with_them(status: int) -> None:
    document = {"access_token": "at-77", "id_token": "it-88", "token_type": "mac", "error": "at-77"}
    with pytest.raises(TokenError) as caught:
        read(document | {"error_description": "at-77, it-88"}, status)
    assert "at-77" not in str(caught.value)
    assert "it-88" not in str(caught.value)
    assert "[redacted], [redacted]" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "safe"),
    [
        ("plain words", "plain words"),
        ("two\r\nlines\x1b[31m\u202e and\u2028more\x00", "two lines [31m and more"),
        ("x" * 300, "x" * 300),
        ("x" * 301, "x" * 299 + "…"),
        ("\x00\x01", None),
        ("", None),
        (None, None),
        (5, None),
        (["a"], None),
    ],
)
def test_a_servers_words_lose_control_characters_and_end(words: object, safe: str | None) -> None:
    assert safe_words(words) == safe


@given(st.text(), st.text(min_size=4, alphabet="abc 1\n"))
def test_no_secret_survives_in_a_servers_words(noise: str, secret: str) -> None:
    assert secret not in (safe_words(noise + secret + noise, (secret,)) or "")


@given(st.integers(100, 599), st.binary(max_size=200))
def test_every_response_is_a_token_or_one_of_the_two_errors(status: int, body: bytes) -> None:
    with pytest.raises(TokenError):  # random bytes are no token
        read(body, status)
