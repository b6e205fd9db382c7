"""The status of an orchestration instance as JSON, with its history in the shape that people read. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sandbox.host.durable.history import EventType, protocol_event
from sandbox.host.durable.instances import STATUS_NAMES
from sandbox.host.durable.payloads import payload_value

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from durabletask.internal import orchestrator_service_pb2 as pb

    from sandbox.host.durable.instances import Instance

# What started an activity, a sub-orchestration or a timer is told in the event that ends it.
_STARTS = {
    EventType.TaskCompleted: EventType.TaskScheduled,
    EventType.TaskFailed: EventType.TaskScheduled,
    EventType.SubOrchestrationInstanceCompleted: EventType.SubOrchestrationInstanceCreated,
    EventType.SubOrchestrationInstanceFailed: EventType.SubOrchestrationInstanceCreated,
}
_BOOKKEEPING = frozenset({EventType.OrchestratorStarted, EventType.OrchestratorCompleted})
_INTERNAL_FIELDS = frozenset(
    {"EventId", "IsPlayed", "TaskScheduledId", "TimerId", "Version", "OrchestrationInstance", "ParentInstance", "Name"}
)
_PAYLOADS = ("Input", "Result")


def _value(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    return None if text is None else payload_value(text)


def _time(moment: datetime) -> str:
    """Write a time as the webhooks do: in whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _shaped_event(event: dict[str, Any], start: dict[str, Any] | None, hidden: set[str]) -> dict[str, Any]:
    """Give one event with its type by name, without ids, and with what started it."""
    kind = EventType(event["EventType"])
    shaped = {key: value for key, value in event.items() if key not in _INTERNAL_FIELDS and key not in hidden}
    shaped["EventType"] = kind.name
    if "OrchestrationStatus" in event:
        shaped["OrchestrationStatus"] = STATUS_NAMES[event["OrchestrationStatus"]]
    if start is not None:
        shaped |= {"ScheduledTime": start["Timestamp"], "FunctionName": start["Name"]}
        if "Input" not in hidden:
            shaped["Input"] = start["Input"]
    elif "Name" in event:
        shaped["Name" if kind == EventType.EventRaised else "FunctionName"] = event["Name"]
    for name in _PAYLOADS:
        if isinstance(shaped.get(name), str):
            shaped[name] = payload_value(shaped[name])
    return shaped


def history_json(events: Sequence[pb.HistoryEvent], *, show_output: bool, show_input: bool) -> list[dict[str, Any]]:
    """Give a history in the shape of the status webhook.

    Event types stand by name; OrchestratorStarted and OrchestratorCompleted are left out; an event that schedules an
    activity or sub-orchestration is folded into the one that ends it. `show_output` shows results, `show_input` inputs.
    """
    hidden = ({"Result"} if not show_output else set()) | ({"Input"} if not show_input else set())
    plain = [protocol_event(event, is_played=True) for event in events]
    starts = {(event["EventType"], event["EventId"]): event for event in plain if event["EventId"] >= 0}
    folded: set[tuple[int, int]] = set()
    shaped = []
    for event in plain:
        key = (_STARTS.get(event["EventType"], -1), event.get("TaskScheduledId", -1))
        start = starts.get(key)
        if start is not None:
            folded.add(key)
        shaped.append((event, start))
    return [
        _shaped_event(event, start, hidden)
        for event, start in shaped
        if event["EventType"] not in _BOOKKEEPING and (event["EventType"], event["EventId"]) not in folded
    ]


def status_json(instance: Instance, *, show_input: bool = True) -> dict[str, Any]:
    """Give the status of an instance as the webhooks answer it."""
    return {
        "name": instance.name,
        "instanceId": instance.instance_id,
        "runtimeStatus": instance.status,
        "input": _value(instance.input) if show_input else None,
        "customStatus": _value(instance.custom_status),
        "output": _value(instance.output),
        "createdTime": _time(instance.created_at),
        "lastUpdatedTime": _time(instance.last_updated_at),
    }
