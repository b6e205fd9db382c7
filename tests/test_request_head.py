from __future__ import annotations

import pytest
from yarl import URL

from shared.api.request_head import RequestHead

TOKEN = "t0ken-with-s3cret"


def head(url: str = "https://partner.example/v1", **headers: str) -> RequestHead:
    return RequestHead(URL(url, encoded=True), headers)


def test_it_is_the_request_line_and_all_headers() -> None:
    encoded = head(accept="application/json").encode("POST", "/a%20b/?c=d", {"x-one": "1", "x-two": ""}, 7)
    assert encoded == (
        b"POST /v1/a%20b/?c=d HTTP/1.1\r\n"
        b"host: partner.example\r\n"
        b"accept: application/json\r\n"
        b"x-one: 1\r\n"
        b"x-two: \r\n"
        b"content-length: 7\r\n\r\n"
    )


def test_without_a_body_there_is_no_length() -> None:
    assert b"content-length" not in head().encode("GET", "/", {}, None)
    assert b"\r\ncontent-length: 0\r\n\r\n" in head().encode("POST", "/", {}, 0)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://partner.example", "partner.example"),
        ("https://partner.example:443", "partner.example"),
        ("https://partner.example:8443", "partner.example:8443"),
        ("http://127.0.0.1:80", "127.0.0.1"),
        ("http://[::1]:8081", "[::1]:8081"),
        ("https://user:password@partner.example", "partner.example"),
    ],
)
def test_the_host_has_its_port_where_it_is_not_that_of_the_scheme(url: str, host: str) -> None:
    assert f"\r\nhost: {host}\r\n".encode() in head(url).encode("GET", "/", {}, None)


@pytest.mark.parametrize("url", ["https://partner.example/v1", "https://partner.example/v1/"])
def test_the_path_of_the_url_comes_first(url: str) -> None:
    assert head(url).encode("GET", "/business/", {}, None).startswith(b"GET /v1/business/ HTTP/1.1\r\n")


BREAKS = ["\r\nx: y", "\n", "\r", "\0", "\x7f", "\t", "\x1b", "é", "\ud800", "\u2028"]


@pytest.mark.parametrize("break_", BREAKS)
def test_a_header_that_would_be_another_one_too_is_refused_and_not_repeated(break_: str) -> None:
    with pytest.raises(ValueError, match=r"^authorization of a request has a character that is not") as caught:
        head().encode("POST", "/", {"authorization": f"Bearer {TOKEN}{break_}"}, 2)
    assert type(caught.value) is ValueError  # that of an encoding has the text in it
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("break_", [*BREAKS, " ", " HTTP/1.1\r\nx: y"])
def test_a_path_that_would_end_the_request_line_is_refused(break_: str) -> None:
    with pytest.raises(ValueError, match=r"^the path of a request has a character that is not"):
        head().encode("GET", f"/a{break_}b", {}, None)


@pytest.mark.parametrize("break_", BREAKS)
def test_a_standing_header_is_checked_at_once(break_: str) -> None:
    with pytest.raises(ValueError, match=r"^accept of a request has a character"):
        head(accept=f"*/*{break_}")


def test_the_path_of_the_url_is_checked_at_once() -> None:
    with pytest.raises(ValueError, match=r"^the path of a request has a character"):
        head("https://partner.example/a b")


def test_every_token_is_looked_at_once() -> None:
    its = head()
    for number in range(2):
        token = f"Bearer {TOKEN}-{number}"
        for _ in range(2):
            assert f"\r\nauthorization: {token}\r\n".encode() in its.encode("GET", "/", {}, None, token)
        for break_ in BREAKS:
            with pytest.raises(ValueError, match=r"^authorization of a request has a character") as caught:
                its.encode("GET", "/", {}, None, token + break_)
            assert TOKEN not in repr(caught.value)


def test_a_host_that_is_not_ascii_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"^host of a request has a character"):
        head("https://pärtner.example")
