"""How requests are made to wait, and how all waiting ends."""

from __future__ import annotations

import asyncio

from sandbox.partner.waits import Waits


async def test_waits_for_a_time() -> None:
    assert await Waits().for_seconds(0.001)


async def test_nothing_waits_any_more_once_all_waiting_is_ended() -> None:
    waits = Waits()
    waits.open("open")
    assert await waits.at_gate("open")

    waits.end()

    assert not await waits.for_seconds(600)
    assert not await waits.at_gate("open")
    assert not await waits.at_gate("closed")


async def test_ending_ends_every_wait() -> None:
    waits = Waits()
    waiting = [asyncio.create_task(wait) for wait in (waits.for_seconds(600), waits.at_gate("a"), waits.at_gate("b"))]
    await asyncio.sleep(0)

    waits.end()

    assert await asyncio.gather(*waiting) == [False, False, False]


async def test_a_request_that_was_released_is_neither_released_nor_ended_again() -> None:
    waits = Waits()
    waiting = asyncio.create_task(waits.at_gate("g"))
    await asyncio.sleep(0)

    assert (waits.open("g"), waits.open("g")) == (1, 0)
    assert waits.to_json() == {"g": {"open": True, "waiting": 0}}
    waits.end()

    assert await waiting is True


async def test_a_time_that_is_over_as_all_waiting_ends_is_no_defect() -> None:
    defects: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: defects.append(context))
    waits = Waits()
    waiting = asyncio.create_task(waits.for_seconds(0))
    # One turn starts the wait, in the next one its timer runs right after this.
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    waits.end()

    assert await waiting is False
    assert not defects
