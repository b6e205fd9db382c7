"""The status of an orchestration instance as JSON, with its history in the shape that people read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.host.durable.history import EventType, protocol_event
from sandbox.host.durable.instances import STATUS_NAMES
from sandbox.host.json_response import payload_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from durabletask.internal import orchestrator_service_pb2 as pb

    from sandbox.host.durable.instances import Instance

# What started an activity or a sub-orchestration is told in the event that ends it, and nowhere else.
_STARTS = {
    EventType.TaskCompleted: EventType.TaskScheduled,
    EventType.TaskFailed: EventType.TaskScheduled,
    EventType.SubOrchestrationInstanceCompleted: EventType.SubOrchestrationInstanceCreated,
    EventType.SubOrchestrationInstanceFailed: EventType.SubOrchestrationInstanceCreated,
}
_LEFT_OUT = frozenset({EventType.OrchestratorStarted, EventType.OrchestratorCompleted, *_STARTS.values()})
_INTERNAL_FIELDS = frozenset(
    {"EventId", "IsPlayed", "TaskScheduledId", "TimerId", "Version", "OrchestrationInstance", "ParentInstance"}
    | {"Tags", "Name"}
)


def _value(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    return None if text is None else payload_value(text)


def _time(moment: datetime) -> str:
    """Write a time as the webhooks do: in whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _shaped_event(event: dict[str, Any], start: dict[str, Any] | None, *, show_output: bool) -> dict[str, Any]:
    """Return one event with its type by name, without ids, and with what started it."""
    kind = EventType(event["EventType"])
    shaped = {key: value for key, value in event.items() if key not in _INTERNAL_FIELDS}
    shaped["EventType"] = kind.name
    if "OrchestrationStatus" in event:
        shaped["OrchestrationStatus"] = STATUS_NAMES[event["OrchestrationStatus"]]
    if start is not None:
        scheduled = start["Timestamp"].removesuffix("Z") + "+00:00"
        shaped |= {"ScheduledTime": scheduled, "FunctionName": start["Name"], "Input": start["Input"]}
        if "InstanceId" in start:
            shaped["InstanceId"] = start["InstanceId"]
    elif "Name" in event:
        shaped["Name" if kind == EventType.EventRaised else "FunctionName"] = event["Name"]
    if "Result" in shaped:
        if show_output:
            shaped["Result"] = _value(shaped["Result"])
        else:
            del shaped["Result"]
    if kind == EventType.ExecutionTerminated:
        shaped["Input"] = _value(shaped["Input"])
    return shaped


def history_json(events: Sequence[pb.HistoryEvent], *, show_output: bool, show_input: bool) -> list[dict[str, Any]]:
    """Return a history in the shape of the status webhook; `show_output` shows results, `show_input` inputs."""
    plain = [protocol_event(event, is_played=True) for event in events]
    starts = {(event["EventType"], event["EventId"]): event for event in plain if event["EventId"] >= 0}
    shaped = [
        _shaped_event(
            event,
            starts.get((_STARTS.get(event["EventType"], -1), event.get("TaskScheduledId", -1))),
            show_output=show_output,
        )
        for event in plain
        if event["EventType"] not in _LEFT_OUT
    ]
    if not show_input:
        for event in shaped:
            event.pop("Input", None)
    return shaped


def status_json(instance: Instance, *, show_input: bool = True) -> dict[str, Any]:
    """Return the status of an instance as the webhooks answer it."""
    parent = {} if instance.parent_instance_id is None else {"parentInstanceId": instance.parent_instance_id}
    return {
        "name": instance.name,
        "version": instance.version,
        "instanceId": instance.instance_id,
        **parent,
        "runtimeStatus": instance.status,
        "input": _value(instance.input) if show_input else None,
        "customStatus": _value(instance.custom_status),
        "output": _value(instance.output),
        "createdTime": _time(instance.created_at),
        "lastUpdatedTime": _time(instance.last_updated_at),
    }
