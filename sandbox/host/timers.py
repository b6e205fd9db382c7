"""Timer functions: each waits for its schedule, runs, and only then looks for its next time."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from sandbox.host.errors import StartError, WorkerEndedError
from sandbox.host.messages import Answer, RpcException, TypedData
from sandbox.host.schedule import Cron, parse_schedule
from sandbox.host.trace import new_trace_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox.host.functions import Function
    from sandbox.host.schedule import Schedule
    from sandbox.host.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

# A wait that returns within this many seconds of its end is not early: clocks differ that much.
TOLERANCE_SECONDS = 0.001
# A machine that slept has a wall clock ahead of the loop's, so it is looked at this often.
LONGEST_WAIT_SECONDS = 60.0
_utc_now = partial(datetime.now, UTC)


def timer_data(schedule: Schedule, *, last: datetime | None, now: datetime) -> TypedData:
    """Return the trigger value of a timer function: its schedule's status, with times in ISO 8601."""
    status = {
        "Last": (last or datetime.min.replace(tzinfo=UTC)).isoformat(),
        "LastUpdated": (last or now).isoformat(),
        "Next": schedule.next_after(now).isoformat(),
    }
    kind = {"AdjustForDST": isinstance(schedule, Cron)}
    return TypedData(json=json.dumps({"Schedule": kind, "ScheduleStatus": status, "IsPastDue": False}))


class TimerFunction:
    """A timer function with its schedule; `now` and `sleep` are its clock.

    Raises:
        StartError: the schedule makes no sense.
    """

    def __init__(
        self,
        function: Function,
        worker: WorkerProcess,
        now: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.function = function
        self._worker = worker
        self._now, self._sleep = now, sleep
        try:
            self._schedule = parse_schedule(str(function.trigger["schedule"]), now())
        except ValueError as error:
            raise StartError(f"function {function.name!r}: {error}") from error
        self._last: datetime | None = None

    async def run_once(self) -> None:
        """Run the function now; what goes wrong is logged.

        Raises:
            WorkerEndedError: the host is stopping.
        """
        now = self._now()
        value = timer_data(self._schedule, last=self._last, now=now)
        self._last = now
        try:
            answer = await self._worker.invoke(self.function, value, new_trace_context())
        except WorkerEndedError as error:
            if error.is_final:
                raise
            answer = Answer(invocation_id="", exception=RpcException(message=str(error)))
        if answer.exception is not None:
            text, trace = answer.exception.message, answer.exception.stack_trace
            logger.error("Timer function %s failed: %s\n%s", self.function.name, text, trace)

    async def run(self) -> None:
        """Run the function at its times, until cancelled or the host stops."""
        try:
            if self.function.trigger.get("runOnStartup"):
                await self.run_once()
            while True:
                due = self._schedule.next_after(self._now())
                while (left := (due - self._now()).total_seconds()) > TOLERANCE_SECONDS:
                    await self._sleep(min(left, LONGEST_WAIT_SECONDS))
                await self.run_once()
        except WorkerEndedError:
            logger.info("Timer function %s stops with the host", self.function.name)
