from __future__ import annotations

import asyncio
import json
import logging
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery.batch_input import batch_input
from shared.delivery.batch_orchestrator import deliver_batch
from shared.delivery.index_ranges import from_ranges
from shared.delivery.retry import RetryPolicy, retry_wait
from tests.fakes.fast_loop import run_fast
from tests.fakes.replay import (
    EXECUTION_STARTED,
    ORCHESTRATOR_STARTED,
    START,
    TASK_COMPLETED,
    TASK_FAILED,
    TASK_SCHEDULED,
    Clock,
    Play,
    answer_to,
    play,
    replay,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    # What becomes of a record: its index and how often it was tried before give the kind.
    Fate = Callable[[int, int], str]


def batch(total: int, **terms: object) -> dict[str, Any]:
    records = [business(f"b-{index}") for index in range(total)]
    return {**batch_input(records), "digest": "d1", "chunk": 3, "parallel": 2, "order": 3, **terms}


class Partner:
    """Posts chunks: `fate` says what becomes of a record; `orders` are those that came."""

    def __init__(self, fate: Fate, retry_after: float | None = None) -> None:
        self.fate = fate
        self.retry_after = retry_after
        self.orders: list[dict[str, Any]] = []
        self.tries: dict[int, int] = {}
        self.looked_up: list[list[int]] = []

    async def __call__(self, name: str, order: dict[str, Any]) -> dict[str, Any]:
        assert name == "PostBusinesses"
        self.orders.append(order)
        self.looked_up.append([index for index, look_up in order["records"] if look_up])
        result: dict[str, Any] = {}
        for index, _ in order["records"]:
            kind = self.fate(index, self.tries.get(index, 0))
            self.tries[index] = self.tries.get(index, 0) + 1
            if kind == "failed":
                raise ConnectionError("python exited with code 137")
            entry: Any = index
            if kind == "rejected":
                entry = {"index": index, "externalId": f"b-{index}", "status": 422, "reason": "no such city"}
            for member in ("deferred", "uncertain") if kind == "uncertain" else (kind,):
                result.setdefault(member, []).append(entry)
        if "deferred" in result:
            result["reason"] = "The partner answered 503"
            if self.retry_after is not None:
                result["retryAfter"] = self.retry_after
        return result

    @property
    def orders_by_index(self) -> list[list[int]]:
        return [[index for index, _ in order["records"]] for order in self.orders]


async def deliver(partner: Partner, input_: dict[str, Any], clock: Clock | None = None) -> Play:
    """Play a batch, and replay it."""
    run = await play(deliver_batch, input_, partner, clock=clock)
    assert replay(run) == len(run.history) - 1
    return run


async def test_every_record_is_posted_once_in_chunks() -> None:
    partner = Partner(lambda _index, _tries: "created")

    run = await deliver(partner, batch(8))
    assert partner.orders_by_index == [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert run.timers == []
    assert run.output == {"total": 8, "created": 8, "exists": 0, "rejected": 0, "deferred": 0, "rejections": []}


async def test_an_activity_is_told_indices_and_no_records() -> None:
    partner = Partner(lambda _index, _tries: "created")

    run = await deliver(partner, batch(2))
    assert partner.orders == [
        {
            "instanceId": "0f5c2d",
            "digest": "d1",
            "attempt": 1,
            "age": 0.0,
            "chunk": 3,
            "records": [[0, True], [1, True]],
        }
    ]
    # The history has the records once: in the input.
    assert json.dumps(run.history).count(batch(2)["packed"]) == 1


async def test_so_many_chunks_are_posted_at_a_time_and_no_more() -> None:
    partner = Partner(lambda _index, _tries: "created")

    run = await deliver(partner, batch(15))
    scheduled = [len(answer.actions) for _, answer in run.episodes]
    assert scheduled == [2, 2, 4, 4, 5, 5]


@pytest.mark.parametrize(
    ("total", "sizes"),
    [(2, [2]), (3, [3]), (6, [3, 3]), (7, [4, 3]), (10, [5, 5]), (24, [12, 12]), (25, [12, 12, 1])],
)
async def test_an_order_has_as_many_records_as_keep_all_activities_busy(total: int, sizes: list[int]) -> None:
    partner = Partner(lambda _index, _tries: "created")

    await deliver(partner, batch(total, order=12))
    assert [len(indices) for indices in partner.orders_by_index] == sizes
    assert [index for indices in partner.orders_by_index for index in indices] == list(range(total))
    assert {order["chunk"] for order in partner.orders} == {3}


async def test_an_order_of_a_batch_of_version_0_1_is_a_chunk() -> None:
    partner = Partner(lambda _index, _tries: "created")
    records = [business(f"b-{index}") for index in range(4)]

    run = await deliver(partner, {"businesses": records, "digest": "d1", "chunk": 3, "parallel": 2})
    assert partner.orders_by_index == [[0, 1, 2], [3]]
    assert run.output["created"] == 4


async def test_deferred_records_go_into_the_next_round_and_no_others() -> None:
    partner = Partner(lambda index, tries: "deferred" if index % 4 == 0 and tries == 0 else "exists")

    run = await deliver(partner, batch(6))
    assert partner.orders_by_index == [[0, 1, 2], [3, 4, 5], [0, 4]]
    assert [order["attempt"] for order in partner.orders] == [1, 1, 2]
    wait = retry_wait(RetryPolicy(), 1, "0f5c2d/1")
    assert [order["age"] for order in partner.orders] == pytest.approx([0, 0, wait], abs=1e-5)
    assert run.timers == [START + timedelta(seconds=wait)]
    assert run.output["exists"] == 6


async def test_every_rejected_record_is_returned_with_its_index_id_and_reason() -> None:
    partner = Partner(lambda index, _tries: "rejected" if index in {1, 5} else "created")

    run = await deliver(partner, batch(6))
    assert run.output["rejections"] == [
        {"index": index, "externalId": f"b-{index}", "status": 422, "reason": "no such city"} for index in (1, 5)
    ]
    assert (run.output["created"], run.output["rejected"]) == (4, 2)


async def test_a_round_in_which_nothing_moved_makes_the_wait_longer() -> None:
    partner = Partner(lambda _index, tries: "deferred" if tries < 4 else "created")

    run = await deliver(partner, batch(3))
    moments = [START, *run.timers]
    waits = [(after - before).total_seconds() for before, after in zip(moments, run.timers, strict=False)]
    for wait, (low, high) in zip(waits, [(1, 2), (2, 4), (4, 8), (8, 16)], strict=True):
        assert low <= wait <= high


async def test_a_round_in_which_something_moved_begins_with_a_short_wait_again() -> None:
    partner = Partner(lambda index, tries: "deferred" if tries < 3 + index else "created")

    run = await deliver(partner, batch(2))
    assert run.timers[-1] - run.timers[-2] <= timedelta(seconds=2)


async def test_retry_after_is_a_floor_and_leaves_the_rest_of_the_round_for_the_next() -> None:
    partner = Partner(lambda _index, tries: "deferred" if tries == 0 else "created", retry_after=60)

    run = await deliver(partner, batch(9, parallel=1))
    assert partner.orders_by_index[:2] == [[0, 1, 2], [0, 1, 2]]
    assert run.timers[0] >= START + timedelta(seconds=60)
    assert run.output["created"] == 9


async def test_once_the_fate_of_a_record_is_unknown_it_is_looked_up() -> None:
    partner = Partner(lambda index, tries: "uncertain" if index == 1 and tries == 0 else ["deferred", "created"][tries])

    await deliver(partner, batch(3, lookUp="uncertain"))
    assert partner.looked_up == [[], [1]]


async def test_past_the_deadline_what_is_left_is_rejected_with_the_reason() -> None:
    partner = Partner(lambda index, _tries: "deferred" if index == 2 else "created")

    run = await deliver(partner, batch(3, retry={"deadline": 7}))
    [rejection] = run.output["rejections"]
    assert (rejection["index"], rejection["externalId"]) == (2, "b-2")
    assert rejection["reason"].startswith("given up after 3 rounds, at the deadline: The partner answered 503")
    assert run.output["deferred"] == 0
    assert run.clock.now <= START + timedelta(seconds=7)


@pytest.mark.parametrize("seconds", [86_401, 999_999_999_999_999.9])
async def test_a_wish_that_no_date_holds_ends_the_batch(seconds: float) -> None:
    run = await deliver(Partner(lambda _index, _tries: "deferred", retry_after=seconds), batch(2))

    assert run.output["rejected"] == 2
    assert run.timers == []


async def test_records_whose_activity_failed_go_into_the_next_round_and_are_looked_up() -> None:
    partner = Partner(lambda _index, _tries: "created")
    failed = 0

    async def post(name: str, order: dict[str, Any]) -> dict[str, Any]:
        nonlocal failed
        if order["attempt"] == 1 and order["records"][0][0] in {0, 6}:
            failed += 1
            raise ConnectionError("python exited with code 137")
        # Those beside it go on, and end later.
        await asyncio.sleep(0)
        return await partner(name, order)

    run = await play(deliver_batch, batch(12, lookUp="uncertain"), post)
    assert replay(run) == len(run.history) - 1
    assert failed == 2
    assert (run.output["created"], run.output["rejected"]) == (12, 0)
    assert partner.orders_by_index == [[3, 4, 5], [9, 10, 11], [0], [1], [2], [6], [7], [8]]
    assert partner.looked_up == [[], [], [0], [1], [2], [6], [7], [8]]
    waiting = next(status for status in run.custom_statuses if status and "nextRound" in status)
    assert waiting["reason"].startswith("The attempt ended without a result, and may have posted: ")
    assert waiting["reason"].endswith("ConnectionError: python exited with code 137")


class DyingProcess:
    """Delivers every record, but ends with all that goes on in it when it has the record 107."""

    def __init__(self) -> None:
        self.under_way: list[list[int]] = []
        self.posts: Counter[int] = Counter()

    async def __call__(self, _name: str, order: dict[str, Any]) -> dict[str, Any]:
        indices = [index for index, _ in order["records"]]
        self.under_way.append(indices)
        await asyncio.sleep(0)
        is_dying = any(107 in others for others in self.under_way)
        await asyncio.sleep(0)
        self.under_way.remove(indices)
        if is_dying:
            raise ConnectionError("python exited with code 137")
        self.posts.update(indices)
        return {"created": indices}


@pytest.mark.parametrize("total", [108, 250, 1_000])
async def test_a_record_that_ends_its_process_each_time_takes_no_other_with_it(total: int) -> None:
    process = DyingProcess()
    input_ = batch(total, chunk=50, order=250, retry=RetryPolicy(deadline=20, first=1, max=5).to_json())

    run = await play(deliver_batch, input_, process)
    assert replay(run) == len(run.history) - 1
    assert (run.output["created"], run.output["rejected"]) == (total - 1, 1)
    assert [rejection["index"] for rejection in run.output["rejections"]] == [107]
    assert set(process.posts.values()) == {1}
    # It takes a few rounds to be alone, and is tried alone then.
    alone = [[index for index, _ in order["records"]] for _, order in run.activities].index([107])
    assert run.activities[alone][1]["attempt"] <= 5


async def test_activities_that_all_fail_do_not_become_ever_more() -> None:
    async def broken(_name: str, _order: object) -> None:
        raise ZeroDivisionError

    input_ = batch(1_000, chunk=50, order=250, retry=RetryPolicy(deadline=20, first=1, max=5).to_json())
    run = await play(deliver_batch, input_, broken)
    rounds = Counter(order["attempt"] for _, order in run.activities)
    assert rounds.pop(1) == 4
    assert set(rounds.values()) == {8}


def test_a_wave_of_a_thousand_activities_of_which_one_failed_goes_on() -> None:
    clock = Clock()
    run = Play(deliver_batch, "0f5c2d", batch(1_000, chunk=1, order=1, parallel=10_000), clock)
    stamp = {"IsPlayed": False, "EventId": -1, "Timestamp": clock.now.isoformat()}
    started = {"EventType": EXECUTION_STARTED, "Name": "O", "Version": "", "Input": json.dumps(run.input)}
    turn = stamp | {"EventType": ORCHESTRATOR_STARTED}
    run.history = [turn, stamp | started]
    actions = answer_to(run).actions
    scheduled = [{"EventType": TASK_SCHEDULED, "EventId": id_, "Name": "PostBusinesses"} for id_ in range(1_000)]
    # The first that was scheduled fails when all but the last have ended.
    done = [
        {"EventType": TASK_COMPLETED, "TaskScheduledId": id_, "Result": f'{{"created": [{id_}]}}'}
        for id_ in range(1_000)
    ]
    failed = {"EventType": TASK_FAILED, "TaskScheduledId": 0, "Reason": "lost", "Details": ""}
    ends = [*done[1:-1], failed, done[-1]]
    run.history += [*(stamp | event for event in scheduled), turn, *(stamp | event for event in ends)]

    answer = answer_to(run)
    assert answer.failure is None
    assert len(answer.actions) == len(actions) + 1 == 1_001
    assert (answer.custom_status["created"], answer.custom_status["deferred"]) == (999, 1)


async def test_a_batch_whose_activities_fail_until_the_deadline_rejects_its_records_with_the_reason() -> None:
    async def broken(_name: str, _order: object) -> None:
        raise ZeroDivisionError("division by zero")

    run = await play(deliver_batch, batch(4, retry=RetryPolicy(deadline=0.1).to_json()), broken)
    assert replay(run) == len(run.history) - 1
    assert [rejection["index"] for rejection in run.output["rejections"]] == [0, 1, 2, 3]
    assert all("ZeroDivisionError: division by zero" in rejection["reason"] for rejection in run.output["rejections"])


async def test_a_batch_that_is_to_pause_begins_after_that() -> None:
    run = await deliver(Partner(lambda _index, _tries: "created"), batch(4, pause=62.5))

    assert run.timers == [START + timedelta(seconds=62.5)]
    assert run.output["created"] == 4


async def test_the_custom_status_tells_what_is_delivered_and_what_is_being_posted() -> None:
    partner = Partner(lambda index, tries: "deferred" if index == 7 and tries == 0 else "created")

    run = await deliver(partner, batch(8))
    first, waiting = run.custom_statuses[0], run.custom_statuses[-3]
    assert (first["deferred"], first["posting"]) == (8, "0-5")
    assert (waiting["created"], waiting["deferred"], waiting["delivered"]) == (7, 1, "0-6")
    assert waiting["nextRound"] == run.timers[0].isoformat()
    assert waiting["reason"] == "The partner answered 503"
    assert run.last.custom_status == {
        "total": 8,
        "created": 8,
        "exists": 0,
        "rejected": 0,
        "deferred": 0,
        "delivered": "0-7",
    }


async def test_an_input_of_the_least_members_is_delivered() -> None:
    partner = Partner(lambda _index, _tries: "created")
    given = {name: value for name, value in batch(3).items() if name in {"total", "digest", "packed"}}

    run = await deliver(partner, given)
    assert run.output["created"] == 3
    assert partner.looked_up == [[0, 1, 2]]


@pytest.mark.parametrize(
    "wrong", [{"total": 10**9}, {"parallel": -1}, {"chunk": 0, "order": 0}, {"retry": {"first": -1}}, {"packed": 5}]
)
async def test_an_input_that_the_intake_does_not_make_fails_at_the_first_step(wrong: dict[str, Any]) -> None:
    run = await play(deliver_batch, batch(3) | wrong, Partner(lambda _index, _tries: "deferred"))

    assert "The input is none that this app starts a delivery with: " in run.failure
    assert len(run.episodes) == 1


async def test_records_that_cannot_be_unpacked_fail_the_batch_that_is_given_up() -> None:
    given = batch(3, packed="AAAA", retry={"deadline": 1})

    run = await play(deliver_batch, given, Partner(lambda _index, _tries: "deferred"))
    assert "The records of the batch cannot be unpacked" in run.failure
    assert replay(run) == len(run.history) - 1


async def test_an_empty_batch_ends_at_once() -> None:
    run = await deliver(Partner(lambda _index, _tries: "created"), batch(0))

    assert run.output["total"] == 0
    assert run.activities == []


async def test_no_batch_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "shared")

    await deliver(Partner(lambda _index, tries: "deferred" if tries == 0 else "rejected"), batch(5))
    assert [record for record in caplog.records if record.name.startswith("shared")] == []


@settings(max_examples=30)
@given(
    st.integers(1, 12),
    st.fixed_dictionaries({"chunk": st.integers(1, 5), "parallel": st.integers(1, 4), "order": st.integers(1, 12)}),
    st.dictionaries(
        st.tuples(st.integers(0, 11), st.integers(0, 3)),
        st.sampled_from(["created", "exists", "rejected", "deferred", "uncertain", "failed"]),
    ),
    st.none() | st.floats(0, 900),
)
def test_every_batch_accounts_for_each_record_once_and_replays_to_the_same_actions(
    total: int, terms: dict[str, int], fates: dict[tuple[int, int], str], retry_after: float | None
) -> None:
    partner = Partner(lambda index, tries: fates.get((index, tries), "created"), retry_after)

    run, _ = run_fast(play(deliver_batch, batch(total, **terms), partner))
    assert replay(run) == len(run.history) - 1
    assert run.output["total"] == total == run.output["created"] + run.output["exists"] + run.output["rejected"]
    delivered = from_ranges(run.last.custom_status.get("delivered", ""))
    rejected = {rejection["index"] for rejection in run.output["rejections"]}
    assert delivered | rejected == set(range(total))
    assert not delivered & rejected
    assert all(0 < len(given) <= max(terms["chunk"], terms["order"]) for given in partner.orders_by_index)


async def test_the_status_of_the_most_scattered_batch_fits_into_a_custom_status() -> None:
    def scattered(index: int, _tries: int) -> str:
        return ("created", "rejected", "deferred")[index % 3]

    given = batch(1_000, chunk=50, parallel=20, retry={"deadline": 1})
    run = await play(deliver_batch, given, Partner(scattered))

    for status in run.custom_statuses:
        assert len(json.dumps(status, ensure_ascii=False).encode("utf-16-le")) <= 16 * 1024
    assert run.output["rejected"] == 666
