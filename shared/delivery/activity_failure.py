"""An activity that failed, as an orchestrator sees it. Pure, and the same at every replay.

The Durable extension runs activities again after the loss of their instance. Where only the worker process has ended
(out of memory, for one), or an activity has hung for longer than `functionTimeout`, it lets them fail instead; a defect
of the app looks the same. Of all of them nobody knows how far they came.
"""

from __future__ import annotations

# Characters: it goes into the custom status.
MAX_REASON = 400


def failure_reason(failure: Exception) -> str:
    """Say why there is no result, in one line.

    The Durable SDK raises a bare Exception: the extension's sentence and, after a line break between two spaces, a
    traceback, which stays in the host's log.
    """
    sentence = " ".join(str(failure).partition(" \n ")[0].split())
    reason = f"The attempt ended without a result, and may have posted: {sentence}"
    return reason if len(reason) <= MAX_REASON else reason[: MAX_REASON - 1] + "…"
