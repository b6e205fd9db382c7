from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared.durable import inputs, orchestrators, progress
from shared.durable.inputs import DeliveryOptions, idempotency_key, single_input, to_json
from shared.durable.orchestrators import ATTEMPTS_OF_A_RUN, deliver_one
from shared.rules.outcome import Outcome, written_size
from shared.rules.record import IDEMPOTENCY_KEY
from shared.rules.retry import RetryPolicy
from tests.fakes.replay import START, Clock, Play, play, replay
from tests.models import PARCEL

RECORD = '{"parcelId": "P-1", "weight": 99999999999999.99, "__class__": "A", "__module__": "os", "__data__": "b"}'
CREATED = Outcome("created", "P-1", 201)
DEFERRED = Outcome("deferred", "P-1", 429, "The partner answered 429, which means not now")
UNCERTAIN = Outcome("deferred", "P-1", 500, "The partner answered 500, a server error", is_uncertain=True)
ABSENT = Outcome("deferred", "P-1", reason="not found yet", retry_after=5, is_uncertain=True, is_absent=True)
HELD = Outcome("deferred", "P-1", reason="others come first", retry_after=20, was_held=True)
REJECTED = Outcome("rejected", "P-1", 422, "The partner answered 422: no such city", {"title": "no such city"})


def order(deadline: float = 86_400.0, **more: object) -> dict[str, Any]:
    return single_input(RECORD.encode(), DeliveryOptions(RetryPolicy(deadline, 1.0, 300.0), 5.0)) | more


async def deliver(
    *outcomes: Outcome | Exception,
    input_: Any = ...,  # noqa: ANN401 - any JSON
    instance_id: str = "parcel-1",
) -> Play:
    """Play a delivery whose attempts come to these outcomes, and replay it."""
    script = list(outcomes)

    async def post(name: str, _order: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        assert name == "PostParcel"
        outcome = script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return to_json(outcome)

    run = await play(
        lambda context: deliver_one(context, PARCEL),
        order() if input_ is ... else input_,
        post,
        clock=Clock(),
        instance_id=instance_id,
    )
    assert not script, "the delivery ended before its script"
    for each in [*run.earlier, run]:
        replay(each)
    return run


def given(run: Play, member: str) -> list[Any]:
    return [order[member] for each in [*run.earlier, run] for _, order in each.activities]


def known(run: Play, member: str) -> list[Any]:
    return [each.get("0", {}).get(member) for each in given(run, "known")]


async def test_a_record_is_delivered_as_the_text_that_was_sent() -> None:
    run = await deliver(CREATED)

    assert run.output == {"state": "delivered", "outcome": "created", "recordId": "P-1", "attempts": 1, "status": 201}
    assert given(run, "record") == [RECORD]
    assert run.custom_statuses == [
        {"state": "delivering", "recordId": "P-1", "attempts": 0},
        {"state": "delivered", "recordId": "P-1", "attempts": 1},
    ]


async def test_a_rejection_is_a_completed_orchestration() -> None:
    run = await deliver(DEFERRED, REJECTED)

    assert run.output == {
        "state": "rejected",
        "recordId": "P-1",
        "attempts": 2,
        "status": 422,
        "reason": "The partner answered 422: no such city",
        "problem": {"title": "no such city"},
    }


async def test_a_deferred_delivery_waits_on_a_timer_and_says_until_when_and_why() -> None:
    run = await deliver(DEFERRED, CREATED)

    waiting = run.custom_statuses[1]
    assert waiting == {
        "state": "waiting",
        "recordId": "P-1",
        "attempts": 1,
        "status": 429,
        "reason": DEFERRED.reason,
        "nextAttempt": run.timers[0].isoformat(),
    }
    assert timedelta(seconds=1) <= run.timers[0] - START <= timedelta(seconds=2)


async def test_the_deadline_ends_a_delivery_and_tells_whether_the_record_may_have_arrived() -> None:
    certain, uncertain = await deliver(DEFERRED, input_=order(0.5)), await deliver(UNCERTAIN, input_=order(0.5))

    assert (certain.output["state"], certain.output.get("uncertain")) == ("expired", None)
    assert (uncertain.output["state"], uncertain.output["uncertain"]) == ("expired", True)
    assert uncertain.output["reason"] == (
        "The deadline of 0.5 s would pass before the next attempt. The partner answered 500, a server error"
    )
    assert not uncertain.timers


async def test_an_uncertain_attempt_is_remembered_by_all_that_follow() -> None:
    run = await deliver(UNCERTAIN, DEFERRED, CREATED)

    assert known(run, "isUncertain") == [None, True, True]


async def test_an_activity_that_fails_may_have_posted() -> None:
    lost = RuntimeError("python exited with code 137 (0x89) \n a traceback")

    run = await deliver(lost, CREATED)

    assert known(run, "isUncertain") == [None, True]
    assert run.custom_statuses[1]["reason"].endswith("exited with code 137 (0x89)")


async def test_absence_counts_once_it_has_been_seen_for_the_time_that_the_partner_needs() -> None:
    run = await deliver(UNCERTAIN, ABSENT, UNCERTAIN, ABSENT, ABSENT, CREATED)

    absent_at = known(run, "absentAt")
    assert [each is not None for each in absent_at] == [False, False, True, False, True, True]
    assert absent_at[2] < absent_at[4] == absent_at[5]
    assert run.timers[1] - run.timers[0] >= timedelta(seconds=5)


async def test_a_turn_that_did_not_come_is_no_attempt() -> None:
    run = await deliver(HELD, HELD, CREATED)

    assert run.output["attempts"] == 1
    assert known(run, "attempts") == [None] * 3


async def test_a_record_that_could_not_be_tried_has_as_much_time_again() -> None:
    run = await deliver(HELD, HELD, HELD, input_=order(25.0))

    assert (run.output["state"], run.output["attempts"]) == ("expired", 0)
    assert len(run.timers) == 2


async def test_a_long_delivery_continues_as_new_and_knows_what_it_knew() -> None:
    run = await deliver(UNCERTAIN, *[DEFERRED] * ATTEMPTS_OF_A_RUN, REJECTED, input_=order(key="the-first"))

    [earlier] = run.earlier
    assert len(earlier.activities) == ATTEMPTS_OF_A_RUN
    assert earlier.last.output is None
    assert run.output["attempts"] == ATTEMPTS_OF_A_RUN + 2
    assert known(run, "isUncertain") == [None] + [True] * (ATTEMPTS_OF_A_RUN + 1)
    assert set(given(run, "key")) == {"the-first"}
    assert set(given(run, "record")) == {RECORD}


async def test_the_deadline_counts_from_the_first_start() -> None:
    run = await deliver(*[DEFERRED] * (ATTEMPTS_OF_A_RUN + 1), input_=order(3_600.0))

    assert run.output["state"] == "expired"
    assert run.earlier


async def test_a_delivery_in_place_of_an_ended_one_begins_with_its_pause() -> None:
    run = await deliver(CREATED, input_=order(pause=62.0, uncertain=True))

    assert run.timers == [START + timedelta(seconds=62)]
    assert known(run, "isUncertain") == [True]


async def test_a_delivery_that_is_started_again_trusts_no_earlier_look_up() -> None:
    progress = {"attempts": 20, "absentAt": 1.0}
    again = order(pause=62.0, uncertain=True, start=START.isoformat(), progress=progress)

    run = await deliver(CREATED, input_=again)

    assert given(run, "known") == [{"0": {"attempts": 20, "isUncertain": True}}]


async def test_the_pause_takes_nothing_from_the_deadline() -> None:
    run = await deliver(DEFERRED, CREATED, input_=order(10.0, pause=62.0))

    assert run.output["state"] == "delivered"


@pytest.mark.parametrize("instance_id", ["ключ", "a b", "x" * 400, "a\nb"])
async def test_an_odd_instance_id_gives_a_key_that_a_header_can_hold(instance_id: str) -> None:
    run = await deliver(CREATED, instance_id=instance_id)

    [key] = given(run, "key")
    assert IDEMPOTENCY_KEY.fullmatch(key)
    assert key != idempotency_key("another")
    assert idempotency_key("parcel-1", 3) == "parcel-1-3"


async def test_no_status_is_too_long_for_durable_functions() -> None:
    words = Outcome("deferred", "P-1", 503, "\u2028" * 5_000, {"detail": '"' * 3_000})

    run = await deliver(words, CREATED)

    assert all(written_size(status) <= 8_192 for status in run.custom_statuses)


@pytest.mark.parametrize(
    "input_",
    [
        None,
        [],
        {"terms": {}},
        order() | {"record": 7},
        order() | {"terms": {"retry": {"deadline": -1}}},
        order() | {"terms": {"retry": {"max": float("nan")}}},
        order() | {"terms": {"settle": 1e9}},
        order() | {"pause": 1e9},
        order() | {"progress": []},
    ],
)
async def test_an_input_that_no_intake_writes_fails_at_once(input_: object) -> None:
    run = await deliver(input_=input_)

    assert run.failure.startswith("This app starts no delivery with such an input")
    assert not run.activities


def test_orchestrators_are_deterministic() -> None:
    """They import no clock, no randomness, no environment and no I/O."""
    for module in (orchestrators, inputs, progress):
        tree = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8"))
        names = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert not names & {"random", "time", "os", "uuid", "logging", "httpx", "aiohttp", "asyncio"}
        assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & {"now", "utcnow"}
