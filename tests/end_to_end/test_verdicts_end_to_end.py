"""What each answer means, end to end: stored once, reported truthfully.

The cases of a table run side by side, each a record of its own with faults of its own, as single deliveries or as one
batch, against a partner that honours idempotency keys and one that does not.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.end_to_end.stage import PREFIX, RESOURCE, id_of, ids, record, records, until

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(RESOURCE.look_up is None, reason="the cases are about a partner with a look-up"),
]

TIMEOUT, SETTLE = 2.0, 2.0
SETTINGS = {
    "DELIVERY_RETRY_FIRST": "0.2",
    "DELIVERY_RETRY_MAX": "1",
    "DELIVERY_SETTLE": str(SETTLE),
    f"{PREFIX}TIMEOUT": str(TIMEOUT),
}
# Members of every record that a partner may keep in another form.
FORMS = {"formNull": None, "formText": "  to be trimmed ", "formTime": "2026-11-29T10:15:00+01:00", "formSum": "12.50"}
HTML = {"content_type": "text/html", "body": "<html><title>Blocked</title></html>"}
LOST: Json = {"fault": "drop", "route": "post", "stage": "after", "times": 1}
LATE: Json = {"fault": "late", "route": "get", "seconds": SETTLE * 0.7}


@dataclass(frozen=True)
class Case:
    """`faults` hit the record of this case; `known` is stored at the partner before; the report has `reason` in it."""

    name: str
    faults: tuple[Json, ...] = ()
    known: Json | None = None
    state: str = "delivered"
    stored: int = 1
    reason: str = ""


def post(status: int, **members: Any) -> Json:  # noqa: ANN401, any JSON
    return {"fault": "status", "route": "post", "status": status, "times": 1, **members}


def stored_but(status: int, **members: Any) -> Json:  # noqa: ANN401, the same
    """The partner stores the record, and answers this."""
    return post(status, stage="after", **members)


def look_up(status: int, **members: Any) -> Json:  # noqa: ANN401, the same
    """The second look-up, the first one after the post, is answered so once."""
    return {"fault": "status", "route": "get", "status": status, "times": 1, "skip": 1, **members}


CASES = [
    # An odd answer to a look-up proves nothing.
    *[Case(f"look-up {status}", (LOST, look_up(status))) for status in (302, 400, 401, 403, 405, 429, 500, 501)],
    Case("look-up HTML 404", (LOST, look_up(404, **HTML))),
    Case("look-up dropped", (LOST, {"fault": "drop", "route": "get", "times": 1, "skip": 1})),
    Case("look-up cut", (LOST, {"fault": "garble", "route": "get", "kind": "cut", "times": 1, "skip": 0})),
    # A post that outlasts the timeout is in progress: 409 for its key, no record yet.
    Case("slow post", ({"fault": "latency", "route": "post", "seconds": TIMEOUT + 1, "times": 1},)),
    Case("409 with Retry-After", (post(409, retry_after=1),)),
    # A record that shows up late, and a second post that is refused because the first one is stored.
    Case("late look-up", (LOST, LATE)),
    *[Case(f"late, and then {status}", (LOST, post(status, skip=1, times=None), LATE)) for status in (409, 422)],
    Case("lost and normalised", (LOST, {"fault": "normalise", "route": "api"})),
    Case("known and normalised", ({"fault": "normalise", "route": "api"},), known={}),
    # Answers of a success that say little, or something else.
    Case("201 as text", (stored_but(201, body="OK", content_type="text/plain"),)),
    Case("200 as HTML", (stored_but(200, **HTML),)),
    Case("204", (stored_but(204),)),
    Case("201 empty", ({"fault": "garble", "route": "post", "kind": "empty"},)),
    Case("another id", ({"fault": "alter", "route": "post", "put": {RESOURCE.id_member: "another"}, "times": 1},)),
    *[Case(f"stored but {status}", (stored_but(status),)) for status in (302, 500, 502, 504)],
    Case("half an answer", ({"fault": "garble", "route": "post", "kind": "half", "times": 1},)),
    # "Nothing" in a look-up.
    *[
        Case(
            f"nothing as {body or 'an empty body'}", (look_up(200, skip=0, body=body, content_type="application/json"),)
        )
        for body in ("null", "[]", "")
    ],
    Case("look-up 410", (look_up(410, skip=0),)),
    # Not now, or not about the record.
    *[Case(f"{status} once", (post(status),)) for status in (408, 421, 423, 425, 429)],
    *[Case(f"{status} with Retry-After", (post(status, retry_after=1),)) for status in (400, 403, 413, 422)],
    *[Case(f"{status} as HTML", (post(status, **HTML),)) for status in (403, 404)],
    Case("401 once", (post(401),)),
    # Large headers, which content security policies are.
    Case("a header of 16 KiB", (stored_but(201, headers={"content-security-policy": "x" * 16_384}),)),
    Case("150 headers", (stored_but(201, headers={f"x-header-{number}": "x" for number in range(150)}),)),
    # Verdicts on the record.
    *[
        Case(f"{status} for good", (post(status, times=None, body={"title": "Never"}),), None, "rejected", 0, "Never")
        for status in (400, 403, 404, 422)
    ],
    Case("409, absent", (post(409, times=None, body={"title": "Taken"}),), None, "rejected", 0, "Taken"),
    Case("409, known", (post(409, times=None), look_up(404, skip=0)), known={}),
    Case("known with other content", (), {"formText": "other"}, "rejected", 1, "formText"),
    Case("lost, then 422 for good", (LOST, post(422, skip=1, times=None), look_up(404, skip=1))),
]


@pytest.mark.parametrize("is_batch", [False, True], ids=["single", "batch"])
@pytest.mark.parametrize("idempotency", ["honour", "ignore"])
async def test_each_answer_means_what_it_says(start: StartStage, idempotency: str, *, is_batch: bool) -> None:
    stage = start(["--idempotency", idempotency], SETTINGS)
    bodies = [record(number, **FORMS) for number in range(1, len(CASES) + 1)]
    pairs = zip(bodies, CASES, strict=True)
    known: list[Json] = [{**body, **case.known} for body, case in pairs if case.known is not None]
    await stage.deliver_all(known)
    await stage.set_faults(
        *(
            {name: value for name, value in fault.items() if value is not None} | {"record": id_of(number)}
            for number, case in enumerate(CASES, start=1)
            for fault in case.faults
        )
    )

    reports = await _reports(stage, bodies, is_batch=is_batch)

    stored = await stage.stored()
    told = {
        case.name: (report["state"], stored.get(id_of(number), 0), case.reason in report.get("reason", ""))
        for number, (case, report) in enumerate(zip(CASES, reports, strict=True), start=1)
    }
    assert told == {case.name: (case.state, case.stored, True) for case in CASES}


async def _reports(stage: Stage, bodies: list[Json], *, is_batch: bool) -> list[Json]:
    if not is_batch:
        return await stage.deliver_all(bodies)
    links = await stage.start(bodies)
    await stage.finished(links)
    shown = (await stage.show(links, "?records=true"))["records"]
    return [each | ({"state": "delivered"} if each["state"] in {"created", "exists"} else {}) for each in shown]


@pytest.mark.parametrize("is_batch", [False, True], ids=["single", "batch"])
async def test_an_answer_that_comes_twice_is_nobody_elses(start: StartStage, *, is_batch: bool) -> None:
    # One connection: the second copy arrives while the next record is in flight.
    stage = start(environ=SETTINGS | {f"{PREFIX}MAX_CONNECTIONS": "1"})
    await stage.set_faults(
        {"fault": "duplicate", "route": "post", "seconds": 0.05, "probability": 0.5},
        {"fault": "latency", "route": "post", "seconds": 0.1},
    )

    reports = await _reports(stage, records(12), is_batch=is_batch)

    assert {report["state"] for report in reports} == {"delivered"}
    assert await stage.stored() == ids(12)


def token_answers() -> Iterable[Any]:
    def refusal(status: int, error: str, **members: Any) -> Json:  # noqa: ANN401, any JSON
        return {"fault": "status", "route": "token", "status": status, "body": {"error": error}, "times": 2, **members}

    yield pytest.param([refusal(400, "too_many_requests")], id="too_many_requests")
    yield pytest.param([refusal(400, "slow_down", retry_after=1)], id="slow_down")
    yield pytest.param([refusal(400, "unknown_error")], id="unknown_error")
    yield pytest.param([refusal(401, "invalid_client")], id="invalid_client")
    yield pytest.param([{"fault": "garble", "route": "token", "kind": "html", "times": 2}], id="a page")
    alter: Json = {"fault": "alter", "route": "token"}
    yield pytest.param([alter | {"status": 201}], id="status 201")
    yield pytest.param([alter | {"put": {"token_type": None}}], id="token_type null")
    for value in (0, -1, "", " 3599 ", None):
        yield pytest.param([alter | {"put": {"expires_in": value}}], id=f"expires_in {value!r}")
    for status, error in ((401, "expired_token"), (401, "unauthorized"), (401, None), (403, "invalid_token")):
        challenge = {"fault": "challenge", "route": "api", "status": status, "error": error}
        yield pytest.param([challenge], id=f"challenge {status} {error}")
    # A single stray 401, and an endpoint that issues its cached token again.
    stray = {"fault": "status", "route": "api", "status": 401, "times": 1}
    yield pytest.param([stray, {"fault": "cached", "route": "token"}], id="stray 401")


@pytest.mark.parametrize("faults", list(token_answers()))
async def test_trouble_with_tokens_is_never_the_records_fault(stage: Stage, faults: list[Json]) -> None:
    await stage.deliver(record(99))
    # The stray 401 meets a good token, all others one that is not good any more.
    if not any(fault["fault"] == "cached" for fault in faults):
        await stage.control("POST", "revoke")
    await stage.set_faults(*faults)

    others = asyncio.gather(*map(stage.deliver, [records(20), *(record(number) for number in range(22, 31))]))
    waited_for = await stage.send(record(21), prefer="wait=60")
    batch, *singles = await others

    assert (batch["state"], batch["created"], batch["rejected"]) == ("delivered", 20, 0)
    assert {single["state"] for single in singles} == {"delivered"}
    if waited_for.status_code != 503:
        assert (waited_for.status_code, waited_for.json()["state"]) == (200, "delivered")
    else:
        assert faults[0]["body"]["error"] == "invalid_client"
        await stage.finished({"statusQueryGetUri": waited_for.json()["delivery"]})
    assert await stage.stored() == ids(30) | {id_of(99): 1}


@pytest.mark.parametrize("body", [record(1), records(2)], ids=["single", "batch"])
async def test_a_waiting_caller_is_told_at_once_that_the_credentials_are_wrong(stage: Stage, body: object) -> None:
    await stage.deliver(record(99))
    await stage.control("POST", "revoke")
    await stage.set_faults({"fault": "status", "route": "token", "status": 401, "body": {"error": "invalid_client"}})

    answer = await stage.send(body, prefer="wait=60")
    told = answer.json()
    await stage.set_faults()
    delivery = await stage.finished({"statusQueryGetUri": told["delivery"]})

    assert (answer.status_code, told["type"]) == (503, "/api/docs#configuration")
    assert "invalid_client" in told["detail"]
    assert delivery["state"] == "delivered"
    assert "misconfigured" not in delivery


@pytest.mark.timeout(200)
@pytest.mark.parametrize("how", ["purged and sent again", "restarted", "cancelled and redelivered"])
async def test_ending_a_delivery_in_the_middle_of_a_post_never_stores_it_twice(start: StartStage, how: str) -> None:
    stage = start(["--idempotency", "ignore"], SETTINGS | {f"{PREFIX}TIMEOUT": "20"})
    await stage.set_faults({"fault": "hold", "route": "post", "gate": "late", "times": 1})
    links = await stage.start(record(1), key="one")

    async def is_held() -> bool:
        return bool((await stage.control("GET", "gates")).get("late", {}).get("waiting"))

    await until(is_held)
    if how == "restarted":
        restarted = await stage.durable("POST", f"instances/{links['id']}/restart?restartWithNewInstanceId=false")
        assert restarted.status_code in {200, 202, 409}, restarted.text
    await stage.ask("POST", links["cancelPostUri"])
    await stage.in_state(links, "cancelled")
    if how == "purged and sent again":
        assert (await stage.durable("DELETE", f"instances/{links['id']}")).status_code == 200
        again = await stage.start(record(1), key="one")
    elif how == "restarted":
        await stage.durable("POST", f"instances/{links['id']}/restart?restartWithNewInstanceId=false")
        again = links
    else:
        again = (await stage.ask("POST", links["redeliverPostUri"])).json()
    # The second delivery has begun while the post of the first one is still under way.
    await stage.in_state(again, "waiting", "delivering")
    await stage.control("POST", "gates/late/open")
    delivery = await stage.finished(again, patience=150)

    assert delivery["state"] == "delivered"
    assert await stage.stored() == ids(1)
