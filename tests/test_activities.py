from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shared.durable.activities import PATIENCE, BatchRecords, contained, post_batch, post_one
from shared.durable.attempt import LOOK, WORK
from shared.durable.inputs import DeliveryOptions, batch_input, from_json, to_json
from shared.durable.progress import Deferral, OrderResult
from shared.errors import (
    ActivityInterruptedError,
    ApiConnectError,
    ApiInterruptedError,
    SettingsError,
    TokenRejectedError,
    TokenUnavailableError,
)
from shared.resource import Verdict
from shared.rules.outcome import Outcome
from shared.rules.retry import RetryPolicy
from tests.fakes.durable_host import DurableHost
from tests.fakes.durable_host import answer as host_answer
from tests.fakes.scripted_partner import FreeTurns, ScriptedPartner, answer
from tests.fakes.virtual_time import in_virtual_time
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.durable.attempt import PartnerAccess
    from shared.resource import ApiResponse, Resource
    from shared.rules.flow import CallResult

RECORD = '{"parcelId": "P-1", "weight": 99999999999999.99}'
HONOURING = replace(PARCEL, honours_idempotency_key=True)


def running(input_: object = None, **more: Any) -> DurableHost:  # noqa: ANN401 - members of an instance
    host = DurableHost()
    host.put("parcel-1", PARCEL.deliver, input_, created=datetime.now(UTC) - timedelta(seconds=5), **more)
    return host


def order(**more: object) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    circumstances = {"instanceId": "parcel-1", "began": now, "scheduled": now, "age": 0.0, "settle": 5.0}
    return {**circumstances, "record": RECORD, "key": "a-key", "known": {}, **more}


async def post(partner: ScriptedPartner, host: DurableHost | None = None, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - members of an order
    access: PartnerAccess = more.pop("access", None) or partner.access()
    return await post_one(order(**more), HONOURING, (host or running()).client(), access)


@in_virtual_time
async def test_posts_the_text_that_was_sent_under_the_deliverys_key() -> None:
    partner = ScriptedPartner(answer(201))

    outcome = await post(partner)

    assert outcome == {"outcome": "created", "recordId": "P-1", "status": 201}
    assert (partner.bodies, partner.keys) == ([RECORD.encode()], ["a-key"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ApiConnectError("connection refused"), {"reason": "connection refused"}),
        (ApiInterruptedError("no answer in 30 s"), {"reason": "no answer in 30 s", "uncertain": True}),
        (TokenUnavailableError("down", retry_after=7), {"reason": "No access token can be had: down", "retryAfter": 7}),
        (
            TokenRejectedError("invalid_client"),
            {"reason": "The token endpoint refused the client: invalid_client", "misconfigured": True},
        ),
        (
            SettingsError(["A is missing"]),
            {"reason": "The app settings are not usable: A is missing", "misconfigured": True},
        ),
    ],
)
def test_what_no_partner_has_judged_defers(error: Exception, expected: dict[str, Any]) -> None:
    @in_virtual_time
    async def check() -> None:
        assert await post(ScriptedPartner(error)) == {"outcome": "deferred", "recordId": "P-1", **expected}

    check()


@in_virtual_time
async def test_a_lost_answer_to_a_look_up_is_not_uncertain() -> None:
    partner = ScriptedPartner(ApiInterruptedError("no answer"))

    outcome = await post_one(order(), PARCEL, running().client(), partner.access())

    assert "uncertain" not in outcome


@in_virtual_time
async def test_an_activity_that_may_be_a_repetition_does_not_post_because_one_look_up_is_refused() -> None:
    long_ago = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    late = order(scheduled=long_ago, record='{"parcelId": "P-1", "weight": 1}')
    stored = ScriptedPartner(answer(403), answer(200, {"parcelId": "P-1", "weight": 1}))
    empty = ScriptedPartner(answer(403), answer(403), answer(201))

    repeated = await post_one(late, PARCEL, running().client(), stored.access())
    first = await post_one(late, PARCEL, running().client(), empty.access())

    assert (repeated["outcome"], stored.bodies) == ("exists", [])
    assert (first["outcome"], len(empty.bodies)) == ("created", 1)


@in_virtual_time
async def test_settings_that_are_wrong_from_the_start_defer() -> None:
    access = ScriptedPartner().access()

    async def api() -> Any:  # noqa: ANN401 - never returns
        raise SettingsError(["CARRIER_API_URL is missing"])

    outcome = await post(ScriptedPartner(), access=replace(access, api=api))

    assert (outcome["outcome"], outcome["recordId"]) == ("deferred", "P-1")


@pytest.mark.parametrize("record", ["{", '{"parcelId": "P-1"}', "[]", '{"parcelId": "P-1", "weight": 1e999}', "\ud800"])
def test_a_record_that_came_past_the_intake_is_rejected_unless_it_may_be_stored(record: str) -> None:
    @in_virtual_time
    async def check() -> None:
        assert (await post(ScriptedPartner(), record=record))["outcome"] == "rejected"
        later = await post(ScriptedPartner(), record=record, known={"0": {"isUncertain": True}})
        assert (later["outcome"], later["uncertain"]) == ("deferred", True)

    check()


@in_virtual_time
async def test_each_call_takes_a_turn_and_says_what_became_of_it() -> None:
    turns = FreeTurns()
    partner = ScriptedPartner(answer(404), answer(429, after=3.0))

    await post_one(order(), PARCEL, running().client(), partner.access(turns))

    assert [(result.status, result.retry_after) for result in turns.results] == [(404, None), (429, 3.0)]
    # Without the second call the first was in vain: it waits for its turn as long as the activity may work.
    assert turns.patience == [PATIENCE, WORK - 30.0]
    assert turns.in_flight == 0


@in_virtual_time
async def test_a_failure_that_says_nothing_of_the_partner_is_told_apart() -> None:
    for error, is_about_partner in ((TokenUnavailableError("down"), False), (ApiConnectError("refused"), True)):
        turns = FreeTurns()
        partner = ScriptedPartner(error)
        await post(partner, access=partner.access(turns))
        assert [result.is_about_partner for result in turns.results] == [is_about_partner]


@in_virtual_time
async def test_a_turn_that_is_far_off_is_left_to_a_durable_timer() -> None:
    partner = ScriptedPartner()

    outcome = await post(partner, access=partner.access(FreeTurns(42.0)))

    assert (outcome["retryAfter"], outcome["held"]) == (42.0, True)
    assert not partner.calls


@in_virtual_time
async def test_a_second_attempt_at_a_record_waits_for_the_first_in_the_same_process() -> None:
    go = asyncio.Event()
    partner = ScriptedPartner(go, answer(201))
    access = partner.access()
    first = asyncio.create_task(post(partner, access=access))
    await asyncio.sleep(0.1)

    own, other = await post(partner, access=access), await post(partner, access=access, instanceId="parcel-2")
    go.set()

    assert (await first)["outcome"] == "created"
    assert (own["held"], own["uncertain"]) == (True, True)
    assert (other["held"], other.get("uncertain")) == (True, None)
    assert partner.calls == ["post P-1"]
    assert not access.under_way


@pytest.mark.parametrize("status", ["Terminated", "Suspended", "Failed", "Completed", None])
def test_makes_no_further_call_once_its_orchestration_does_not_go_on(status: str | None) -> None:
    @in_virtual_time
    async def check() -> None:
        host, go = running(), asyncio.Event()
        partner = ScriptedPartner(go, answer(404))
        attempt = asyncio.create_task(post_one(order(), PARCEL, host.client(), partner.access()))
        await asyncio.sleep(0.1)
        if status is None:
            del host.instances["parcel-1"]
        else:
            host.instances["parcel-1"].status = status
        await asyncio.sleep(LOOK + 0.1)
        go.set()

        assert (await attempt)["held"]
        assert partner.calls == ["look up P-1"]

    check()


@in_virtual_time
async def test_an_activity_that_was_queued_for_long_asks_first_whether_it_is_still_wanted() -> None:
    long_ago = (datetime.now(UTC) - timedelta(seconds=60)).isoformat()
    anew = running()
    anew.instances["parcel-1"].created = datetime.now(UTC)
    unknown = running()
    unknown.faults.append(host_answer(500))
    old = {"scheduled": long_ago, "began": long_ago}

    for host in (running(), anew, unknown, DurableHost()):
        outcome = await post(ScriptedPartner(), host, **old)
        assert outcome["held"]
    assert (await post(ScriptedPartner(answer(201)), running(), scheduled=long_ago))["outcome"] == "created"


@in_virtual_time
async def test_no_call_begins_that_may_outlast_the_activitys_time() -> None:
    go = asyncio.Event()
    partner = ScriptedPartner(go, answer(404))
    attempt = asyncio.create_task(post_one(order(), PARCEL, running().client(), partner.access(timeout=20)))
    await asyncio.sleep(WORK - 20 + 0.1)
    go.set()

    assert (await attempt)["held"]


async def test_no_base_exception_leaves_an_activity() -> None:
    with pytest.raises(ActivityInterruptedError, match="CancelledError"):
        await post_one(order(), HONOURING, running().client(), ScriptedPartner(asyncio.CancelledError()).access())

    @contained
    async def exits() -> None:
        raise SystemExit

    with pytest.raises(ActivityInterruptedError, match="SystemExit"):
        await exits()


@in_virtual_time
async def test_one_line_tells_of_each_attempt_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    await post(ScriptedPartner(answer(422, {"detail": "no such city"})))

    [line] = caplog.records
    assert (line.levelname, line.message, line.exc_info) == ("WARNING", "delivery attempt", None)
    assert (line.__dict__["instance_id"], line.__dict__["record_id"]) == ("parcel-1", "P-1")
    assert (line.__dict__["outcome"], line.__dict__["status"]) == ("rejected", 422)


# A batch


def texts(total: int) -> list[bytes]:
    return [b'{"parcelId": "P-%d", "weight": 1.50}' % number for number in range(total)]


async def post_order(
    partner: ScriptedPartner, total: int, access: PartnerAccess | None = None, **more: object
) -> OrderResult:
    input_ = batch_input(texts(total), DeliveryOptions())
    given = order(digest=input_["digest"], chunk=3, records=[*range(total)]) | more
    result = await post_batch(given, HONOURING, running(input_).client(), BatchRecords(), access or partner.access())
    return from_json(result, OrderResult)


def by_id(responses: dict[str, ApiResponse | BaseException]) -> ScriptedPartner:
    return ScriptedPartner(respond=lambda _, id_, _key: responses.get(id_, answer(201)))


def of_kind(result: OrderResult, kind: str) -> list[int]:
    return sorted(index for index, outcome in result.outcomes.items() if outcome.kind == kind)


def uncertain(result: OrderResult) -> list[int]:
    return [index for index, each in result.outcomes.items() if each.is_uncertain]


@in_virtual_time
async def test_each_record_of_an_order_is_tried_under_its_own_key() -> None:
    partner = by_id({"P-1": answer(422), "P-2": answer(429, after=9), "P-3": ApiInterruptedError("no answer")})

    result = await post_order(partner, 5)

    assert (of_kind(result, "created"), of_kind(result, "rejected")) == ([0, 4], [1])
    assert result.outcomes[2].retry_after == 9
    assert uncertain(result) == [3]
    assert sorted(partner.keys) == [f"parcel-1-{index}" for index in range(5)]
    assert sorted(partner.bodies) == texts(5)


@in_virtual_time
async def test_what_is_said_of_a_record_is_short_enough_for_its_batch() -> None:
    partner = by_id({"P-0": answer(422, {"title": "x" * 300, "detail": "y" * 300, "city": "Z"})})

    result = await post_order(partner, 1_000, records=[0])
    alone = await post(ScriptedPartner(answer(422, {"title": "x" * 900, "detail": "y" * 900, "city": "z" * 4_000})))

    assert (len(result.outcomes[0].reason or ""), result.outcomes[0].problem) == (150, {"city": "Z"})
    assert (len(alone["reason"]), [*alone["problem"]]) == (1_000, ["title", "detail"])


class SlowTurns(FreeTurns):
    async def enter(self, delivery: str, *, patience: float, after: CallResult | None = None) -> float:
        await asyncio.sleep(4)
        return await super().enter(delivery, patience=patience, after=after)


@pytest.mark.parametrize(
    ("second", "kind", "more"),
    [
        (answer(404), "deferred", {"absent": True, "uncertain": True}),
        (answer(200, {"parcelId": "P-0", "weight": 1.5}), "exists", {}),
        (answer(429), "deferred", {"status": 429, "uncertain": True}),
        (TokenUnavailableError("down"), "deferred", {"uncertain": True}),
    ],
)
def test_a_record_that_may_be_stored_is_looked_up_while_the_others_are_tried(
    second: ApiResponse | Exception, kind: str, more: dict[str, Any]
) -> None:
    @in_virtual_time
    async def check() -> None:
        calls: dict[str, ApiResponse | Exception] = {"post P-0": answer(503), "look up P-0": second}
        partner = ScriptedPartner(respond=lambda call, id_, _: calls.get(f"{call} {id_}", answer(201)))

        result = await post_order(partner, 3, partner.access(SlowTurns()), chunk=1)

        assert partner.calls == ["post P-0", "post P-1", "look up P-0", "post P-2"]
        assert of_kind(result, "created") == [1, 2]
        told = to_json(result)["outcomes"]["0"]
        assert told["outcome"] == kind
        assert {name: told.get(name) for name in more} == more

    check()


@pytest.mark.parametrize(("first", "turns"), [(answer(503), (0.0, 0.0, 7.0)), (answer(503, after=60), ())])
def test_a_record_that_may_be_stored_stays_so_where_nobody_could_look(
    first: ApiResponse, turns: tuple[float, ...]
) -> None:
    @in_virtual_time
    async def check() -> None:
        partner = by_id({"P-0": first})

        result = await post_order(partner, 3, partner.access(SlowTurns(*turns)), chunk=1)

        assert partner.calls == ["post P-0", "post P-1", "post P-2"]
        assert uncertain(result) == [0]

    check()


@in_virtual_time
async def test_tells_how_long_ago_a_record_was_deferred() -> None:
    partner = by_id({"P-0": answer(429)})

    result = await post_order(partner, 3, partner.access(SlowTurns()), chunk=1)

    assert result.outcomes[0].ago == pytest.approx(8)
    assert result.outcomes[2].ago == 0


@in_virtual_time
async def test_a_record_that_was_not_found_is_posted_again_once_the_partner_has_had_its_time() -> None:
    known = {"1": {"isUncertain": True, "absentAt": 1.0}, "2": {"isUncertain": True, "absentAt": 3.0}}
    partner = ScriptedPartner(respond=lambda call, _id, _key: answer(404 if call == "look up" else 201))

    result = await post_order(partner, 3, known=known, age=7.0)

    assert (of_kind(result, "created"), of_kind(result, "deferred")) == ([0, 1], [2])
    assert "post P-2" not in partner.calls


@in_virtual_time
async def test_a_defect_in_one_record_does_not_take_the_others_along() -> None:
    result = await post_order(by_id({"P-1": ZeroDivisionError("secret")}), 3)
    alone = await post(ScriptedPartner(ZeroDivisionError("secret")))

    assert (of_kind(result, "created"), uncertain(result)) == ([0, 2], [1])
    assert (alone["outcome"], alone["uncertain"]) == ("deferred", True)
    assert "secret" not in str((result, alone))


@in_virtual_time
async def test_the_author_of_a_function_that_raises_is_told_which_and_why() -> None:
    resource = replace(PARCEL, judge=lambda response: response.content["ok"])
    partner = ScriptedPartner(answer(404), answer(201, {}))

    outcome = await post_one(order(), resource, running().client(), partner.access())

    assert (outcome["outcome"], outcome["uncertain"]) == ("deferred", True)
    assert "Resource Parcel: judge= raised KeyError: 'ok'" in outcome["reason"]


@pytest.mark.parametrize(("resource", "before"), [(PARCEL, []), (HONOURING, [answer(409)])])
@in_virtual_time
async def test_anothers_record_is_not_taken_for_ours_because_same_raised(
    resource: Resource, before: list[ApiResponse]
) -> None:
    def same(_sent: object, found: Mapping[str, Any]) -> bool:
        return bool(found["attributes"])

    anothers = answer(200, {"parcelId": "P-1", "weight": 7})
    partner = ScriptedPartner(*before, anothers, *before, anothers)
    failed = await post_one(order(), replace(resource, same=same), running().client(), partner.access())
    known = Deferral()
    known.enter(from_json(failed, Outcome), 1.0, RetryPolicy(), "seed")

    mended = await post_one(order(known={"0": to_json(known.told())}), resource, running().client(), partner.access())

    assert "Resource Parcel: same= raised KeyError: 'attributes'" in failed["reason"]
    assert (mended["outcome"], mended["differing"]) == ("rejected", ["weight"])


@in_virtual_time
async def test_a_defect_of_a_repetition_is_uncertain_for_the_first_one_may_have_posted() -> None:
    late = order(scheduled=(datetime.now(UTC) - timedelta(minutes=1)).isoformat())

    outcome = await post_one(late, PARCEL, running().client(), ScriptedPartner(ZeroDivisionError()).access())

    assert outcome["uncertain"] is True


@in_virtual_time
async def test_a_wait_that_judge_takes_from_the_answer_is_kept() -> None:
    resource = replace(PARCEL, judge=lambda response: Verdict("deferred", retry_after=response.content["wait"]))
    partner = ScriptedPartner(answer(404), answer(200, {"wait": 2.5}))

    outcome = await post_one(order(), resource, running().client(), partner.access())

    assert from_json(outcome, Outcome) == Outcome("deferred", "P-1", 200, "The partner answered 200", retry_after=2.5)


@in_virtual_time
async def test_a_wait_that_is_no_number_defers_the_record() -> None:
    resource = replace(PARCEL, judge=lambda response: Verdict("deferred", retry_after=response.content["wait"]))
    partner = ScriptedPartner(answer(404), answer(200, {"wait": "PT5S"}))

    outcome = from_json(await post_one(order(), resource, running().client(), partner.access()), Outcome)

    assert (outcome.kind, outcome.is_uncertain) == ("deferred", True)
    assert "retry_after='PT5S' must be a finite number" in (outcome.reason or "")


@in_virtual_time
async def test_an_order_hands_back_what_its_time_does_not_suffice_for() -> None:
    async def slowly(*_: object, **__: object) -> ApiResponse:
        await asyncio.sleep(10)
        return answer(201)

    partner = ScriptedPartner()
    partner.post = slowly  # type: ignore[method-assign]
    began = asyncio.get_running_loop().time()

    result = await post_order(partner, 20, access=partner.access(timeout=30.0))

    assert asyncio.get_running_loop().time() - began <= WORK
    assert 9 <= len(result.outcomes) < 20


@in_virtual_time
async def test_records_whose_turn_does_not_come_are_left_for_so_long() -> None:
    partner = by_id({})

    result = await post_order(partner, 4, access=partner.access(FreeTurns(30.0, 20.0, 25.0, 22.0)))

    assert (result.left_for, result.outcomes) == (20.0, {})


@in_virtual_time
async def test_the_batch_of_another_digest_is_not_posted() -> None:
    with pytest.raises(LookupError):
        await post_order(ScriptedPartner(), 2, digest="another")
