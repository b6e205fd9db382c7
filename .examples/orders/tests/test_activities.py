from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from sandbox.sample import business
from shared.delivery import activities
from shared.delivery.attempt import Attempt
from shared.delivery.partner_gate import FAILURES, PartnerGate
from shared.errors import SettingsError, TokenRejectedError, TokenUnavailableError
from tests.fakes.scripted_partner import ScriptedPartner, created, found, missing, refused

if TYPE_CHECKING:
    from shared.api.business_api import BusinessApi

RECORD = business("b/1", note="Ada")
SIZE = len(msgspec.json.encode(RECORD))
LOOK_UP, POST = "GET /v1/business/by-external/b%2F1", "POST /v1/business/"


async def attempt(
    partner: ScriptedPartner,
    *,
    look_up: bool = True,
    number: int = 1,
    record: Any = None,  # noqa: ANN401 - any JSON
    gate: PartnerGate | None = None,
) -> dict[str, Any]:
    given = Attempt(record or RECORD, "instance", "instance", number, look_up)
    crossed = json.loads(json.dumps(given.to_json()))
    return await activities.post_business(crossed, partner.api, gate or PartnerGate(lambda: 0.0))


async def test_a_record_that_is_not_there_is_posted() -> None:
    partner = ScriptedPartner(missing(), created())

    assert await attempt(partner) == {"outcome": "created", "externalId": "b/1", "status": 201}
    assert partner.calls == [LOOK_UP, POST]
    assert json.loads(partner.requests[1].content) == RECORD


async def test_a_record_that_is_there_is_not_posted() -> None:
    partner = ScriptedPartner(found(RECORD | {"id": 7}))

    assert await attempt(partner) == {"outcome": "exists", "externalId": "b/1", "status": 200}
    assert partner.calls == [LOOK_UP]


async def test_a_record_that_is_there_with_other_content_is_rejected_and_not_overwritten() -> None:
    partner = ScriptedPartner(found(RECORD | {"note": "Bob"}))

    outcome = await attempt(partner)
    assert outcome["outcome"] == "rejected"
    assert outcome["reason"].endswith("different: note")
    assert partner.calls == [LOOK_UP]


async def test_nothing_is_looked_up_where_that_is_not_asked_for() -> None:
    partner = ScriptedPartner(created())

    assert (await attempt(partner, look_up=False))["outcome"] == "created"
    assert partner.calls == [POST]


async def test_nothing_is_posted_while_the_look_up_cannot_be_had() -> None:
    partner = ScriptedPartner(refused(503, retry_after="4"))

    outcome = await attempt(partner)
    assert (outcome["outcome"], outcome["retryAfter"]) == ("deferred", 4.0)
    assert partner.calls == [LOOK_UP]


async def test_every_attempt_carries_the_same_idempotency_key() -> None:
    partner = ScriptedPartner(refused(500), missing(), created())

    await attempt(partner, look_up=False)
    await attempt(partner, number=2)
    assert partner.posted_keys == ["instance", "instance"]


async def test_a_conflict_with_an_attempt_of_our_own_means_the_record_exists() -> None:
    partner = ScriptedPartner(missing(), refused(409), found(RECORD))

    assert (await attempt(partner))["outcome"] == "exists"
    assert partner.calls == [LOOK_UP, POST, LOOK_UP]


async def test_a_conflict_with_another_record_names_what_differs() -> None:
    partner = ScriptedPartner(missing(), refused(409), found(RECORD | {"note": "Bob"}))

    outcome = await attempt(partner)
    assert outcome["outcome"] == "rejected"
    assert outcome["reason"].endswith("different: note")


async def test_a_conflict_about_something_else_is_rejected_with_the_words_of_the_partner() -> None:
    partner = ScriptedPartner(missing(), refused(409, "the name is taken"), missing())

    outcome = await attempt(partner)
    assert (outcome["outcome"], outcome["status"]) == ("rejected", 409)
    assert outcome["problem"]["detail"] == "the name is taken"


async def test_a_conflict_that_cannot_be_looked_into_now_is_not_a_rejection() -> None:
    # The record may be stored, by an attempt of ours whose answer was lost.
    partner = ScriptedPartner(missing(), refused(409), refused(503, retry_after="3"))

    outcome = await attempt(partner)
    assert (outcome["outcome"], outcome["retryAfter"]) == ("deferred", 3.0)


async def test_a_conflict_that_says_to_come_back_is_not_looked_into() -> None:
    partner = ScriptedPartner(missing(), refused(409, retry_after="2"))

    outcome = await attempt(partner)
    assert (outcome["outcome"], outcome["uncertain"]) == ("deferred", True)
    assert partner.calls == [LOOK_UP, POST]


@pytest.mark.parametrize("fault", [httpx.ConnectError("refused"), httpx.ConnectTimeout("slow"), httpx.PoolTimeout("")])
async def test_a_request_that_was_not_sent_is_deferred_and_certain(fault: Exception) -> None:
    outcome = await attempt(ScriptedPartner(missing(), fault))

    assert outcome["outcome"] == "deferred"
    assert "uncertain" not in outcome
    assert type(fault).__name__ in outcome["reason"]


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ReadTimeout("slow"),
        httpx.WriteTimeout("slow"),
        httpx.ReadError("reset"),
        httpx.WriteError("reset"),
        httpx.RemoteProtocolError("half"),
        httpx.DecodingError("gzip"),
    ],
)
async def test_a_request_that_may_have_been_sent_is_deferred_and_uncertain(fault: Exception) -> None:
    outcome = await attempt(ScriptedPartner(missing(), fault))

    assert (outcome["outcome"], outcome["uncertain"]) == ("deferred", True)
    assert type(fault).__name__ in outcome["reason"]


async def test_a_token_that_cannot_be_had_now_is_deferred_as_long_as_its_server_asks() -> None:
    outcome = await attempt(ScriptedPartner(TokenUnavailableError("the server is down", retry_after=11.0)))

    assert outcome == {
        "outcome": "deferred",
        "externalId": "b/1",
        "reason": "No access token can be had: the server is down",
        "retryAfter": 11.0,
    }


async def test_a_client_that_the_token_server_refuses_is_rejected() -> None:
    outcome = await attempt(ScriptedPartner(TokenRejectedError("invalid_client", "unknown", status=401)))

    assert outcome["outcome"] == "rejected"
    assert outcome["reason"] == "The token endpoint refused the client: invalid_client (unknown)"


async def test_settings_that_are_wrong_defer_until_they_are_mended() -> None:
    async def unusable() -> BusinessApi:
        raise SettingsError(["BUSINESS_API_URL is missing"])

    given = Attempt(RECORD, "instance", "instance").to_json()
    outcome = await activities.post_business(given, unusable, PartnerGate(lambda: 0.0))
    assert (outcome["outcome"], outcome["externalId"]) == ("deferred", "b/1")
    assert "BUSINESS_API_URL is missing" in outcome["reason"]


async def test_a_record_that_an_older_version_accepted_and_this_one_does_not_is_rejected() -> None:
    outcome = await attempt(ScriptedPartner(), record={"externalId": "b/1", "name": ""})

    assert outcome["outcome"] == "rejected"
    assert outcome["reason"].startswith("/name: ")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (RECORD | {"x": "y" * 200_000}, f"has {SIZE + 200_007} bytes, more than the 65536 allowed"),
        (RECORD | {"x": {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}}, "/x: must not have"),
        (RECORD | {"x": [[]] * 2 + [10**30]}, "has a whole number of more than 64 bits"),
        (business("b\n1"), "/externalId: must not have control characters"),
        ([RECORD], "must be a JSON object"),
        ("text", "must be a JSON object"),
    ],
    ids=["size", "class", "number", "id", "list", "text"],
)
async def test_a_record_that_has_come_past_the_intake_is_rejected_with_a_reason(record: object, reason: str) -> None:
    partner = ScriptedPartner()

    outcome = await attempt(partner, record=record)
    assert (outcome["outcome"], reason in outcome["reason"]) == ("rejected", True), outcome
    assert outcome["externalId"] in {"b/1", r"b\n1", "None"}
    assert partner.requests == []


async def test_a_defect_is_an_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        await attempt(ScriptedPartner(ZeroDivisionError()))


async def test_attempts_are_held_back_once_the_partner_has_failed_again_and_again() -> None:
    partner = ScriptedPartner(*[httpx.ConnectError("down")] * FAILURES)
    gate = PartnerGate(lambda: 0.0)
    for _ in range(FAILURES):
        await attempt(partner, gate=gate)

    outcome = await attempt(partner, gate=gate)
    assert (outcome["outcome"], outcome["retryAfter"]) == ("deferred", 1.0)
    assert outcome["reason"] == "The partner is in trouble and was not asked; it will be in 1.0 s"
    assert len(partner.requests) == FAILURES


@pytest.mark.parametrize(
    "fault", [TokenUnavailableError("down"), TokenRejectedError("invalid_client"), ZeroDivisionError()]
)
async def test_failures_that_are_not_the_partners_hold_nobody_back(fault: Exception) -> None:
    partner = ScriptedPartner(*[fault] * (2 * FAILURES), missing(), created())
    gate = PartnerGate(lambda: 0.0)
    await asyncio.gather(*(attempt(partner, gate=gate) for _ in range(2 * FAILURES)), return_exceptions=True)

    assert (await attempt(partner, gate=gate))["outcome"] == "created"


@pytest.mark.parametrize(
    ("script", "level"),
    [((missing(), created()), logging.INFO), ((found(RECORD),), logging.INFO), ((refused(503),), logging.WARNING)],
)
async def test_every_attempt_is_one_log_line_with_its_instance_id(
    script: tuple[httpx.Response, ...], level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "shared.delivery.activities")
    outcome = await attempt(ScriptedPartner(*script), number=3)

    [line] = [record for record in caplog.records if record.name == "shared.delivery.activities"]
    assert (line.getMessage(), line.levelno) == ("delivery attempt", level)
    fields = vars(line)
    assert (fields["instance_id"], fields["external_id"], fields["attempt"]) == ("instance", "b/1", 3)
    assert (fields["outcome"], fields["status"]) == (outcome["outcome"], outcome["status"])
    assert "Ada" not in str(fields)


async def test_an_activity_that_nobody_refers_to_is_not_collected() -> None:
    answered = asyncio.Event()
    began = asyncio.Event()
    outcomes = []

    async def slow_api() -> BusinessApi:
        began.set()
        await answered.wait()
        return await ScriptedPartner(missing(), created()).api()

    async def invocation() -> None:
        given = Attempt(RECORD, "instance", "instance").to_json()
        outcomes.append(await activities.post_business(given, slow_api, PartnerGate(lambda: 0.0)))

    task = asyncio.create_task(invocation())
    await began.wait()
    assert task in activities._running  # noqa: SLF001 - the event loop holds a weak reference only
    answered.set()
    await task
    assert outcomes[0]["outcome"] == "created"
    assert task not in activities._running  # noqa: SLF001 - and lets it go
