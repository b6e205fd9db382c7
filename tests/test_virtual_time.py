from __future__ import annotations

import asyncio

import pytest

from tests.fakes.virtual_time import VirtualTimeLoop, in_virtual_time


@in_virtual_time
async def test_time_jumps_to_exactly_what_is_due() -> None:
    for until in (10.0, 10.5, 3_600.0, 1_000_000.0):
        await asyncio.sleep(until - asyncio.get_running_loop().time())
        assert asyncio.get_running_loop().time() == until


@in_virtual_time
async def test_a_timer_is_due_however_late_it_has_become() -> None:
    loop = asyncio.get_running_loop()
    # From 2 ** 24 s on a float has no room for a billionth of a second, which is the resolution of the clock.
    for seconds in (1e6, 1e7, 1e8, 1e9):
        began = loop.time()
        await asyncio.sleep(seconds)
        assert loop.time() == pytest.approx(began + seconds)
        for soon in (0.0, 1e-12, 1e-9):
            due = asyncio.Event()
            loop.call_at(loop.time() + soon, due.set)
            await due.wait()


def test_waiting_for_what_cannot_come_is_an_error() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        task = runner.get_loop().create_task(asyncio.Event().wait())
        with pytest.raises(RuntimeError, match="it hangs"):
            runner.get_loop().run_until_complete(task)
        task.cancel()
