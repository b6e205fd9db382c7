"""History events: the engine's protobuf forms as those of the Durable Functions protocol, and the orchestrator context.

An event of the protocol has its `EventType` by number, its `EventId` (-1 where it schedules nothing), `IsPlayed` and a
`Timestamp`; the other fields depend on the type. Payloads in the task hub are texts of JSON.
"""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from durabletask.internal import orchestrator_service_pb2 as pb
    from google.protobuf.timestamp_pb2 import Timestamp
    from google.protobuf.wrappers_pb2 import StringValue


def timestamp_text(timestamp: Timestamp) -> str:
    """Write a point in time as the protocol does: ISO 8601 in UTC, with microseconds and a `Z`."""
    return timestamp.ToDatetime(tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def text_or_none(value: StringValue) -> str | None:
    """Return the text of an optional payload; the engine keeps an absent one as empty text."""
    return value.value or None


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


def _completed(event: pb.ExecutionCompletedEvent) -> dict[str, Any]:
    result = text_or_none(event.result)
    return {"OrchestrationStatus": event.orchestrationStatus, "Result": result, "FailureDetails": None}


def _scheduled(event: pb.TaskScheduledEvent) -> dict[str, Any]:
    # The platform shows no inputs of activities and sub-orchestrations.
    return {"Name": event.name, "Version": "", "Input": None, "ParentTraceContext": None, "Tags": None}


def _result(event: pb.TaskCompletedEvent | pb.SubOrchestrationInstanceCompletedEvent) -> dict[str, Any]:
    return {"TaskScheduledId": event.taskScheduledId, "Result": text_or_none(event.result)}


def _failure(event: pb.TaskFailedEvent | pb.SubOrchestrationInstanceFailedEvent) -> dict[str, Any]:
    details = event.failureDetails
    return {
        "TaskScheduledId": event.taskScheduledId,
        "Reason": details.errorMessage,
        "Details": details.stackTrace.value,
        "FailureDetails": None,
    }


def _sub(event: pb.SubOrchestrationInstanceCreatedEvent) -> dict[str, Any]:
    return {"Name": event.name, "InstanceId": event.instanceId, "Input": None}


def _raised(event: pb.EventRaisedEvent) -> dict[str, Any]:
    return {"Name": event.name, "Input": text_or_none(event.input), "ParentTraceContext": None}


def _fired(event: pb.TimerFiredEvent) -> dict[str, Any]:
    return {"TimerId": event.timerId, "FireAt": timestamp_text(event.fireAt)}


# The number of each type of event in the protocol, and its fields. The protocol's name begins with a capital letter.
_TYPES: dict[str, tuple[int, Callable[[Any], dict[str, Any]]]] = {
    "executionStarted": (0, _started),
    "executionCompleted": (1, _completed),
    "executionTerminated": (3, lambda event: {"Input": text_or_none(event.input)}),
    "taskScheduled": (4, _scheduled),
    "taskCompleted": (5, _result),
    "taskFailed": (6, _failure),
    "subOrchestrationInstanceCreated": (7, _sub),
    "subOrchestrationInstanceCompleted": (8, _result),
    "subOrchestrationInstanceFailed": (9, _failure),
    "timerCreated": (10, lambda event: {"FireAt": timestamp_text(event.fireAt)}),
    "timerFired": (11, _fired),
    "orchestratorStarted": (12, lambda _event: {}),
    "orchestratorCompleted": (13, lambda _event: {}),
    "eventRaised": (15, _raised),
    "genericEvent": (17, lambda event: {"Data": text_or_none(event.data)}),
    "executionSuspended": (19, lambda event: {"Reason": event.input.value}),
    "executionResumed": (20, lambda event: {"Reason": event.input.value}),
}


def protocol_event(event: pb.HistoryEvent, *, is_played: bool) -> dict[str, Any]:
    """Return an event in the protocol's form."""
    kind = event.WhichOneof("eventType")
    number, fields = _TYPES[kind]
    return {
        "EventType": number,
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
            text = event.executionStarted.input.value
            value = json.loads(text) if text else None
            return value if isinstance(value, str) else text or None
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
        # Timers are never split below the second, and then into steps of the first.
        "longRunningTimerIntervalDuration": "3.00:00:00",
        "maximumShortTimerDuration": "6.00:00:00",
        "defaultHttpAsyncRequestSleepTimeMillseconds": 30_000,
    }
    return json.dumps(context)
