from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from shared.client.admission import Admission
from shared.rules.flow import CallResult, Flow
from tests.fakes.virtual_time import VirtualTimeLoop, in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

OK = CallResult(0.1, 201)
BROKEN = CallResult(0.1, 500)


def admission(flow: Flow) -> Admission:
    return Admission(flow, asyncio.get_running_loop().time, lambda: 0.5)


async def call(queue: Admission, delivery: str, turns: list[str], patience: float = 60.0) -> float:
    """One call of a second; it notes its turn."""
    wait = await queue.enter(delivery, patience=patience)
    if wait == 0:
        turns.append(delivery)
        await asyncio.sleep(1)
        queue.leave(OK)
    return wait


async def start(
    queue: Admission, turns: list[str], *deliveries: str, patience: float = 60.0
) -> list[asyncio.Task[float]]:
    tasks = [asyncio.create_task(call(queue, delivery, turns, patience)) for delivery in deliveries]
    await asyncio.sleep(0.01)
    return tasks


@in_virtual_time
async def test_lets_calls_ahead_at_once_while_there_is_room() -> None:
    turns: list[str] = []
    queue = admission(Flow())
    tasks = await start(queue, turns, "a", "b", "c")

    assert turns == ["a", "b", "c"]
    assert await asyncio.gather(*tasks) == [0, 0, 0]


@in_virtual_time
async def test_a_single_call_passes_the_many_of_batches() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    tasks = await start(queue, turns, *["batch-1"] * 50, *["batch-2"] * 50, *["batch-3"] * 50)
    await asyncio.sleep(10)
    before = len(turns)
    tasks += await start(queue, turns, "single")
    await asyncio.gather(*tasks, return_exceptions=True)

    assert turns.index("single") - before <= 3


@in_virtual_time
async def test_the_second_call_of_a_record_follows_its_first() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    assert await queue.enter("record", patience=60.0) == 0
    tasks = await start(queue, turns, *["batch"] * 10)

    assert await queue.enter("record", patience=60.0, after=OK) == 0
    assert (turns, queue.snapshot()["in_flight"]) == ([], 1)
    queue.leave(OK)
    await asyncio.gather(*tasks)
    assert queue.snapshot()["in_flight"] == 0


@in_virtual_time
async def test_the_second_call_of_a_record_is_the_next_when_it_has_to_wait() -> None:
    turns: list[str] = []
    queue = admission(Flow(rate=1.0))
    assert await queue.enter("record", patience=60.0) == 0
    tasks = await start(queue, turns, *["batch"] * 5)

    assert await queue.enter("record", patience=60.0, after=OK) == 0
    assert turns == []
    queue.leave(OK)
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_batches_take_turns() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    tasks = await start(queue, turns, *["a"] * 30, *["b"] * 30)
    await asyncio.gather(*tasks)

    half = turns[:30]
    assert abs(half.count("a") - half.count("b")) <= 3


@in_virtual_time
async def test_a_late_single_is_not_behind_all_others_and_none_is_forgotten() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    tasks = await start(queue, turns, *[f"record-{at}" for at in range(50)])
    tasks += await start(queue, turns, "late")
    await asyncio.sleep(20)

    assert turns.index("late") <= 4
    # A third of the turns is for those that have waited longest.
    assert {"record-1", "record-2", "record-3", "record-4"} < set(turns)
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_sends_a_caller_away_when_its_patience_ends_and_spreads_their_return() -> None:
    turns: list[str] = []
    queue = admission(Flow(rate=2.0))
    tasks = await start(queue, turns, *[f"record-{at}" for at in range(100)], patience=5.0)
    waits = [wait for wait in await asyncio.gather(*tasks) if wait]

    assert len(turns) + len(waits) == 100
    assert 8 <= len(turns) <= 12
    # 88 records at 2 calls each and 2 calls/s, a little too early rather than too late.
    assert 60 <= max(waits) <= 90
    assert len({round(wait) for wait in waits}) >= 60
    assert queue.snapshot()["waiting"] == 0


@in_virtual_time
async def test_of_too_many_new_deliveries_the_oldest_are_sent_away_at_once() -> None:
    turns: list[str] = []
    queue = admission(Flow(rate=20.0))
    tasks = await start(queue, turns, *[f"record-{at}" for at in range(200)], "late", patience=5.0)
    gone = [task.result() for task in tasks if task.done() and task.result()]

    assert len(gone) >= 150
    assert max(gone) >= 15  # at 20 calls/s, two for each
    assert not tasks[-1].done()
    assert await tasks[-1] == 0
    await asyncio.gather(*tasks)


@in_virtual_time
async def test_who_was_sent_away_is_ahead_of_newcomers() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    tasks = await start(queue, turns, "running")
    assert await queue.enter("early", patience=0.1) > 0
    tasks += await start(queue, turns, "new-1", "new-2", "early", "new-3")
    await asyncio.gather(*tasks)

    assert turns.index("early") <= 3
    assert turns.index("early") < turns.index("new-1")


@in_virtual_time
async def test_without_patience_it_says_at_once_when_to_come_back() -> None:
    queue = admission(Flow(rate=0.1))
    assert await queue.enter("a", patience=0.0) == 0
    queue.leave(OK)
    wait = await queue.enter("b", patience=0.0)

    assert wait >= 1
    assert asyncio.get_running_loop().time() < 0.001


@in_virtual_time
async def test_while_the_partner_is_down_few_wait_and_the_others_come_back_within_half_a_minute() -> None:
    queue = admission(Flow())
    for _ in range(5):
        assert await queue.enter("first", patience=1) == 0
    for _ in range(5):
        queue.leave(BROKEN)
    tasks = [asyncio.create_task(queue.enter(f"record-{at}", patience=20.0)) for at in range(100)]
    await asyncio.sleep(0.05)
    sent_away = [task.result() for task in tasks if task.done()]

    assert len(sent_away) == 36
    assert all(1 <= wait <= 30 for wait in sent_away)
    assert queue.snapshot()["state"] == "down"
    await asyncio.sleep(1)
    queue.leave(OK)
    await asyncio.gather(*tasks)
    assert queue.snapshot()["state"] == "open"


@in_virtual_time
async def test_a_caller_that_is_cancelled_takes_nobodys_turn() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    tasks = await start(queue, turns, "running", "waiting", "next")
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert turns == ["running", "next"]
    assert queue.snapshot()["in_flight"] == queue.snapshot()["waiting"] == 0


@in_virtual_time
async def test_a_caller_that_is_cancelled_with_its_turn_in_hand_gives_it_back() -> None:
    turns: list[str] = []
    queue = admission(Flow(most=1))
    assert await queue.enter("running", patience=1) == 0
    tasks = await start(queue, turns, "first", "second")
    queue.leave(OK)
    tasks[1].cancel()  # the newest had the turn
    await asyncio.gather(*tasks, return_exceptions=True)

    assert turns == ["first"]
    assert queue.snapshot()["in_flight"] == 0


STEP = st.tuples(
    st.sampled_from(["a", "b", "c", "d"]),
    st.sampled_from([0.0, 0.5, 5.0]),
    st.sampled_from([OK, BROKEN, CallResult(0.1, 429, retry_after=2.0), CallResult(0.0, is_about_partner=False)]),
    st.floats(0, 2),
    st.booleans(),
)


@given(steps=st.lists(STEP, max_size=40))
def test_nothing_is_left_behind_and_every_caller_gets_an_answer(
    steps: list[tuple[str, float, CallResult, float, bool]],
) -> None:
    async def go() -> None:
        queue = admission(Flow(most=3))
        running = 0

        async def one(delivery: str, patience: float, result: CallResult) -> None:
            nonlocal running
            if await queue.enter(delivery, patience=patience) == 0:
                running += 1
                assert running <= 3
                try:
                    await asyncio.sleep(0.5)
                finally:
                    running -= 1
                    queue.leave(result)

        tasks = []
        for delivery, patience, result, pause, is_cancelled in steps:
            tasks.append(asyncio.create_task(one(delivery, patience, result)))
            await asyncio.sleep(pause)
            if is_cancelled:
                tasks[-1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(each is None or isinstance(each, asyncio.CancelledError) for each in results)
        assert queue.snapshot()["in_flight"] == queue.snapshot()["waiting"] == 0

    run_in_virtual_time(go)


def run_in_virtual_time(work: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(work())  # type: ignore[arg-type]  # an async function gives a coroutine
