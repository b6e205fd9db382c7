from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from shared.durable.inputs import DeliveryOptions, batch_input, records_of
from shared.durable.orchestrators import ATTEMPTS_OF_A_RUN, SUSPECT_ORDERS, deliver_batch
from shared.durable.progress import room_of_one
from shared.rules.outcome import Outcome, written_size
from shared.rules.retry import RetryPolicy
from tests.fakes.replay import START, Clock, Play, order_result, play, replay
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Callable

CREATED = Outcome("created", "")
LATER = Outcome("deferred", "P-0", 429, "The partner answered 429", retry_after=30)
UNCERTAIN = Outcome("deferred", "P-0", 500, "The partner answered 500", is_uncertain=True)
REFUSED = Outcome("rejected", "P-0", 422, "The partner answered 422: no such city", {"title": "no such city"})


def order(total: int, deadline: float = 86_400.0, **more: object) -> dict[str, Any]:
    options = DeliveryOptions(RetryPolicy(deadline, 1.0, 300.0), 5.0, chunk=2, parallel=2, order=4)
    texts = [b'{"parcelId": "P-%d", "weight": 1.50}' % number for number in range(total)]
    return batch_input(texts, options) | more


async def deliver(
    input_: dict[str, Any], does: Callable[[int, dict[str, Any], int], Outcome | Exception | None], takes: float = 0.0
) -> Play:
    """Play a batch. `does` says what becomes of a record in its n-th order; None: it is left. Replays it as well."""
    seen: dict[int, int] = {}
    clock = Clock()

    async def post(name: str, given: dict[str, Any]) -> dict[str, Any]:
        assert name == "PostParcelBatch"
        clock.advance(takes)
        made = {}
        for index in given["records"]:
            seen[index] = seen.get(index, 0) + 1
            outcome = does(index, given, seen[index])
            if isinstance(outcome, Exception):
                raise outcome
            made[index] = outcome
        return order_result(made, limit=48.0)

    run = await play(lambda context: deliver_batch(context, PARCEL), input_, post, clock=clock, instance_id="parcel-1")
    for each in [*run.earlier, run]:
        replay(each)
    return run


def orders(run: Play) -> list[list[int]]:
    return [given["records"] for each in [*run.earlier, run] for _, given in each.activities]


async def test_a_batch_is_divided_among_activities_that_run_at_a_time() -> None:
    run = await deliver(order(10), lambda *_: CREATED)

    assert orders(run) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    counts = {"total": 10, "created": 10, "exists": 0, "rejected": 0, "expired": 0}
    assert run.output == {"state": "delivered", **counts, "rejections": []}
    assert run.custom_statuses[0] == {"state": "delivering", **counts, "created": 0, "pending": 10, "posting": "0-7"}


async def test_undelivered_records_are_named_with_what_became_of_them() -> None:
    outcomes = {1: REFUSED, 2: UNCERTAIN, 3: Outcome("exists", "")}

    run = await deliver(order(4, deadline=0.5), lambda index, *_: outcomes.get(index, CREATED))

    assert run.output["state"] == "partly"
    assert [run.output[name] for name in ("created", "exists", "rejected", "expired")] == [1, 1, 1, 1]
    assert run.output["rejections"] == [
        {
            "index": 1,
            "recordId": "P-0",
            "state": "rejected",
            "reason": REFUSED.reason,
            "status": 422,
            "problem": {"title": "no such city"},
        },
        {
            "index": 2,
            "recordId": "P-0",
            "state": "expired",
            "reason": "The deadline passed after 1 attempt. The partner answered 500",
            "status": 500,
            "uncertain": True,
        },
    ]


async def test_a_deferred_record_waits_alone_while_the_others_go_on() -> None:
    run = await deliver(order(12), lambda index, _, turn: LATER if (index, turn) == (0, 1) else CREATED)

    assert orders(run) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], [10, 11], [0]]
    assert len(run.timers) == 1
    assert run.timers[0] - START >= timedelta(seconds=30)


async def test_a_wait_counts_from_the_attempt_and_not_from_the_end_of_its_order() -> None:
    later = replace(LATER, ago=25.0)

    run = await deliver(order(4), lambda index, _, turn: later if (index, turn) == (0, 1) else CREATED)

    assert timedelta(seconds=5) <= run.timers[0] - START <= timedelta(seconds=6)


async def test_a_partner_that_sends_one_record_away_for_a_day_gets_the_others() -> None:
    poisoned = Outcome("deferred", "P-0", 503, "not today", retry_after=86_400, is_uncertain=True)

    run = await deliver(order(12), lambda index, *_: poisoned if not index else CREATED)

    assert (run.output["created"], run.output["expired"]) == (11, 1)
    assert not run.timers


async def test_records_that_were_deferred_together_go_on_together() -> None:
    run = await deliver(order(8), lambda _i, _g, turn: UNCERTAIN if turn == 1 else CREATED)

    assert len(run.timers) == 1
    assert orders(run)[2:] == [[0, 1, 2, 3], [4, 5, 6, 7]]


async def test_what_an_activity_leaves_is_no_attempt_and_goes_on_at_once() -> None:
    run = await deliver(order(4, deadline=1.0), lambda _i, _g, turn: CREATED if turn > 3 else None, takes=0.1)

    assert run.output["created"] == 4
    assert not run.timers


async def test_records_that_nobody_tried_outlive_the_deadline_while_others_are_accepted() -> None:
    run = await deliver(
        order(6, deadline=1.0), lambda index, _, turn: CREATED if turn > index // 2 else None, takes=2.0
    )

    assert run.output["created"] == 6


async def test_records_that_nobody_tried_expire_at_the_deadline_when_nothing_moves() -> None:
    run = await deliver(order(2, deadline=1.0), lambda *_: None, takes=2.0)

    assert [each["state"] for each in run.output["rejections"]] == ["expired"] * 2
    assert [each["recordId"] for each in run.output["rejections"]] == ["P-0", "P-1"]


async def test_a_record_that_kills_the_worker_is_found_and_the_others_are_delivered() -> None:
    def does(index: int, *_: object) -> Outcome | Exception:
        return RuntimeError("python exited with code 137 (0x89)") if index == 5 else CREATED

    run = await deliver(order(16, deadline=300.0), does)

    assert run.output["created"] == 15
    [lost] = run.output["rejections"]
    assert (lost["index"], lost["state"], lost["uncertain"]) == (5, "expired", True)
    assert "exited with code 137" in lost["reason"]
    assert all(len(each) <= 4 for each in orders(run))
    assert [5] in orders(run)
    assert SUSPECT_ORDERS > 1


async def test_a_batch_that_failed_with_its_worker_goes_on_in_small_orders_one_at_a_time() -> None:
    run = await deliver(order(16, pause=1.0, recoveries=1), lambda *_: CREATED)

    assert run.output["created"] == 16
    assert [len(each) for each in orders(run)][:3] == [2, 2, 2]
    assert run.custom_statuses[1]["posting"] == "0-1"


async def test_a_failed_activity_does_not_lose_what_the_others_of_its_wave_have_done() -> None:
    def does(index: int, _: object, turn: int) -> Outcome | Exception:
        return RuntimeError("lost") if index == 0 and turn == 1 else CREATED

    run = await deliver(order(8), does)

    assert run.output["created"] == 8
    assert sorted(index for each in orders(run) for index in each) == sorted([*range(8), *range(4)])


async def test_absence_is_counted_for_each_record() -> None:
    absent = Outcome("deferred", "P-0", reason="not found", retry_after=5, is_uncertain=True, is_absent=True)
    script = {1: UNCERTAIN, 2: absent, 3: CREATED}

    run = await deliver(order(1), lambda _i, _g, turn: script[turn])

    told = [given.get("known") for _, given in run.activities]
    assert told[:2] == [None, {"0": {"attempts": 1, "isUncertain": True}}]
    assert (told[2]["0"]["attempts"], told[2]["0"]["absentAt"] > 0, told[2]["0"]["isUncertain"]) == (2, True, True)


async def test_a_long_batch_continues_as_new_with_its_books() -> None:
    refused_once = ATTEMPTS_OF_A_RUN + 5

    def does(index: int, _: object, turn: int) -> Outcome:
        if index == 0:
            return UNCERTAIN if turn < refused_once else CREATED
        return REFUSED if index == 1 else CREATED

    run = await deliver(order(4), does)

    assert len(run.earlier) == 1
    assert [run.output[name] for name in ("created", "rejected")] == [3, 1]
    assert run.output["rejections"][0]["problem"] == {"title": "no such city"}
    assert records_of(run.input) == records_of(order(4))
    assert run.activities[0][1]["known"]["0"]["isUncertain"]
    assert orders(run).count([0]) == refused_once - 1


async def test_a_batch_in_place_of_an_ended_one_pauses_and_knows_what_may_be_stored() -> None:
    run = await deliver(order(4, pause=62.0, uncertain=[1, 2]), lambda *_: CREATED)

    assert run.timers == [START + timedelta(seconds=62)]
    assert [[*given["known"]] for _, given in run.activities] == [["1"], ["2"]]


async def test_a_batch_that_is_started_again_trusts_no_earlier_look_up() -> None:
    progress = {"created": [0], "pending": {"1": {"attempts": 3, "due": 5.0, "absentAt": 1.0}}}
    again = order(2, pause=62.0, uncertain=[0, 1], start=START.isoformat(), progress=progress)

    run = await deliver(again, lambda *_: CREATED)

    assert orders(run) == [[1]]
    assert run.activities[0][1]["known"] == {"1": {"attempts": 3, "isUncertain": True}}
    assert run.output["created"] == 2


async def test_the_status_tells_the_pace_the_limit_and_the_end() -> None:
    run = await deliver(order(16), lambda *_: CREATED, takes=1.0)

    shown = run.custom_statuses[-2]
    assert (shown["recordsPerSecond"], shown["limit"], shown["pending"]) == (4.0, 48.0, 8)
    assert shown["estimatedEnd"] == (START + timedelta(seconds=4)).isoformat(timespec="seconds")


async def test_a_thousand_scattered_records_fit_into_status_and_output() -> None:
    words = Outcome("rejected", "P-" + "x" * 100, 422, "\u2028" * 400, {"detail": "x" * 80, "more": "x" * 900})
    words = words.fitted(room_of_one(1_000), room_of_one(1_000))
    options = DeliveryOptions(RetryPolicy(), 5.0, chunk=500, parallel=2, order=1_000)
    input_ = batch_input([b'{"parcelId": "P-%d", "weight": 1}' % number for number in range(1_000)], options)

    run = await deliver(input_, lambda index, *_: words if index % 2 else CREATED)

    assert all(written_size(status) <= 8_192 for status in run.custom_statuses)
    assert len(run.output["rejections"]) == 500
    assert written_size(run.output) < 1024 * 1024


@pytest.mark.parametrize(
    "input_",
    [
        {},
        order(1) | {"total": 1_001},
        order(1) | {"total": "1"},
        order(1) | {"packed": None},
        order(1) | {"terms": {"chunk": 0}},
        order(1) | {"terms": {"order": 10**9}},
        order(1) | {"uncertain": [1_000]},
        order(1) | {"keys": {"0": "a b"}},
        order(1) | {"keys": {"0": "a\n"}},
    ],
)
async def test_an_input_that_no_intake_writes_fails_at_once(input_: dict[str, Any]) -> None:
    run = await deliver(input_, lambda *_: CREATED)

    assert run.failure.startswith("This app starts no delivery with such an input")


async def test_the_status_tells_rejected_expired_and_uncertain_records_apart() -> None:
    outcomes = {1: REFUSED, 2: UNCERTAIN, 3: LATER}

    run = await deliver(order(6, deadline=1.0), lambda index, *_: outcomes.get(index, CREATED))

    shown = run.last.custom_status
    names = ("createdRecords", "rejectedRecords", "expiredRecords", "uncertainRecords")
    assert [shown[name] for name in names] == ["0,4-5", "1", "2-3", "2"]
