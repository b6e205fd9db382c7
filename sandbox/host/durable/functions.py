"""Runs the orchestrators and activities of the app: from the task hub's work items to the worker process and back.

When the worker process ends, the activities in it fail, and so do the instances whose orchestrators ran in it, as on
the platform.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.decisions import Decision, activity_failure, decide, failure, termination
from sandbox.host.durable.engine import PARENT_ID, TERMINAL
from sandbox.host.durable.history import orchestrator_context, text_or_none
from sandbox.host.durable.numbering import WITH_RETRY, KnownFunctions, is_retry_event
from sandbox.host.durable.orchestrator_state import OrchestratorFailedError, state_from_answer
from sandbox.host.durable.spans import DurableSpans
from sandbox.host.durable.task_hub import STATUS_NAMES, TaskHub
from sandbox.host.errors import WorkerEndedError
from sandbox.host.functions import ACTIVITY, ORCHESTRATOR
from sandbox.host.messages import Answer, RpcException, TypedData
from sandbox.host.spans import Spans
from sandbox.host.trace import new_trace_context

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sandbox.host.durable.store import Store
    from sandbox.host.functions import Function
    from sandbox.host.messages import TraceContext
    from sandbox.host.settings import HostConfiguration
    from sandbox.host.worker_process import WorkerProcess

logger = logging.getLogger(__name__)


def split_at_suspension(events: Sequence[pb.HistoryEvent]) -> tuple[list[pb.HistoryEvent], list[pb.HistoryEvent]]:
    """Return the events of a work item that are due, and those that came while the instance was suspended."""
    suspended_at = None
    for position, event in enumerate(events):
        if event.HasField("executionSuspended"):
            suspended_at = position
        elif event.HasField("executionResumed"):
            suspended_at = None
    if suspended_at is None:
        return list(events), []
    return list(events[: suspended_at + 1]), list(events[suspended_at + 1 :])


def split_at_retry(events: Sequence[pb.HistoryEvent]) -> tuple[list[pb.HistoryEvent], list[pb.HistoryEvent]]:
    """Return the events of a work item up to the first that may end an attempt or a pause, alone, and the rest."""
    first = next((position for position, event in enumerate(events) if is_retry_event(event)), len(events))
    before = [event for event in events[:first] if not event.HasField("orchestratorStarted")]
    end = first if before else first + 1
    return list(events[:end]), list(events[end:])


def activity_input(text: str | None) -> TypedData:
    """Return the trigger value of an activity: the JSON that the SDK encoded, which the hub keeps as a JSON string."""
    value = json.loads(text) if text else None
    return TypedData(json=value if isinstance(value, str) else json.dumps(value))


class DurableFunctions:
    """The orchestrators and activities of one app, and the task hub that says when they run."""

    def __init__(
        self,
        functions: Iterable[Function],
        worker: WorkerProcess,
        configuration: HostConfiguration,
        spans: Spans | None = None,
        store: Store | None = None,
    ) -> None:
        self.worker = worker
        self.spans = DurableSpans(spans or Spans())
        durable = {kind: {f.durable_name: f for f in functions if f.kind == kind} for kind in (ACTIVITY, ORCHESTRATOR)}
        self._activities, self._orchestrators = durable[ACTIVITY], durable[ORCHESTRATOR]
        section = configuration.extensions.durable_task
        self.known = KnownFunctions(
            activities=self._activities.keys(),
            orchestrators=self._orchestrators.keys(),
            default_version=section.default_version,
        )
        self._activity_slots = asyncio.Semaphore(section.max_concurrent_activity_functions)
        self._orchestrator_slots = asyncio.Semaphore(section.max_concurrent_orchestrator_functions)
        self._tasks: set[asyncio.Task[None]] = set()
        self.hub = TaskHub(self._dispatch, store=store)
        # Whether an instance from the store calls with retry is not known; one that does not is none the worse.
        self._retrying = {each.instance_id for each in self.hub.instances() if each.status not in TERMINAL}

    async def run_activity(self, function: Function, text: str) -> None:
        """Run an activity on an input of JSON, outside of any orchestration.

        Raises:
            WorkerEndedError: the host is stopping.
        """
        answer = await self._invoke(function, TypedData(json=text), new_trace_context())
        if answer.exception is not None:
            logger.error("Activity function %s failed: %s", function.name, answer.exception.message)

    async def close(self) -> None:
        """Stop running functions and drop the durable timers."""
        self.hub.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _dispatch(self, item: pb.WorkItem) -> None:
        is_orchestrator = item.HasField("orchestratorRequest")
        task = asyncio.create_task(self._run_orchestrator(item) if is_orchestrator else self._run_activity(item))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and not (isinstance(error, WorkerEndedError) and error.is_final):
            logger.error("A work item could not be handled", exc_info=error)

    async def _invoke(self, function: Function, value: TypedData, trace: TraceContext) -> Answer:
        """Run a function; the end of its worker process counts as its exception.

        Raises:
            WorkerEndedError: the host is stopping.
        """
        try:
            return await self.worker.invoke(function, value, trace)
        except WorkerEndedError as error:
            if error.is_final:
                raise
            return Answer(invocation_id="", exception=RpcException(message=str(error)))

    async def _run_activity(self, item: pb.WorkItem) -> None:
        request = item.activityRequest
        function = self._activities[request.name]
        instance_id = request.orchestrationInstance.instanceId
        parent = self.spans.context_of(instance_id) or self.hub.trace_context(instance_id)
        scheduled = self.spans.activity(request.name, instance_id, parent, is_scheduled=True)
        async with self._activity_slots:
            span = self.spans.activity(request.name, instance_id, scheduled.context)
            given = activity_input(text_or_none(request.input))
            answer = await self._invoke(function, given, span.context)
        for each in (span, scheduled):
            each.end(failed=answer.exception is not None)
        exception = answer.exception
        if exception is None:
            result = answer.return_value.json if answer.return_value is not None else None
            self.hub.complete_activity(item, result, None)
            return
        logger.error("Activity function %s failed: %s\n%s", function.name, exception.message, exception.stack_trace)
        details = activity_failure(function.name, exception.message, exception.stack_trace)
        self.hub.complete_activity(item, None, details)

    async def _run_orchestrator(self, item: pb.WorkItem) -> None:
        request = item.orchestratorRequest
        record = self.hub.get(request.instanceId)
        name = record.name if record is not None else ""
        due, postponed = split_at_suspension(request.newEvents)
        if not postponed and request.instanceId in self._retrying:
            due, postponed = split_at_retry(due)
        terminated = next((each for each in request.newEvents if each.HasField("executionTerminated")), None)
        if terminated is not None:
            decision = termination(text_or_none(terminated.executionTerminated.input))
        elif all(each.HasField("orchestratorStarted") or each.HasField("executionSuspended") for each in due):
            decision = Decision()
        else:
            decision = await self._decide(name, request, due)
        if postponed and terminated is None:
            self.hub.postpone(request.instanceId, len(postponed))
        self.hub.complete_orchestrator(request.instanceId, item.completionToken, decision)
        if record is not None and record.status in TERMINAL:
            self._retrying.discard(request.instanceId)
            self.spans.end_orchestration(request.instanceId, STATUS_NAMES[record.status])

    async def _decide(self, name: str, request: pb.OrchestratorRequest, due: Sequence[pb.HistoryEvent]) -> Decision:
        """Run the orchestrator function on its history, and say what follows from its answer."""
        record = self.hub.get(request.instanceId)
        parent_id = (record.tags or {}).get(PARENT_ID) if record is not None else None
        context = orchestrator_context(
            request.pastEvents, due, instance_id=request.instanceId, parent_instance_id=parent_id
        )
        parent = self.spans.context_of(parent_id) or self.hub.trace_context(request.instanceId)
        trace = self.spans.orchestration(name, request.instanceId, parent)
        try:
            self.known.check("orchestrator", name)
            async with self._orchestrator_slots:
                answer = await self._invoke(self._orchestrators[name], TypedData(string=context), trace)
            state = state_from_answer(answer)
            if any(action["actionType"] in WITH_RETRY for action in state.actions):
                self._retrying.add(request.instanceId)
            decision = decide(state, (*request.pastEvents, *due), name=name, known=self.known)
        except OrchestratorFailedError as error:
            decision = failure(name, error)
        except (KeyError, TypeError, ValueError) as error:
            decision = failure(name, OrchestratorFailedError(f"the host cannot take its answer: {error!r}"))
        for action in decision.actions:
            if action.completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED:
                details = action.completeOrchestration.failureDetails
                logger.error("Instance %s: %s\n%s", request.instanceId, details.errorMessage, details.stackTrace.value)
        return decision
