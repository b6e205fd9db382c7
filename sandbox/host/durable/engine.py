"""The durable engine: Microsoft's in-memory task hub (`durabletask`), run inside the host's event loop.

The engine is written for a gRPC server with threads. This subclass changes what does not fit a host of one loop, or
falls short of the semantics of Durable Functions; the package is pinned exactly, for private methods are overridden:

- work items are pulled when there are some, not polled every 100 ms, and an instance that is at work is not queued
  again before its work is done;
- a timer is one entry of the event loop, not a sleeping thread, and ends with the execution that set it;
- a sub-orchestration reports to its parent when it ends, however long that takes;
- the result of an activity only reaches the execution that scheduled it, never a later one with the same id;
- what reaches an instance that is finished is dropped; while one is suspended it waits;
- every event has a timestamp;
- with a store each operation is a transaction, committed before anybody hears of its result: a client's message, a turn
  of an orchestrator with all that it schedules, the result of an activity.

All methods must be called from the event loop's thread.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NoReturn, cast

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend, OrchestrationInstance
from google.protobuf import wrappers_pb2

from sandbox.host.durable.numbering import ended_number
from sandbox.host.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import grpc

    from sandbox.host.durable.store import ActivityKey, ScheduledActivity, Store

LONGEST_WAIT_SECONDS = 60.0
# The tag of a sub-orchestration with its parent's id.
PARENT_ID = "parentInstanceId"
TERMINAL = frozenset(
    {pb.ORCHESTRATION_STATUS_COMPLETED, pb.ORCHESTRATION_STATUS_FAILED, pb.ORCHESTRATION_STATUS_TERMINATED}
)


class _Signal(threading.Event):
    """What stands in for gRPC and threads: the event on which the engine waits for work, and the context of a call.

    It never waits, but notes that there is no work left.
    """

    def __init__(self, on_work: Callable[[], None]) -> None:
        super().__init__()
        self.set = on_work  # type: ignore[method-assign]  # the engine calls it when there is work
        self.drained = False

    def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - the signature is threading.Event's
        """Note that the engine has nothing more to give."""
        self.drained = True
        return False

    def is_active(self) -> bool:
        """Tell whether to go on giving work items."""
        return not self.drained

    def abort(self, _code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call, as gRPC does by an exception."""
        raise EngineError(details)


class _Transaction:
    """What stands in for the engine's lock, for there is only one thread: the outermost block ends with a commit."""

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit, self._depth = commit, 0

    def __enter__(self) -> None:
        self._depth += 1

    def __exit__(self, *_error: object) -> None:
        self._depth -= 1
        if not self._depth:
            self._commit()


def _stamp(events: Iterable[pb.HistoryEvent]) -> None:
    """Set the present time on the last events that have none."""
    now = datetime.now(UTC)
    for event in events:
        if event.timestamp.seconds:
            break
        event.timestamp.FromDatetime(now)


class Engine(InMemoryOrchestrationBackend):
    """The task hub of one host: keeps instances and their histories, and hands out work items to `dispatch`.

    A timer looks at the wall clock at least every `longest_wait` seconds. With a `store` it goes on where the engine
    before it has ended, at whatever moment that was.
    """

    def __init__(
        self,
        dispatch: Callable[[pb.WorkItem], None],
        *,
        store: Store | None = None,
        longest_wait: float = LONGEST_WAIT_SECONDS,
    ) -> None:
        # The engine's limit of history guards a test's memory; the platform has none.
        super().__init__(max_history_size=sys.maxsize)
        self._loop = asyncio.get_running_loop()
        self._dispatch = dispatch
        self._longest_wait = longest_wait
        self._pull_is_due = False
        self._signal = self._work_available = _Signal(self._schedule_pull)
        self.context = cast("grpc.ServicerContext", self._signal)
        self._lock = _Transaction(self._commit)  # type: ignore[assignment]  # the engine only enters and leaves it
        self._timers: dict[str, dict[int, asyncio.TimerHandle]] = {}
        self._parents: dict[str, tuple[OrchestrationInstance, int]] = {}
        self._activities: dict[ActivityKey, ScheduledActivity] = {}
        # What the transaction has changed: instances, with whether their history has changed too, and activities.
        self._touched: dict[str, bool] = {}
        self._touched_activities: set[ActivityKey] = set()
        self._redeliveries: list[asyncio.TimerHandle] = []
        self._store = store
        if store is not None:
            self._take_up(store)

    def get(self, instance_id: str) -> OrchestrationInstance | None:
        """Return an instance's record, None where there is none."""
        return self._instances.get(instance_id)

    def instances(self) -> list[OrchestrationInstance]:
        """Return the records of all instances."""
        return list(self._instances.values())

    def _touch(self, instance_id: str, *, history: bool = False) -> None:
        """Have the end of the transaction write an instance, or its absence, and if need be its history."""
        self._touched[instance_id] = history or self._touched.get(instance_id, False)

    def _commit(self) -> None:
        if self._store is not None and (self._touched or self._touched_activities):
            instances = {each: (self._instances.get(each), history) for each, history in self._touched.items()}
            activities = {each: self._activities.get(each) for each in self._touched_activities}
            self._store.commit(instances, activities)
        self._touched.clear()
        self._touched_activities.clear()

    def _take_up(self, store: Store) -> None:
        """Go on where the last engine on the store ended; what waited for it then is handed out after a while."""
        self._instances, self._activities = store.load()
        activities = [item for item, _ in self._activities.values()]
        tokens = {each.completion_token for each in self._instances.values()} | {
            item.completion_token for item in activities
        }
        self._next_completion_token = max(tokens, default=0) + 1
        for instance in self.instances():
            if instance.status not in TERMINAL:
                self._wait_again(instance)

        def hand_out_messages() -> None:
            for instance in self.instances():
                if instance.pending_events:
                    self._enqueue_orchestration(instance.instance_id)

        def hand_out_activities() -> None:
            self._activity_queue.extend(activities)
            self._schedule_pull()

        self._redeliveries += [
            self._loop.call_later(store.messages_after, hand_out_messages),
            self._loop.call_later(store.activities_after, hand_out_activities),
        ]

    def _wait_again(self, instance: OrchestrationInstance) -> None:
        """Set the timers of an instance that have not fired, and watch its sub-orchestrations that have not ended."""
        ended = {ended_number(event) for event in (*instance.history, *instance.pending_events)}
        for event in instance.history:
            if event.eventId not in ended and event.HasField("timerCreated"):
                self._set_timer(instance, event.eventId, event.timerCreated.fireAt.ToDatetime(tzinfo=UTC))
            elif event.eventId not in ended and event.HasField("subOrchestrationInstanceCreated"):
                self._parents[event.subOrchestrationInstanceCreated.instanceId] = instance, event.eventId

    def postpone(self, instance_id: str, count: int) -> None:
        """Put the last `count` events of the work item back, to be handed out again with the next one."""
        instance = self._instances[instance_id]
        instance.pending_events[:0] = instance.dispatched_events[-count:]
        del instance.dispatched_events[-count:]

    def close(self) -> None:
        """Drop all timers."""
        for instance_id in list(self._timers):
            self._cancel_timers(instance_id)
        for redelivery in self._redeliveries:
            redelivery.cancel()

    def _schedule_pull(self) -> None:
        if not self._pull_is_due:
            self._pull_is_due = True
            self._loop.call_soon(self._pull)

    def _pull(self) -> None:
        self._pull_is_due = self._signal.drained = False
        for item in self.GetWorkItems(pb.GetWorkItemsRequest(), self.context):
            self._dispatch(item)

    def _enqueue_orchestration(self, instance_id: str) -> None:
        instance = self._instances[instance_id]
        _stamp(reversed(instance.pending_events))
        self._touch(instance_id)
        if instance_id in self._orchestration_in_flight:
            # CompleteOrchestratorTask looks again.
            return
        wakes = any(
            event.HasField("executionResumed") or event.HasField("executionTerminated")
            for event in instance.pending_events
        )
        if instance.status != pb.ORCHESTRATION_STATUS_SUSPENDED or wakes:
            super()._enqueue_orchestration(instance_id)

    def CompleteOrchestratorTask(  # noqa: N802 - the engine's name
        self, request: pb.OrchestratorResponse, context: grpc.ServicerContext
    ) -> pb.CompleteTaskResponse:
        """Apply what an orchestrator decided, then queue the instance again if events came in meanwhile."""
        with self._lock:
            instance = self._instances.get(request.instanceId)
            dispatched = [] if instance is None else list(instance.dispatched_events)
            response = super().CompleteOrchestratorTask(request, context)
            if instance is None:
                return response
            self._touch(instance.instance_id, history=True)
            _stamp(reversed(instance.history))
            if instance.status in TERMINAL:
                self._cancel_timers(instance.instance_id)
                self._report_to_parent(instance)
            else:
                for event in dispatched:
                    kind = event.WhichOneof("eventType")
                    if kind in ("executionSuspended", "executionResumed"):
                        # The platform shows the reason as the output.
                        instance.output = json.dumps(getattr(event, kind).input.value)
            if instance.pending_events:
                self._enqueue_orchestration(instance.instance_id)
            return response

    def CompleteActivityTask(  # noqa: N802 - the engine's name
        self, request: pb.ActivityResponse, context: grpc.ServicerContext
    ) -> pb.CompleteTaskResponse:
        """Record the result of an activity, unless the execution that scheduled it is over."""
        key = request.completionToken, request.taskId
        with self._lock:
            self._touched_activities.add(key)
            _, created_at = self._activities.pop(key, (None, None))
            owner = self._instances.get(request.instanceId)
            if owner is None or owner.created_at != created_at or owner.status in TERMINAL:
                return pb.CompleteTaskResponse()
            return super().CompleteActivityTask(request, context)

    def _process_schedule_task_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        super()._process_schedule_task_action(instance, action)
        key = str(instance.completion_token), action.id
        self._activities[key] = self._activity_queue[-1], instance.created_at
        self._touched_activities.add(key)

    def _process_create_timer_action(self, instance: OrchestrationInstance, action: pb.OrchestratorAction) -> None:
        fire_at = action.createTimer.fireAt.ToDatetime(tzinfo=UTC)
        instance.history.append(helpers.new_timer_created_event(action.id, fire_at))
        self._set_timer(instance, action.id, fire_at)

    def _set_timer(self, instance: OrchestrationInstance, timer_id: int, fire_at: datetime) -> None:
        def fire() -> None:
            if datetime.now(UTC) < fire_at:
                # The loop's clock is not the wall clock: it is only exact to its resolution, and stands still while
                # the machine sleeps.
                self._set_timer(instance, timer_id, fire_at)
                return
            del self._timers[instance.instance_id][timer_id]
            self._tell(instance, helpers.new_timer_fired_event(timer_id, fire_at))

        delay = min(max(0.0, (fire_at - datetime.now(UTC)).total_seconds()), self._longest_wait)
        self._timers.setdefault(instance.instance_id, {})[timer_id] = self._loop.call_later(delay, fire)

    def _tell(self, instance: OrchestrationInstance, event: pb.HistoryEvent) -> None:
        """Send a message to an instance; a finished one takes none."""
        if instance.status in TERMINAL:
            return
        with self._lock:
            instance.pending_events.append(event)
            instance.last_updated_at = datetime.now(UTC)
            self._enqueue_orchestration(instance.instance_id)

    def _cancel_timers(self, instance_id: str) -> None:
        for timer in self._timers.pop(instance_id, {}).values():
            timer.cancel()

    def _process_complete_orchestration_action(
        self, instance: OrchestrationInstance, complete_action: pb.CompleteOrchestrationAction
    ) -> None:
        self._cancel_timers(instance.instance_id)
        super()._process_complete_orchestration_action(instance, complete_action)
        # The events that start the next execution stand before those that came in meanwhile.
        for event in instance.pending_events:
            _stamp([event])

    def _watch_sub_orchestration(self, parent_instance_id: str, sub_instance_id: str, task_id: int) -> None:
        parent, child = self._instances[parent_instance_id], self._instances[sub_instance_id]
        child.tags = {**(parent.tags or {}), PARENT_ID: parent_instance_id}
        self._parents[sub_instance_id] = parent, task_id
        for event in child.pending_events:
            if event.HasField("executionStarted"):
                info = event.executionStarted.parentInstance
                info.taskScheduledId, info.orchestrationInstance.instanceId = task_id, parent_instance_id
                info.name.value, info.version.value = parent.name, parent.version or ""

    def _report_to_parent(self, instance: OrchestrationInstance) -> None:
        parent, task_id = self._parents.pop(instance.instance_id, (None, 0))
        if parent is None or parent is not self._instances.get(parent.instance_id):
            return
        if instance.status == pb.ORCHESTRATION_STATUS_COMPLETED:
            event = helpers.new_sub_orchestration_completed_event(task_id, instance.output)
        else:
            details = instance.failure_details or pb.TaskFailureDetails(
                errorType="terminated",
                errorMessage=f"The sub-orchestration {instance.instance_id!r} was terminated",
                stackTrace=wrappers_pb2.StringValue(value=""),
            )
            event = helpers.new_sub_orchestration_failed_event(task_id, Exception())
            event.subOrchestrationInstanceFailed.failureDetails.CopyFrom(details)
        self._tell(parent, event)
