"""An event loop in which waiting takes no time: its clock jumps to whatever comes next."""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")


class _NoWaiting(selectors.SelectSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0 if timeout is not None else None)


class FastLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0 and goes on by what is waited for, and by nothing else."""

    def __init__(self) -> None:
        self._no_waiting = _NoWaiting()
        super().__init__(self._no_waiting)

    def time(self) -> float:
        return self._no_waiting.now


def run_fast(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run a coroutine; give its result, and the seconds that it has waited."""
    with asyncio.Runner(loop_factory=FastLoop) as runner:
        loop = runner.get_loop()
        result = runner.run(work)
        return result, loop.time()
