"""The status of an orchestration instance as JSON, with its history in the shape that people read. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sandbox.host.durable.engine import PARENT_ID
from sandbox.host.durable.history import protocol_event
from sandbox.host.durable.task_hub import STATUS_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from durabletask.internal import orchestrator_service_pb2 as pb
    from durabletask.testing.in_memory_backend import OrchestrationInstance

# What started an activity or a sub-orchestration is told in the event that ends it, and nowhere else.
_STARTS = {"taskScheduled", "subOrchestrationInstanceCreated"}
_LEFT_OUT = {"orchestratorStarted", "orchestratorCompleted", *_STARTS}
_INTERNAL_FIELDS = frozenset(
    {"EventId", "IsPlayed", "TaskScheduledId", "TimerId", "Version", "OrchestrationInstance", "ParentInstance"}
    | {"Tags", "Name"}
)


def _value(text: str | None) -> Any:  # noqa: ANN401 - any JSON value
    return json.loads(text) if text else None


def _time(moment: datetime) -> str:
    """Write a time as the webhooks do: in whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _shaped(event: pb.HistoryEvent, starts: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Return one event with its type by name, without ids, and with what started it."""
    kind, plain = event.WhichOneof("eventType"), protocol_event(event, is_played=True)
    shaped = {key: value for key, value in plain.items() if key not in _INTERNAL_FIELDS}
    shaped["EventType"] = kind[0].upper() + kind[1:]
    start = starts.get(plain.get("TaskScheduledId", -1))
    if start is not None:
        shaped["ScheduledTime"] = start["Timestamp"].removesuffix("Z") + "+00:00"
        shaped["FunctionName"] = start["Name"]
        shaped |= {name: start[name] for name in ("InstanceId", "Input") if name in start}
    elif kind == "eventRaised":
        shaped["Name"] = plain["Name"]
    elif kind == "executionStarted":
        shaped["FunctionName"] = plain["Name"]
    elif kind == "executionCompleted":
        shaped["OrchestrationStatus"] = STATUS_NAMES[plain["OrchestrationStatus"]]
    elif kind == "executionTerminated":
        shaped["Input"] = _value(shaped["Input"])
    if "Result" in shaped:
        shaped["Result"] = _value(shaped["Result"])
    return shaped


def history_json(events: Sequence[pb.HistoryEvent], *, show_output: bool, show_input: bool) -> list[dict[str, Any]]:
    """Return a history in the shape of the status webhook; `show_output` shows results, `show_input` inputs."""
    starts = {
        event.eventId: protocol_event(event, is_played=True)
        for event in events
        if event.WhichOneof("eventType") in _STARTS
    }
    hidden = {name for name, is_shown in (("Result", show_output), ("Input", show_input)) if not is_shown}
    return [
        {name: value for name, value in _shaped(event, starts).items() if name not in hidden}
        for event in events
        if event.WhichOneof("eventType") not in _LEFT_OUT
    ]


def status_json(instance: OrchestrationInstance, *, show_input: bool = True) -> dict[str, Any]:
    """Return the status of an instance as the webhooks answer it."""
    tags = instance.tags or {}
    parent = {PARENT_ID: tags[PARENT_ID]} if PARENT_ID in tags else {}
    return {
        "name": instance.name,
        "version": instance.version,
        "instanceId": instance.instance_id,
        **parent,
        "runtimeStatus": STATUS_NAMES[instance.status],
        "input": _value(instance.input) if show_input else None,
        "customStatus": _value(instance.custom_status),
        "output": _value(instance.output),
        "createdTime": _time(instance.created_at),
        "lastUpdatedTime": _time(instance.last_updated_at),
    }
