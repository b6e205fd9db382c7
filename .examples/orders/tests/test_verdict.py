from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.api.business import Business
from shared.api.responses import ApiResponse, read_response
from shared.delivery.outcome import Outcome
from shared.delivery.verdict import TOKEN_PATIENCE, differing_members, judge_look_up, judge_post

RECORD = business("b-1", note="Ada", tags=["a", {"b": 1}], active=True, size=1.5)
BUSINESS = Business.from_json(RECORD)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def response(status: int, content: object = None, *, body: bytes | None = None, **headers: str) -> ApiResponse:
    named = httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    octets = json.dumps(content).encode() if body is None and content is not None else body or b""
    return read_response(status, named, octets)


def posted(answer: ApiResponse, age: float = 0.0) -> Outcome:
    return judge_post(BUSINESS, answer, age)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 204, 206, 299])
@pytest.mark.parametrize("content", [None, {}, {"id": 7}, [], "stored"])
def test_a_success_means_created(status: int, content: object) -> None:
    assert posted(response(status, content)) == Outcome("created", "b-1", status)


@pytest.mark.parametrize("body", [b"<html>", b"{", b"\xff", b'{"a": NaN}', b'{"id": 7'])
def test_a_success_with_a_body_that_is_not_json_proves_nothing(body: bytes) -> None:
    outcome = posted(response(200, body=body))

    assert (outcome.kind, outcome.status, outcome.is_uncertain) == ("deferred", 200, True)
    assert outcome.reason == "The partner answered 200, with a body that is not JSON"


@pytest.mark.parametrize("status", [408, 425, 429])
def test_not_now_is_deferred_and_certain(status: int) -> None:
    outcome = posted(response(status, {"title": "Busy"}, retry_after="7"))

    assert (outcome.kind, outcome.is_uncertain, outcome.retry_after) == ("deferred", False, 7.0)
    assert outcome.problem == {"title": "Busy"}


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 505, 507, 511, 520, 599])
def test_a_fault_of_the_partner_is_deferred_and_uncertain(status: int) -> None:
    outcome = posted(response(status, body=b"upstream", retry_after="3"))

    assert (outcome.kind, outcome.is_uncertain, outcome.retry_after) == ("deferred", True, 3.0)
    assert outcome.problem == {"detail": "upstream"}


@pytest.mark.parametrize(
    "status", [400, 402, 403, 404, 405, 406, 407, 409, 410, 411, 413, 415, 418, 422, 423, 424, 451]
)
def test_any_other_refusal_is_rejected_with_the_words_of_the_partner(status: int) -> None:
    outcome = posted(response(status, {"title": "Refused", "detail": "no such city", "city": "Xanadu"}))

    assert (outcome.kind, outcome.status) == ("rejected", status)
    assert outcome.reason == f"The partner answered {status}: Refused: no such city"
    assert outcome.problem == {"title": "Refused", "detail": "no such city", "city": "Xanadu"}


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308])
def test_a_redirect_is_rejected_and_says_why(status: int) -> None:
    outcome = posted(response(status, location="https://elsewhere.example/"))

    assert outcome.kind == "rejected"
    assert "redirects are not followed" in (outcome.reason or "")


def test_a_conflict_that_names_a_time_is_about_an_attempt_still_in_work() -> None:
    outcome = posted(response(409, {"title": "In progress"}, retry_after="2"))

    assert (outcome.kind, outcome.is_uncertain, outcome.retry_after) == ("deferred", True, 2.0)


@pytest.mark.parametrize(
    "challenge", ["", "Bearer", 'Bearer realm="x"', 'Bearer error="invalid_token"', 'Basic realm="x"']
)
def test_a_refused_token_is_deferred_until_patience_ends(challenge: str) -> None:
    answer = response(401, {"title": "Unauthorized"}, www_authenticate=challenge)
    kinds = [posted(answer, age).kind for age in (0.0, TOKEN_PATIENCE - 0.1, TOKEN_PATIENCE, TOKEN_PATIENCE + 1)]

    assert kinds == ["deferred", "deferred", "rejected", "rejected"]
    assert not posted(answer).is_uncertain


def test_a_401_about_something_else_than_the_token_is_rejected_at_once() -> None:
    assert posted(response(401, www_authenticate='Bearer error="insufficient_scope"')).kind == "rejected"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "The partner answered 400"),
        (b"null", "The partner answered 400"),
        (b"no such city", "The partner answered 400: no such city"),
        (b'{"error": "no such city"}', 'The partner answered 400: {"error":"no such city"}'),
        (b'["no such city"]', 'The partner answered 400: ["no such city"]'),
        (b'{"title": "Refused"}', "The partner answered 400: Refused"),
        (b'{"detail": "no such city"}', "The partner answered 400: no such city"),
        (b'{"n": 123456789012345678901234567890}', 'The partner answered 400: {"n":123456789012345678901234567890}'),
    ],
)
def test_the_reason_has_the_words_of_the_partner_in_whatever_form_they_came(body: bytes, reason: str) -> None:
    assert posted(response(400, body=body)).reason == reason


def test_a_response_without_problem_details_is_judged_as_well() -> None:
    assert posted(ApiResponse(400, {})) == Outcome("rejected", "b-1", 400, "The partner answered 400")
    assert posted(ApiResponse(500, {})).problem == {}


@given(st.integers(300, 599), st.dictionaries(st.text(max_size=1_500), JSON_VALUES | st.text(max_size=1_500)))
def test_an_outcome_fits_into_a_custom_status_whatever_the_partner_says(status: int, document: dict[str, Any]) -> None:
    outcome = posted(response(status, document)).to_json()

    text = json.dumps({**outcome, "attempts": 9_999, "nextAttempt": "2026-01-31T23:59:58.123456+00:00"})
    assert len(json.dumps(json.loads(text), ensure_ascii=False).encode("utf-16-le")) <= 16 * 1024


def test_as_many_of_the_words_of_the_partner_are_kept_as_there_is_room_for() -> None:
    document = {"title": "t" * 900, "detail": "d" * 900, **{f"m{n}": "x" * 500 for n in range(10)}, "last": 1}
    outcome = posted(response(400, document))

    assert outcome.problem.keys() >= {"title", "detail", "m0", "last"}
    assert "m9" not in outcome.problem


def test_words_that_the_durable_sdk_would_take_for_an_object_are_left_out() -> None:
    custom = {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}
    outcome = posted(response(400, {"title": "Refused", "member": [custom]}))

    assert outcome.reason == "The partner answered 400: Refused"
    assert outcome.problem == {}


@given(st.integers(100, 599), st.binary(max_size=60), st.sampled_from(["", "5", "soon"]), st.floats(0, 1e9))
def test_every_response_has_a_verdict(status: int, body: bytes, retry_after: str, age: float) -> None:
    answer = response(status, body=body, retry_after=retry_after)

    outcome = posted(answer, age)
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))).kind in {"created", "rejected", "deferred"}
    found = judge_look_up(BUSINESS, answer)
    assert found is None or found.kind in {"exists", "rejected", "deferred"}


def test_a_look_up_that_shows_the_same_record_means_it_exists() -> None:
    assert judge_look_up(BUSINESS, response(200, RECORD)) == Outcome("exists", "b-1", 200)


def test_what_the_partner_has_added_is_no_difference() -> None:
    shown = RECORD | {"id": 7, "tags": ["a", {"b": 1.0, "c": 2}]}

    assert judge_look_up(BUSINESS, response(200, shown)) == Outcome("exists", "b-1", 200)


def test_a_look_up_that_shows_other_content_is_a_rejection_that_names_the_members() -> None:
    found = judge_look_up(BUSINESS, response(200, RECORD | {"note": "Bob", "active": 1}))

    assert found is not None
    assert (found.kind, found.status) == ("rejected", 200)
    assert found.reason == "The partner has this external id with other content; different: note, active"


def test_of_many_differing_members_some_are_named_and_the_rest_counted() -> None:
    record = business("b-1") | {"n" * 200: 1} | {f"m{n}": n for n in range(20)}
    found = judge_look_up(Business.from_json(record), response(200, business("b-1")))

    assert found is not None
    named = (found.reason or "").partition("different: ")[2]
    assert named.startswith("n" * 59 + "…, m0, m1, ")
    assert named.endswith(", m8 and 11 more")


@pytest.mark.parametrize("answer", [response(200), response(200, body=b"<html>"), response(200, []), response(206, 1)])
def test_a_look_up_with_no_object_to_compare_is_deferred(answer: ApiResponse) -> None:
    found = judge_look_up(BUSINESS, answer)

    assert found is not None
    assert (found.kind, found.is_uncertain) == ("deferred", False)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_a_look_up_that_fails_for_now_is_deferred(status: int) -> None:
    found = judge_look_up(BUSINESS, response(status, retry_after="9"))

    assert found is not None
    assert (found.kind, found.status, found.retry_after) == ("deferred", status, 9.0)


@pytest.mark.parametrize("status", [204, 301, 400, 401, 403, 404, 405, 409, 410, 422, 501])
def test_a_look_up_that_shows_no_record_leaves_it_to_the_post(status: int) -> None:
    assert judge_look_up(BUSINESS, response(status)) is None


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (1, 1.0),
        (None, None),
        ({}, {"a": 1}),
        ([{"a": 1}], [{"a": 1, "b": 2}]),
        (True, True),
    ],
)
def test_equal_values_are_no_difference(sent: object, found: object) -> None:
    assert differing_members({"m": sent}, {"m": found}) == []


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (True, 1),
        (0, False),
        ("1", 1),
        (None, 0),
        ([1], [1, 2]),
        ([1, 2], [2, 1]),
        ({"a": 1}, {}),
        ({"a": 1}, [1]),
        ([1], {"0": 1}),
        ("a", "A"),
    ],
)
def test_other_values_are_a_difference(sent: object, found: object) -> None:
    assert differing_members({"m": sent}, {"m": found}) == ["m"]


def test_a_member_that_is_missing_is_a_difference_even_if_it_was_sent_as_null() -> None:
    assert differing_members({"m": None}, {}) == ["m"]


@given(st.dictionaries(st.text(max_size=8), JSON_VALUES, max_size=4), st.dictionaries(st.text(), JSON_VALUES))
def test_a_record_that_was_only_added_to_never_differs(sent: dict[str, Any], added: dict[str, Any]) -> None:
    assert differing_members(sent, json.loads(json.dumps(added | sent))) == []
