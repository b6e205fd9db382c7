from __future__ import annotations

import json

import pytest
from httpx import Headers
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.api.business import Business
from shared.api.responses import read_response
from shared.delivery.outcome import MAX_REASON, Outcome, OutcomeKind
from shared.delivery.verdict import judge_post

KINDS: list[OutcomeKind] = ["created", "exists", "rejected", "deferred"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_outcome_comes_back_as_it_went(kind: OutcomeKind) -> None:
    outcome = Outcome(kind, "b-1", 503, "why", {"title": "Busy"}, 12.5, is_uncertain=True)

    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_members_that_say_nothing_are_left_out() -> None:
    assert Outcome("created", "b-1", 201).to_json() == {"outcome": "created", "externalId": "b-1", "status": 201}


def test_a_wish_to_come_back_at_once_is_not_left_out() -> None:
    assert Outcome("deferred", "b-1", retry_after=0.0).to_json()["retryAfter"] == 0.0


def test_the_least_that_any_version_has_written_is_readable() -> None:
    assert Outcome.from_json({"outcome": "exists", "externalId": "b-1"}) == Outcome("exists", "b-1")


def test_members_of_a_newer_version_are_passed_over() -> None:
    assert Outcome.from_json({"outcome": "created", "externalId": "b-1", "colour": "red"}) == Outcome("created", "b-1")


@given(st.text(max_size=4 * MAX_REASON))
def test_a_reason_is_kept_as_far_as_there_is_room_for_it(reason: str) -> None:
    kept = Outcome("rejected", "b-1", reason=reason).to_json()["reason"]

    assert len(kept) <= MAX_REASON
    assert kept == reason if len(reason) <= MAX_REASON else reason.startswith(kept[:-1])


def test_a_reason_is_cut_off_once_however_often_it_crosses_a_boundary() -> None:
    once = Outcome("rejected", "b-1", reason="x" * 9_999).to_json()

    assert Outcome.from_json(once).to_json() == once
    assert once["reason"].endswith("…")


@pytest.mark.parametrize("letter", ["x", "ü", "\N{ROCKET}", '"', "\\", "\u2028", "\u0001"])
@pytest.mark.parametrize("status", [408, 422, 503])
def test_whatever_a_partner_says_fits_into_a_custom_status(letter: str, status: int) -> None:
    words = dict.fromkeys(("title", "detail", *(f"{letter}{number}" for number in range(30))), letter * 5_000)
    response = read_response(status, Headers(), json.dumps(words).encode())
    longest = Business.from_json(business("\N{ROCKET}" * 128))
    outcome = judge_post(longest, response, 0.0)

    # As orchestrators.py shows it.
    shown = {**outcome.to_json(), "attempts": 10_000, "nextAttempt": "2026-01-31T23:59:59.999999+00:00"}
    # https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-custom-orchestration-status
    assert len(json.dumps(shown, ensure_ascii=False).encode("utf-16-le")) <= 16 * 1024
