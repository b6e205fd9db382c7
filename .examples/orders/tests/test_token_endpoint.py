from __future__ import annotations

import pytest

from shared.auth.token_endpoint import endpoint_problem


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
        ("http://[::1%25lo]:1/", "without a zone"),
        ("http://[::1%lo]/", "without a zone"),
        ("https://b%C3%BCcher.example/", "Punycode"),
        ("https://user@login.example/", "user name or a password"),
        ("https://:pass@login.example/", "user name or a password"),
        ("https://login.example/#", "fragment"),
    ],
)
def test_every_other_url_has_its_problem(url: str, problem: str) -> None:
    assert problem in (endpoint_problem(url) or "")
