"""The two tables of what a partner's answer means, row by row, and how an attempt combines them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from shared.errors import ResourceError
from shared.resource import ApiResponse, LookUp, Verdict
from shared.rules.outcome import Outcome
from shared.rules.record import CheckedRecord
from shared.rules.verdict import PROXY_PATIENCE, attempt_steps, judge_look_up, judge_post
from tests.fakes.scripted_partner import answer, html
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.resource import Resource

RECORD = CheckedRecord("P-1", b'{"parcelId":"P-1","weight":1.5,"note":null}')
OURS = {"parcelId": "P-1", "weight": "1.50", "createdAt": "now"}
OTHER = {"parcelId": "P-1", "weight": 2}
UNREADABLE = ApiResponse(200, {}, b"{", is_readable=False)
LIST = replace(PARCEL, look_up=LookUp("/parcels", {"ref": "{id}"}, items="/data/items"))


def post(
    response: ApiResponse, *, was_uncertain: bool = False, age: float = 0.0, resource: Resource = PARCEL
) -> Outcome:
    return judge_post(resource, RECORD, response, age=age, was_uncertain=was_uncertain)


def look_up(
    response: ApiResponse, *, was_uncertain: bool = False, age: float = 0.0, resource: Resource = PARCEL
) -> Outcome | str:
    return judge_look_up(resource, RECORD, response, age=age, was_uncertain=was_uncertain)


def summary(judged: object) -> str:
    if isinstance(judged, Outcome):
        return f"{judged.kind}, uncertain" if judged.is_uncertain else judged.kind
    return str(judged)


@pytest.mark.parametrize(
    ("response", "first", "after_uncertain"),
    [
        # 2xx, readable or without a body
        (answer(201, OURS), "created", "created"),
        (answer(200), "created", "created"),
        (answer(204), "created", "created"),
        (answer(201, {"id": 7}), "created", "created"),
        (ApiResponse(201, {}, b"OK"), "created", "created"),
        (answer(201, OURS | {"parcelId": " P-1"}), "created", "created"),
        # … with another id
        (answer(201, OURS | {"parcelId": "P-2"}), "deferred, uncertain", "deferred, uncertain"),
        # 2xx unreadable, 3xx, 5xx
        (UNREADABLE, "deferred, uncertain", "deferred, uncertain"),
        (html(200), "deferred, uncertain", "deferred, uncertain"),
        (answer(302), "deferred, uncertain", "deferred, uncertain"),
        (answer(500), "deferred, uncertain", "deferred, uncertain"),
        (answer(501), "deferred, uncertain", "deferred, uncertain"),
        (answer(503, after=5), "deferred, uncertain", "deferred, uncertain"),
        # credentials
        (answer(401), "deferred", "deferred"),
        (answer(401, www_authenticate='Bearer error="expired_token"'), "deferred", "deferred"),
        (answer(401, www_authenticate="Basic realm=x"), "deferred", "deferred"),
        (
            answer(401, www_authenticate='Bearer error_description="no error=insufficient_scope"'),
            "deferred",
            "deferred",
        ),
        (
            answer(401, www_authenticate="Bearer error='expired', Basic error=insufficient_scope"),
            "deferred",
            "deferred",
        ),
        (answer(403, www_authenticate='Bearer error="invalid_token"'), "deferred", "deferred"),
        (answer(401, www_authenticate='Bearer error="insufficient_scope"'), "rejected", "rejected, uncertain"),
        (answer(403, www_authenticate='Bearer error="insufficient_scope"'), "rejected", "rejected, uncertain"),
        # not now
        *[(answer(status), "deferred", "deferred") for status in (407, 408, 421, 423, 425, 429, 431)],
        *[(answer(status, after=9), "deferred", "deferred") for status in (400, 403, 413, 422)],
        # conflicts
        (answer(409, after=9), "deferred, uncertain", "deferred, uncertain"),
        (answer(409), "rejected, uncertain", "deferred, uncertain"),
        (html(409), "rejected, uncertain", "deferred, uncertain"),
        # other 4xx
        *[(answer(status), "rejected", "rejected, uncertain") for status in (400, 403, 404, 405, 410, 413, 422)],
        (html(403), "deferred", "deferred"),
        (html(404), "deferred", "deferred"),
    ],
)
def test_what_an_answer_to_a_post_means(response: ApiResponse, first: str, after_uncertain: str) -> None:
    assert summary(post(response)) == first
    assert summary(post(response, was_uncertain=True)) == after_uncertain


def test_a_proxys_page_is_the_partners_verdict_after_ten_minutes() -> None:
    assert summary(post(html(403), age=PROXY_PATIENCE - 1)) == "deferred"
    assert summary(post(html(403), age=PROXY_PATIENCE)) == "rejected"
    assert summary(post(html(403), age=PROXY_PATIENCE, was_uncertain=True)) == "rejected, uncertain"


@pytest.mark.parametrize(
    ("response", "first", "after_uncertain"),
    [
        (answer(200, OURS), "exists", "exists"),
        (answer(200, OTHER), "rejected", "created"),
        *[(answer(status), "absent", "absent") for status in (204, 404, 410, 200)],
        (answer(200, []), "absent", "absent"),
        (ApiResponse(200, {}, b" null"), "absent", "absent"),
        (answer(200, [OTHER | {"parcelId": "P-2"}]), "absent", "absent"),
        (answer(200, [{"parcelId": "P-2"}, OTHER, OURS]), "exists", "exists"),
        # anything else
        *[(answer(status), "no look-up", "deferred, uncertain") for status in (401, 403, 405, 501)],
        *[(answer(status), "deferred", "deferred, uncertain") for status in (302, 400, 408, 429, 500, 503)],
        (html(403), "deferred", "deferred, uncertain"),
        (html(404), "deferred", "deferred, uncertain"),
        (html(200), "deferred", "deferred, uncertain"),
        (UNREADABLE, "deferred", "deferred, uncertain"),
        (ApiResponse(200, {}, b"OK"), "deferred", "deferred, uncertain"),
        (answer(200, {"error": "try again"}), "deferred", "deferred, uncertain"),
        (answer(200, OURS | {"parcelId": "P-2"}), "deferred", "deferred, uncertain"),
        (answer(200, [{"ref": "P-1"}]), "deferred", "deferred, uncertain"),
        (answer(200, "P-1"), "deferred", "deferred, uncertain"),
    ],
)
def test_what_an_answer_to_a_look_up_means(response: ApiResponse, first: str, after_uncertain: str) -> None:
    assert summary(look_up(response)) == first
    assert summary(look_up(response, was_uncertain=True)) == after_uncertain


def test_an_html_page_in_place_of_a_look_up_is_a_proxys_for_ten_minutes() -> None:
    assert summary(look_up(html(403), age=PROXY_PATIENCE - 1)) == "deferred"
    assert summary(look_up(html(403), age=PROXY_PATIENCE)) == "no look-up"
    assert summary(look_up(html(403), age=PROXY_PATIENCE, was_uncertain=True)) == "deferred, uncertain"


@pytest.mark.parametrize(
    ("content", "meaning"),
    [
        ({"data": {"items": [OURS]}}, "exists"),
        ({"data": {"items": OURS}}, "exists"),
        ({"data": {"items": []}}, "absent"),
        ({"data": {"items": None}}, "absent"),
        ({}, "absent"),
        ({"data": {"error": 1}}, "deferred"),
        ([], "absent"),
        ([OURS], "deferred"),
    ],
)
def test_a_list_is_found_where_the_look_up_points(content: object, meaning: str) -> None:
    assert summary(look_up(answer(200, content), resource=LIST)) == meaning


@pytest.mark.parametrize("status", [200, 400, 404])
def test_a_function_reads_an_unusual_no_such_record(status: int) -> None:
    look = LookUp("/parcels/{id}", absent=lambda response: response.content == {"ok": False})
    resource = replace(PARCEL, look_up=look)

    assert summary(look_up(answer(status, {"ok": False}), resource=resource)) == "absent"
    assert summary(look_up(answer(200, OURS), resource=resource)) == "exists"
    assert summary(look_up(answer(400, {"ok": True}), resource=resource)) == "deferred"


def test_other_content_names_the_members_that_differ() -> None:
    rejected, created = (look_up(answer(200, OTHER), was_uncertain=known) for known in (False, True))

    assert isinstance(rejected, Outcome)
    assert isinstance(created, Outcome)
    assert rejected.differing == created.differing == ["weight"]
    assert rejected.reason == "The partner has another record with this id; different: weight"


def test_a_rejection_repeats_the_partners_problem() -> None:
    judged = post(answer(422, {"title": "Refused", "detail": "no such city", "city": "Xanadú"}))

    assert judged.reason == "The partner answered 422: Refused: no such city"
    assert judged.problem == {"title": "Refused", "detail": "no such city", "city": "Xanadú"}


def test_same_replaces_the_comparison_and_knows_ids_in_another_form() -> None:
    resource = replace(PARCEL, same=lambda sent, found: found["parcelId"] == sent["parcelId"].lower())

    assert summary(look_up(answer(200, {"parcelId": "p-1", "weight": 9}), resource=resource)) == "exists"
    assert summary(look_up(answer(200, OURS), resource=resource)) == "rejected"


@pytest.mark.parametrize(
    ("verdict", "first", "after_uncertain"),
    [
        (Verdict("created"), "created", "created"),
        (Verdict("exists"), "exists", "exists"),
        (Verdict("rejected", "bad VAT id"), "rejected", "rejected, uncertain"),
        (Verdict("deferred", retry_after=7), "deferred", "deferred"),
        (Verdict("uncertain"), "deferred, uncertain", "deferred, uncertain"),
        (None, "created", "created"),
    ],
)
def test_judge_decides_before_the_status_does(verdict: Verdict | None, first: str, after_uncertain: str) -> None:
    resource = replace(PARCEL, judge=lambda _response: verdict)

    assert summary(post(answer(200, {"error": 17}), resource=resource)) == first
    assert summary(post(answer(200, {"error": 17}), resource=resource, was_uncertain=True)) == after_uncertain


def test_a_deferral_has_a_reason_even_if_judge_gives_none() -> None:
    resource = replace(PARCEL, judge=lambda _response: Verdict("deferred"))

    assert post(answer(200, {"error": 17}), resource=resource).reason == "The partner answered 200"


@pytest.mark.parametrize("kind", ["deferred", "rejected"])
def test_a_reason_that_judge_takes_from_the_answer_becomes_text(kind: Any) -> None:  # noqa: ANN401, a literal
    resource = replace(PARCEL, judge=lambda response: Verdict(kind, response.content["error"]))

    assert post(answer(200, {"error": 17}), resource=resource).reason == "17"


HONOURING = replace(PARCEL, honours_idempotency_key=True)
BLIND = replace(HONOURING, look_up=None)


@pytest.mark.parametrize(
    ("resource", "known", "answers", "calls", "outcome"),
    [
        (PARCEL, "", [answer(404), answer(201)], "look up, post", "created"),
        (PARCEL, "", [answer(403), answer(201)], "look up, post", "created"),
        (PARCEL, "", [answer(200, OURS)], "look up", "exists"),
        (HONOURING, "", [answer(201)], "post", "created"),
        (HONOURING, "uncertain", [answer(200, OURS)], "look up", "exists"),
        (BLIND, "uncertain", [answer(201)], "post", "created"),
        # Absent must be seen twice after an uncertain attempt.
        (PARCEL, "uncertain", [answer(404)], "look up", "deferred, uncertain"),
        (PARCEL, "absent", [answer(404), answer(201)], "look up, post", "created"),
        (PARCEL, "uncertain", [answer(403)], "look up", "deferred, uncertain"),
        # A conflict or a refusal may be with an attempt of our own.
        (HONOURING, "", [answer(409), answer(200, OURS)], "post, look up", "exists"),
        (HONOURING, "", [answer(409), answer(200, OTHER)], "post, look up", "rejected"),
        (HONOURING, "", [answer(409), answer(404)], "post, look up", "rejected"),
        (HONOURING, "", [answer(409), answer(500)], "post, look up", "deferred"),
        (BLIND, "", [answer(409)], "post", "rejected"),
        (PARCEL, "absent", [answer(404), answer(422), answer(200, OTHER)], "look up, post, look up", "created"),
        (PARCEL, "absent", [answer(404), answer(422), answer(404)], "look up, post, look up", "rejected"),
        (PARCEL, "absent", [answer(404), answer(422), answer(503)], "look up, post, look up", "deferred, uncertain"),
        (BLIND, "uncertain", [answer(422)], "post", "deferred, uncertain"),
    ],
)
def test_an_attempt_makes_the_calls_that_decide(
    resource: Resource,
    known: str,
    answers: list[ApiResponse],
    calls: str,
    outcome: str,
) -> None:
    steps = attempt_steps(resource, RECORD, age=0, was_uncertain=bool(known), was_absent=known == "absent", settle=5)
    made, judged = [next(steps)], None
    for response in answers:
        try:
            made.append(steps.send(response))
        except StopIteration as stop:
            judged = stop.value

    assert (", ".join(made), summary(judged)) == (calls, outcome)


def test_a_record_that_is_not_yet_found_is_looked_up_again_when_it_must_have_settled() -> None:
    steps = attempt_steps(PARCEL, RECORD, age=0, was_uncertain=True, was_absent=False, settle=5)
    next(steps)

    with pytest.raises(StopIteration) as stop:
        steps.send(answer(404))

    assert (stop.value.value.is_absent, stop.value.value.retry_after) == (True, 5)


def test_a_function_of_the_users_that_fails_is_named() -> None:
    def same(_sent: object, found: Mapping[str, Any]) -> bool:
        return bool(found["attributes"]["weight"])

    def judge(_response: ApiResponse) -> Any:  # noqa: ANN401, what a user may return
        return "rejected"

    async def later(_sent: object, _found: object) -> bool:
        return False

    with pytest.raises(ResourceError, match="Resource Parcel: same= must be a plain function, and not async"):
        look_up(answer(200, OTHER), resource=replace(PARCEL, same=lambda sent, _found: later(sent, None)))  # type: ignore[arg-type,return-value]
    with pytest.raises(ResourceError, match="Resource Parcel: same= raised KeyError: 'attributes'"):
        look_up(answer(200, OURS), resource=replace(PARCEL, same=same))
    with pytest.raises(ResourceError, match="Resource Parcel: judge= must return a Verdict or None, not 'rejected'"):
        post(answer(200, OURS), resource=replace(PARCEL, judge=judge))
