from __future__ import annotations

import asyncio

import pytest

from shared.api.time_limit import TimeLimit
from tests.fakes.virtual_time import in_virtual_time


async def work(limit: TimeLimit, seconds: float) -> float:
    """Work for so long within the limit; give the time at the end."""
    with limit:
        await asyncio.sleep(seconds)
    return asyncio.get_running_loop().time()


@in_virtual_time
async def test_what_ends_in_time_is_left_alone() -> None:
    assert await work(TimeLimit(10), 9) == 9


@in_virtual_time
async def test_what_takes_longer_ends_with_a_timeout_at_that_very_time() -> None:
    with pytest.raises(TimeoutError):
        await work(TimeLimit(10), 11)
    assert asyncio.get_running_loop().time() == 10


@in_virtual_time
async def test_each_call_has_the_whole_time_of_its_own() -> None:
    limit, ended = TimeLimit(10), {}

    async def call(start: float, seconds: float) -> None:
        await asyncio.sleep(start)
        try:
            await work(limit, seconds)
        except TimeoutError:
            ended[start] = asyncio.get_running_loop().time()

    await asyncio.gather(call(0, 99), call(1, 5), call(3, 99), call(4, 9.5), call(9, 99), call(25, 99))
    assert ended == {0: 10, 3: 13, 9: 19, 25: 35}


@in_virtual_time
async def test_one_timer_serves_all_calls() -> None:
    limit, timers = TimeLimit(10), set()
    loop = asyncio.get_running_loop()
    for _ in range(1_000):
        await work(limit, 0)
        timers.update(loop._scheduled)  # type: ignore[attr-defined]  # noqa: SLF001, asyncio shows its timers nowhere else
    assert len(timers) == 1


@in_virtual_time
async def test_a_call_that_is_cancelled_is_cancelled_and_not_late() -> None:
    task = asyncio.create_task(work(TimeLimit(10), 99))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@in_virtual_time
async def test_a_call_that_is_cancelled_at_the_moment_its_time_runs_out_is_cancelled() -> None:
    task = asyncio.create_task(work(TimeLimit(10), 99))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_at(10, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@in_virtual_time
async def test_a_late_call_that_fails_of_itself_keeps_its_error() -> None:
    async def fail() -> None:
        with TimeLimit(10):
            try:
                await asyncio.sleep(99)
            except asyncio.CancelledError:
                raise ValueError("its own") from None

    with pytest.raises(ValueError, match="its own"):
        await fail()


@in_virtual_time
async def test_a_call_that_takes_no_notice_is_told_once_and_holds_up_no_other() -> None:
    limit, told = TimeLimit(10), []

    async def stubborn() -> None:
        with limit:
            for _ in range(5):
                try:
                    await asyncio.sleep(20)
                except asyncio.CancelledError:
                    told.append(asyncio.get_running_loop().time())

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(15)
    with pytest.raises(TimeoutError):
        await work(limit, 99)
    assert asyncio.get_running_loop().time() == 25
    await task
    assert told == [10]


@in_virtual_time
async def test_the_task_goes_on_after_a_timeout_as_if_it_had_never_been_cancelled() -> None:
    with pytest.raises(TimeoutError):
        await work(TimeLimit(10), 11)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await work(TimeLimit(10), 9) == 19


@in_virtual_time
async def test_a_limit_within_a_timeout_of_asyncio_leaves_that_its_own() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            await work(TimeLimit(10), 99)
    assert asyncio.get_running_loop().time() == 5
    async with asyncio.timeout(50):
        with pytest.raises(TimeoutError):
            await work(TimeLimit(10), 99)
    assert asyncio.get_running_loop().time() == 15


@in_virtual_time
async def test_a_task_that_was_cancelled_before_and_went_on_ends_with_a_timeout_as_well() -> None:
    async def go_on() -> None:
        try:
            await asyncio.sleep(99)
        except asyncio.CancelledError:
            await work(TimeLimit(10), 99)

    task = asyncio.create_task(go_on())
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(TimeoutError):
        await task
    assert asyncio.get_running_loop().time() == 11


@in_virtual_time
async def test_a_task_that_was_late_once_is_ended_the_next_time_as_well() -> None:
    limit = TimeLimit(10)
    for end in (10, 20):
        with pytest.raises(TimeoutError):
            await work(limit, 99)
        assert asyncio.get_running_loop().time() == end
    assert await work(limit, 5) == 25


def test_a_limit_is_refused_in_a_second_event_loop() -> None:
    limit = TimeLimit(10)
    asyncio.run(work(limit, 0))
    with pytest.raises(RuntimeError, match="belongs to the event loop of its first call"):
        asyncio.run(work(limit, 0))


def test_there_is_no_limit_without_a_task() -> None:
    async def in_a_callback() -> BaseException:
        loop = asyncio.get_running_loop()
        raised = loop.create_future()

        def callback() -> None:
            try:
                with TimeLimit(10):
                    raised.set_result(None)
            except RuntimeError as exc:
                raised.set_result(exc)

        loop.call_soon(callback)
        error: BaseException = await raised
        return error

    assert str(asyncio.run(in_a_callback())) == "a time limit is for a task"


async def test_no_task_is_in_a_limit_twice() -> None:
    limit = TimeLimit(10)
    with limit:
        with pytest.raises(RuntimeError, match="once at a time"), limit:
            pass
        await asyncio.sleep(0)
    with limit:
        pass
