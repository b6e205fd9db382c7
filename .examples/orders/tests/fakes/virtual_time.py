"""An event loop whose time jumps to the next thing that is due: a test of an hour takes no time, and nothing is chance.

For code without sockets and threads. A task that waits for something that cannot come is an error, not a hang.
"""

from __future__ import annotations

import asyncio
import functools
import math
import selectors
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


# asyncio runs a timer that is due within this many seconds.
RESOLUTION = time.get_clock_info("monotonic").resolution


class _JumpingSelector(selectors.DefaultSelector):
    """Lets time pass instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if not events:
            if timeout is None:
                raise RuntimeError("nothing is due any more, and yet something is awaited: it hangs")
            self.time += timeout
            if self.time + RESOLUTION == self.time:
                # The number is too large for the resolution, so a timer of exactly now would never be due.
                self.time = math.nextafter(self.time, math.inf)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """`time()` starts at 0 and is a clock for the code under test."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.time


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on a loop of virtual time; no task may outlive it."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def check() -> None:
            await test(*args, **kwargs)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, f"left behind: {left}"

        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(check())

    return run
