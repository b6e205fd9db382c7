"""Processors: the worker process gets one to itself, so that no burst of work has to find one first."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def one_kept_free() -> Iterator[int | None]:
    """Keep this thread, and the processes that it starts, off one processor, and give that one.

    None where there is no other, or the system has no such thing.
    """
    if not hasattr(os, "sched_setaffinity") or len(allowed := os.sched_getaffinity(0)) == 1:
        yield None
        return
    free = max(allowed)
    os.sched_setaffinity(0, allowed - {free})
    try:
        yield free
    finally:
        os.sched_setaffinity(0, allowed)


def run_on(process: int, processor: int) -> None:
    """Let a process run on one processor alone: all of its threads, and those that they will start."""
    moved: set[str] = set()
    # One that is not moved yet may start another.
    while left := {thread.name for thread in Path(f"/proc/{process}/task").iterdir()} - moved:
        for thread in left:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread), {processor})
        moved |= left
