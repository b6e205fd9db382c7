"""Header values that are made to take time or to break a parser: some took seconds, others for ever."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shared.http.messages import Request
from shared.rules.rate_limit import Quota, read_quota
from shared.rules.record import CheckedRecord
from shared.rules.retry import retry_after
from shared.rules.verdict import judge_post
from tests.fakes.scripted_partner import answer
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 60_000
NOW = datetime(2026, 11, 29, tzinfo=UTC)
VALUES = [
    "a" * LONG,
    "a" + " " * LONG + '"',
    '\\"' * (LONG // 2),
    '"' * LONG,
    "a;" + "a" * LONG,
    'a;b="' + '\\"' * (LONG // 2),
    "Bearer " + 'a="b' * (LONG // 4),
    "Bearer " + "a=b " * (LONG // 4),
    "a=" + " " * LONG + "a=",
    "=; " * (LONG // 3),
    "(" * LONG,
    "Mon, " * (LONG // 5),
    "9" * LONG,
    "a-" * (LONG // 2),
    "error=" * (LONG // 6),
    "error='" * (LONG // 7),
]


def _quota(value: str) -> object:
    return [read_quota({"ratelimit": value}), read_quota({"x-ratelimit-remaining": "1", "x-ratelimit-limit": value})]


def _prefer(value: str) -> object:
    return Request("POST", "http://relay.example/", {"prefer": value}).preferred_wait


READERS: list[Callable[[str], object]] = [
    _quota,
    _prefer,
    lambda value: retry_after(value, NOW),
    lambda value: judge_post(
        PARCEL, CheckedRecord("P-1", b"{}"), answer(401, www_authenticate=value), age=0, was_uncertain=False
    ),
]


@pytest.mark.parametrize("read", READERS, ids=["RateLimit", "Prefer", "Retry-After", "challenges"])
def test_no_header_value_takes_more_than_a_second(read: Callable[[str], object]) -> None:
    for value in VALUES:
        began = time.process_time()

        read(value)

        assert time.process_time() - began < 1.0, value[:20]


def test_a_rate_limit_with_quoted_names_is_still_read() -> None:
    headers = {"ratelimit": '"per; \\"day\\"";r=0;t=9, "burst"; r=5; t=1', "ratelimit-policy": '"burst";q=10;w=1'}

    assert read_quota(headers) == Quota(0, 9.0)


@pytest.mark.parametrize("prefer", ['a="b, wait=9", wait=7', 'a="b\\", wait=9", wait=7', "respond-async, wait=7"])
def test_a_comma_in_a_quoted_preference_separates_nothing(prefer: str) -> None:
    assert _prefer(prefer) == 7.0


@pytest.mark.parametrize("url", ["http://[", "http://[::1/a%2Fb", "//", "", "http://x/a%2Fb?c=/d#/e"])
def test_an_original_url_of_any_kind_names_a_segment(url: str) -> None:
    request = Request("GET", "http://relay.example/api/parcels/P-1", {"x-original-url": url})

    assert "?" not in request.last_segment
