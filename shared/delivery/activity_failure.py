"""An activity that failed, as an orchestrator sees it. Pure, and the same at every replay.

The Durable extension runs activities again after the loss of their instance. Where only the worker process has ended
(out of memory, for one), or an activity has hung for longer than `functionTimeout`, it lets them fail instead; a defect
of the app looks the same. Of all of them nobody knows how far they came.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Generator

# Characters: it goes into the custom status.
MAX_REASON = 400


def ended(task: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401, a task of the Durable SDK, which is untyped
    """Wait for a task; give its result, or what it raised."""
    try:
        return (yield task)
    except Exception as exc:  # noqa: BLE001, the Durable SDK raises nothing narrower
        return exc


def failure_reason(failure: Exception) -> str:
    """Say why there is no result, in one line.

    The Durable SDK raises a bare Exception: the extension's sentence and, after a line break between two spaces, a
    traceback, which stays in the host's log.
    """
    return _reason(" ".join(str(failure).partition(" \n ")[0].split()))


def defect_reason(defect: Exception) -> str:
    """Say it of a defect where it is met: its type alone, for its text may repeat anything."""
    return _reason(f"{type(defect).__name__}, a defect of this app whose traceback is in the log")


def _reason(sentence: str) -> str:
    return shortened(f"The attempt ended without a result, and may have posted: {sentence}", MAX_REASON)
