from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from sandbox.host.errors import StartError, WorkerEndedError
from sandbox.host.functions import Function
from sandbox.host.messages import Answer, RpcException, TraceContext, TypedData
from sandbox.host.timers import TimerFunction

if TYPE_CHECKING:
    from sandbox.host.worker_process import WorkerProcess

START = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


class HandClock:
    """A clock that only goes on while somebody sleeps, and sometimes wakes sleepers early."""

    def __init__(self) -> None:
        self.time = START
        self.slept: list[float] = []

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds * (0.5 if len(self.slept) % 2 else 1))
        await asyncio.sleep(0)


class ScriptedWorker:
    """Answers invocations in their order; raises what is an exception."""

    def __init__(self, clock: HandClock, *answers: Answer | WorkerEndedError) -> None:
        self._clock = clock
        self._answers = list(answers)
        self.invocations: list[tuple[datetime, dict[str, Any]]] = []

    async def invoke(self, _function: Function, value: TypedData, trace_context: TraceContext) -> Answer:
        assert trace_context.trace_parent
        self.invocations.append((self._clock.now(), json.loads(value.json or "")))
        answer = self._answers.pop(0) if self._answers else WorkerEndedError("The host is stopping.", is_final=True)
        if isinstance(answer, WorkerEndedError):
            raise answer
        return answer


DONE = Answer(invocation_id="1")
FAILED = Answer(invocation_id="1", exception=RpcException(message="ValueError: odd", stack_trace="where"))


def timer(worker: ScriptedWorker, clock: HandClock, schedule: str = "*/5 * * * *", **trigger: object) -> TimerFunction:
    binding = {"type": "timerTrigger", "name": "tick", "schedule": schedule, **trigger}
    function = Function(name="f", function_id="f", script_file="f.py", trigger=binding, bindings=(binding,))
    return TimerFunction(function, cast("WorkerProcess", worker), clock.now, clock.sleep)


async def test_runs_at_its_times_until_the_host_stops() -> None:
    clock = HandClock()
    worker = ScriptedWorker(clock, DONE, DONE)
    await timer(worker, clock).run()
    due = [moment for moment, _ in worker.invocations]
    assert all(
        timedelta(0) <= found - (START + timedelta(minutes=5 * n)) < timedelta(seconds=1)
        for n, found in enumerate(due, 1)
    )
    assert len(due) == 3


async def test_runs_at_startup_where_it_is_told_to() -> None:
    clock = HandClock()
    worker = ScriptedWorker(clock)
    await timer(worker, clock, runOnStartup=True).run()
    assert [moment for moment, _ in worker.invocations] == [START]


async def test_tells_the_function_its_schedules_status() -> None:
    clock = HandClock()
    worker = ScriptedWorker(clock, DONE, DONE)
    await timer(worker, clock).run()
    first, second = (value for _, value in worker.invocations[:2])
    assert first["IsPastDue"] is False
    assert first["Schedule"] == {"AdjustForDST": True}
    assert first["ScheduleStatus"]["Last"] == "0001-01-01T00:00:00+00:00"
    assert second["ScheduleStatus"]["Last"].startswith("2026-01-01T12:05:00")
    assert second["ScheduleStatus"]["Next"] == "2026-01-01T12:15:00+00:00"


async def test_an_interval_does_not_follow_the_clock() -> None:
    clock = HandClock()
    worker = ScriptedWorker(clock)
    await timer(worker, clock, "00:00:07").run()
    moment, value = worker.invocations[0]
    assert START + timedelta(seconds=7) <= moment + timedelta(milliseconds=1)
    assert value["Schedule"] == {"AdjustForDST": False}


async def test_logs_a_failure_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    clock = HandClock()
    worker = ScriptedWorker(clock, FAILED, WorkerEndedError("python exited with code 137"))
    with caplog.at_level(logging.ERROR):
        await timer(worker, clock).run()
    assert len(worker.invocations) == 3
    assert caplog.messages == [
        "Timer function f failed: ValueError: odd\nwhere",
        "Timer function f failed: python exited with code 137\n",
    ]


def test_refuses_a_schedule_that_makes_no_sense() -> None:
    clock = HandClock()
    with pytest.raises(StartError, match="function 'f': 'odd' is neither"):
        timer(ScriptedWorker(clock), clock, "odd")
