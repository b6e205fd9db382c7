from __future__ import annotations

from typing import Any

import msgspec
import pytest

from shared.errors import ApiInterruptedError, SettingsError, TokenRejectedError, TokenUnavailableError
from shared.http.messages import Request
from shared.http.service import get_deep_health, get_health, unknown_route
from tests.models import PARCEL

PROBED: dict[str, tuple[Exception | None, dict[str, str], str]] = {
    "WELL": (None, {"settings": "ok", "token": "ok", "partner": "ok"}, ""),
    "UNSET": (
        SettingsError(["UNSET_URL is missing", "UNSET_RATE is no number"]),
        {"settings": "unavailable"},
        "UNSET_RATE",
    ),
    "REFUSED": (TokenRejectedError("invalid_client"), {"settings": "ok", "token": "unavailable"}, "invalid_client"),
    "NO_TOKEN": (TokenUnavailableError("no answer"), {"settings": "ok", "token": "unavailable"}, "no answer"),
    "DOWN": (ApiInterruptedError("timeout"), {"settings": "ok", "token": "ok", "partner": "unavailable"}, "timeout"),
}


def asked(**query: str) -> Request:
    return Request("GET", "http://app/api/health/deep", {}, query=query)


@pytest.mark.parametrize(
    ("problem", "status", "word"), [(None, 200, "ok"), (SettingsError(["secret"]), 503, "unavailable")]
)
def test_health_says_nothing_but_whether_the_settings_are_valid(
    problem: Exception | None, status: int, word: str
) -> None:
    def check() -> None:
        if problem:
            raise problem

    reply = get_health(check)

    assert (reply.status, msgspec.json.decode(reply.body)) == (status, {"status": word})
    assert reply.headers["cache-control"] == "no-store"


async def test_deep_health_says_what_is_wrong_with_which_partner() -> None:
    def probe(problem: Exception | None) -> Any:  # noqa: ANN401, a probe
        async def work(*, asks: bool) -> None:
            assert asks
            if problem:
                raise problem

        return work

    probes = {name: probe(problem) for name, (problem, _, _) in PROBED.items()}

    reply = await get_deep_health(asked(), probes, lambda name: {"flow": {"state": name}})
    alone = await get_deep_health(asked(), {"WELL": probes["WELL"]}, lambda _: {})

    told = msgspec.json.decode(reply.body)
    assert (reply.status, told["status"], alone.status) == (503, "unavailable", 200)
    for name, (_, expected, words) in PROBED.items():
        shown = told["partners"][name]
        assert shown.items() >= (expected | {"flow": {"state": name}}).items()
        assert words in shown.get("detail", "")


async def test_without_a_probe_only_the_settings_are_checked() -> None:
    tokens = {"requested": 0}

    async def well(*, asks: bool) -> None:
        assert not asks

    async def unset(*, asks: bool) -> None:
        assert not asks
        raise SettingsError(["UNSET_URL is missing"])

    reply = await get_deep_health(asked(probe="false"), {"WELL": well, "UNSET": unset}, lambda _: {"tokens": tokens})

    told = {"status": reply.status, **msgspec.json.decode(reply.body)["partners"]}
    unusable = {"settings": "unavailable", "detail": "UNSET_URL is missing", "tokens": tokens}
    assert told == {"status": 503, "WELL": {"settings": "ok", "tokens": tokens}, "UNSET": unusable}


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("health", "GET, HEAD"),
        ("Health/Deep", "GET"),
        ("deliveries", "GET"),
        ("deliveries/x", "GET"),
        ("deliveries/x/cancel", "POST"),
        ("deliveries/x/history", "GET"),
        ("parcels", "POST"),
        ("parcels/batch", "GET, POST"),
        ("parcels/x", "GET"),
    ],
)
def test_a_route_without_the_method_is_405_with_those_it_has(path: str, allow: str) -> None:
    reply = unknown_route(Request("PATCH", "http://app", {}, params={"path": path}), [PARCEL])

    assert (reply.status, reply.headers["allow"]) == (405, allow)


@pytest.mark.parametrize("path", ["", "other", "deliveries/x/y", "deliveries/x/y/z", "parcels/x/y"])
def test_anything_else_is_no_route(path: str) -> None:
    assert unknown_route(Request("GET", "http://app", {}, params={"path": path}), [PARCEL]).status == 404
