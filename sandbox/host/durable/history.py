"""History events: the engine's protobuf forms as those of the Durable Functions protocol, and the orchestrator context.

An event of the protocol has its `EventType` by number, its `EventId` (-1 where it schedules nothing), `IsPlayed` and a
`Timestamp`; the other fields depend on the type. Payloads in the task hub are texts of JSON.
"""

from __future__ import annotations

import json
from datetime import UTC
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from durabletask.internal import orchestrator_service_pb2 as pb
    from google.protobuf.timestamp_pb2 import Timestamp
    from google.protobuf.wrappers_pb2 import StringValue


class EventType(IntEnum):
    """The types of history events, numbered as in the protocol."""

    ExecutionStarted = 0
    ExecutionCompleted = 1
    ExecutionTerminated = 3
    TaskScheduled = 4
    TaskCompleted = 5
    TaskFailed = 6
    SubOrchestrationInstanceCreated = 7
    SubOrchestrationInstanceCompleted = 8
    SubOrchestrationInstanceFailed = 9
    TimerCreated = 10
    TimerFired = 11
    OrchestratorStarted = 12
    OrchestratorCompleted = 13
    EventRaised = 15
    GenericEvent = 17
    ExecutionSuspended = 19
    ExecutionResumed = 20


# As the extension sends them: timers are never split below the first, and then into steps of the second.
MAXIMUM_SHORT_TIMER = "6.00:00:00"
LONG_TIMER_INTERVAL = "3.00:00:00"
HTTP_POLL_MILLISECONDS = 30_000


def timestamp_text(timestamp: Timestamp) -> str:
    """Write a point in time as the protocol does: ISO 8601 in UTC, with microseconds and a `Z`."""
    return timestamp.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def text_or_none(value: StringValue) -> str | None:
    """Return the text of an optional payload; the engine keeps an absent one as empty text."""
    return value.value or None


def payload(value: StringValue) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value of an optional payload, None where it is absent."""
    return json.loads(value.value) if value.value else None


def _parent(parent: pb.ParentInstanceInfo) -> dict[str, Any]:
    return {
        "Name": parent.name.value,
        "OrchestrationInstance": {"InstanceId": parent.orchestrationInstance.instanceId, "ExecutionId": None},
        "TaskScheduleId": parent.taskScheduledId,
        "Version": text_or_none(parent.version),
    }


def _started(event: pb.ExecutionStartedEvent) -> dict[str, Any]:
    instance = event.orchestrationInstance
    return {
        "OrchestrationInstance": {"InstanceId": instance.instanceId, "ExecutionId": text_or_none(instance.executionId)},
        "ParentInstance": _parent(event.parentInstance) if event.HasField("parentInstance") else None,
        "Name": event.name,
        "Version": text_or_none(event.version),
        "Input": text_or_none(event.input),
        "Tags": None,
        "Correlation": None,
        "ParentTraceContext": None,
        "ScheduledStartTime": None,
        # Only what a client starts has tags here, and a generation there.
        "Generation": 0 if event.tags else None,
        "GenerateNewTrace": False,
    }


def _failure(event: pb.TaskFailedEvent | pb.SubOrchestrationInstanceFailedEvent) -> dict[str, Any]:
    details = event.failureDetails
    return {
        "TaskScheduledId": event.taskScheduledId,
        "Reason": details.errorMessage,
        "Details": details.stackTrace.value,
        "FailureDetails": None,
    }


def _result(event: pb.TaskCompletedEvent | pb.SubOrchestrationInstanceCompletedEvent) -> dict[str, Any]:
    return {"TaskScheduledId": event.taskScheduledId, "Result": text_or_none(event.result)}


def _reason(event: pb.ExecutionSuspendedEvent | pb.ExecutionResumedEvent) -> dict[str, Any]:
    return {"Reason": event.input.value}


def _nothing(_event: object) -> dict[str, Any]:
    return {}


# The platform shows no inputs of activities and sub-orchestrations.
_FIELDS: dict[str, tuple[EventType, Callable[[Any], dict[str, Any]]]] = {
    "executionStarted": (EventType.ExecutionStarted, _started),
    "executionCompleted": (
        EventType.ExecutionCompleted,
        lambda event: {
            "OrchestrationStatus": event.orchestrationStatus,
            "Result": text_or_none(event.result),
            "FailureDetails": None,
        },
    ),
    "executionTerminated": (EventType.ExecutionTerminated, lambda event: {"Input": text_or_none(event.input)}),
    "taskScheduled": (
        EventType.TaskScheduled,
        lambda event: {"Name": event.name, "Version": "", "Input": None, "ParentTraceContext": None, "Tags": None},
    ),
    "taskCompleted": (EventType.TaskCompleted, _result),
    "taskFailed": (EventType.TaskFailed, _failure),
    "subOrchestrationInstanceCreated": (
        EventType.SubOrchestrationInstanceCreated,
        lambda event: {"Name": event.name, "InstanceId": event.instanceId, "Input": None},
    ),
    "subOrchestrationInstanceCompleted": (EventType.SubOrchestrationInstanceCompleted, _result),
    "subOrchestrationInstanceFailed": (EventType.SubOrchestrationInstanceFailed, _failure),
    "timerCreated": (EventType.TimerCreated, lambda event: {"FireAt": timestamp_text(event.fireAt)}),
    "timerFired": (
        EventType.TimerFired,
        lambda event: {"TimerId": event.timerId, "FireAt": timestamp_text(event.fireAt)},
    ),
    "orchestratorStarted": (EventType.OrchestratorStarted, _nothing),
    "orchestratorCompleted": (EventType.OrchestratorCompleted, _nothing),
    "eventRaised": (
        EventType.EventRaised,
        lambda event: {"Name": event.name, "Input": text_or_none(event.input), "ParentTraceContext": None},
    ),
    "genericEvent": (EventType.GenericEvent, lambda event: {"Data": text_or_none(event.data)}),
    "executionSuspended": (EventType.ExecutionSuspended, _reason),
    "executionResumed": (EventType.ExecutionResumed, _reason),
}


def protocol_event(event: pb.HistoryEvent, *, is_played: bool) -> dict[str, Any]:
    """Return an event in the protocol's form."""
    kind = event.WhichOneof("eventType")
    event_type, fields = _FIELDS[kind]
    return {
        "EventType": int(event_type),
        "EventId": event.eventId,
        "IsPlayed": is_played,
        "Timestamp": timestamp_text(event.timestamp),
        **fields(getattr(event, kind)),
    }


def orchestrator_input(history: Iterable[pb.HistoryEvent]) -> str | None:
    """Return the text that the orchestrator decodes as its input.

    A payload that is a JSON string is handed over as its text, for the client library starts instances with a JSON
    string that holds JSON.
    """
    for event in history:
        if event.HasField("executionStarted"):
            text = text_or_none(event.executionStarted.input)
            value = payload(event.executionStarted.input)
            return value if isinstance(value, str) else text
    return None


def orchestrator_context(
    past: Sequence[pb.HistoryEvent],
    new: Sequence[pb.HistoryEvent],
    *,
    instance_id: str,
    parent_instance_id: str | None,
) -> str:
    """Return what an orchestrator function receives: its whole history and its input, as JSON."""
    history = [protocol_event(event, is_played=True) for event in past]
    history += [protocol_event(event, is_played=False) for event in new]
    context = {
        "history": history,
        "input": orchestrator_input((*past, *new)),
        "instanceId": instance_id,
        "isReplaying": bool(past),
        "parentInstanceId": parent_instance_id,
        "sourceInstanceId": None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 3,
        "longRunningTimerIntervalDuration": LONG_TIMER_INTERVAL,
        "maximumShortTimerDuration": MAXIMUM_SHORT_TIMER,
        "defaultHttpAsyncRequestSleepTimeMillseconds": HTTP_POLL_MILLISECONDS,
    }
    return json.dumps(context)
