"""Orchestrators and activities with a scripted worker process."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, cast

import pytest

from sandbox.host.durable.engine import TERMINAL
from sandbox.host.durable.functions import DurableFunctions
from sandbox.host.durable.task_hub import STATUS_NAMES
from sandbox.host.errors import WorkerEndedError
from sandbox.host.functions import Function
from sandbox.host.messages import Answer, TraceContext, TypedData
from sandbox.host.settings import DurableSection, Extensions, HostConfiguration

if TYPE_CHECKING:
    from collections.abc import Callable

    from durabletask.internal import orchestrator_service_pb2 as pb
    from durabletask.testing.in_memory_backend import OrchestrationInstance

    from sandbox.host.worker_process import WorkerProcess

TRACE = TraceContext(trace_parent="parent")


def function(kind: str, name: str) -> Function:
    binding = {"type": kind, "name": "given"}
    return Function(name=name, function_id=name, script_file="f.py", trigger=binding, bindings=(binding,))


class ScriptedWorker:
    """Answers each invocation by a function of its number, and remembers the most that ran at once."""

    def __init__(self, script: Callable[[int, Function], object]) -> None:
        self._script = script
        self.names: list[str] = []
        self.running = self.most = 0
        self.answered = asyncio.Event()

    async def invoke(self, invoked: Function, _value: TypedData, _trace: TraceContext) -> Answer:
        self.names.append(invoked.name)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            answer = self._script(len(self.names), invoked)
        finally:
            self.running -= 1
            self.answered.set()
        if isinstance(answer, BaseException):
            raise answer
        return Answer(invocation_id="1", return_value=TypedData(json=json.dumps(answer)))


def durable(worker: ScriptedWorker, activities: int = 9, orchestrators: int = 9) -> DurableFunctions:
    functions = [function("orchestrationTrigger", "O"), function("activityTrigger", "A")]
    section = DurableSection(
        max_concurrent_activity_functions=activities, max_concurrent_orchestrator_functions=orchestrators
    )
    extensions = Extensions(durable_task=section)
    configuration = HostConfiguration(version="2.0", extensions=extensions)
    return DurableFunctions(functions, cast("WorkerProcess", worker), configuration)


def calls(count: int, *, is_done: bool = False) -> dict[str, object]:
    """Give the state of an orchestrator that calls an activity some times."""
    action = {"actionType": 0, "functionName": "A", "input": "1"}
    return {"isDone": is_done, "actions": [[action] * count], "output": "done"}


async def finished(made: DurableFunctions, instance_id: str) -> OrchestrationInstance:
    async with asyncio.timeout(5):
        while True:
            instance = made.hub.get(instance_id)
            if instance is not None and instance.status in TERMINAL:
                return instance
            await asyncio.sleep(0)


def history(made: DurableFunctions) -> list[pb.HistoryEvent]:
    instance = made.hub.get("one")
    return [] if instance is None else instance.history


async def settled(worker: ScriptedWorker) -> None:
    """Wait until the worker process has answered, and whoever waited for that has gone on."""
    await asyncio.wait_for(worker.answered.wait(), 5)
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_its_worker_process_lost_has_failed_with_how_that_ended() -> None:
    answers = [calls(1), WorkerEndedError("python exited with code 137"), calls(1, is_done=True)]
    worker = ScriptedWorker(lambda number, _: answers[number - 1])
    made = durable(worker)
    made.hub.start_new("O", "one", None, version=None, trace=TRACE)
    assert (await finished(made, "one")).output == '"done"'
    [failed] = [event.taskFailed for event in history(made) if event.HasField("taskFailed")]
    assert failed.failureDetails.errorMessage == "Activity function 'A' failed: python exited with code 137"
    await made.close()


async def test_no_activity_has_failed_when_the_host_stops() -> None:
    answers = [calls(1), WorkerEndedError("The host is stopping.", is_final=True)]
    worker = ScriptedWorker(lambda number, _: answers[number - 1])
    made = durable(worker)
    made.hub.start_new("O", "one", None, version=None, trace=TRACE)
    while len(worker.names) < len(answers):
        worker.answered.clear()
        await settled(worker)
    await made.close()
    assert not any(event.HasField("taskFailed") for event in history(made))


async def test_bounds_what_runs_at_once() -> None:
    def script(_number: int, invoked: Function) -> object:
        return calls(20, is_done=True) if invoked.name == "O" else 1

    worker = ScriptedWorker(script)
    made = durable(worker, activities=3, orchestrators=1)
    for number in range(3):
        made.hub.start_new("O", str(number), None, version=None, trace=TRACE)
    for number in range(3):
        assert STATUS_NAMES[(await finished(made, str(number))).status] == "Completed"
    assert worker.most <= 4
    assert worker.names.count("A") == 60
    await made.close()


async def test_says_in_the_log_what_it_could_not_handle(caplog: pytest.LogCaptureFixture) -> None:
    worker = ScriptedWorker(lambda _number, _: ZeroDivisionError("a defect"))
    made = durable(worker)
    with caplog.at_level(logging.ERROR):
        made.hub.start_new("O", "one", None, version=None, trace=TRACE)
        await settled(worker)
    assert caplog.messages == ["A work item could not be handled"]
    await made.close()


async def test_says_nothing_of_what_is_lost_when_the_host_stops(caplog: pytest.LogCaptureFixture) -> None:
    worker = ScriptedWorker(lambda _number, _: WorkerEndedError("The host is stopping.", is_final=True))
    made = durable(worker)
    made.hub.start_new("O", "one", None, version=None, trace=TRACE)
    await settled(worker)
    await made.close()
    assert caplog.messages == []
    instance = made.hub.get("one")
    assert instance is not None
    assert instance.status not in TERMINAL


@pytest.mark.parametrize(
    "answer",
    [{"actions": [[{"actionType": 0}]]}, {"actions": [[{}]]}, {"actions": [[{"actionType": 5, "fireAt": "soon"}]]}],
)
async def test_an_answer_that_makes_no_sense_fails_the_instance(answer: object) -> None:
    made = durable(ScriptedWorker(lambda _number, _: answer))
    made.hub.start_new("O", "one", None, version=None, trace=TRACE)
    instance = await finished(made, "one")
    assert STATUS_NAMES[instance.status] == "Failed"
    assert "the host cannot take its answer" in (instance.output or "")
    await made.close()


async def test_an_activity_without_a_result_has_the_result_none() -> None:
    worker = ScriptedWorker(lambda _number, invoked: calls(1, is_done=True) if invoked.name == "O" else None)
    made = durable(worker)
    made.hub.start_new("O", "one", None, version=None, trace=TRACE)
    assert STATUS_NAMES[(await finished(made, "one")).status] == "Completed"
    assert [e.taskCompleted.result.value for e in history(made) if e.HasField("taskCompleted")] == ["null"]
    await made.close()
