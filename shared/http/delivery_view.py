"""How a delivery is shown: its state, its members, its links, and its history as steps. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from shared.durable.inputs import records_of
from shared.durable.progress import from_ranges
from shared.http.request import Reply
from shared.rules.record import shown_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.durable.durable_client import Instance
    from shared.http.request import Request
    from shared.resource import Resource

POLL_AFTER = 5
"""Seconds until a caller looks again, as Durable's own status answers say."""

State = Literal[
    "accepted",
    "delivering",
    "waiting",
    "delivered",
    "partly",
    "rejected",
    "expired",
    "cancelled",
    "suspended",
    "failed",
]
STATES = get_args(State)
# The state of a delivery whose custom status or output tells none.
_OF_RUNTIME = {
    "Pending": "accepted",
    "Running": "delivering",
    "ContinuedAsNew": "delivering",
    "Terminated": "cancelled",
    "Canceled": "cancelled",
    "Suspended": "suspended",
    "Failed": "failed",
    "Completed": "delivered",
}
# What a delivery shows of its custom status or output; the rest stays in there.
_SHOWN = (
    "recordId",
    "outcome",
    "status",
    "attempts",
    "nextAttempt",
    "reason",
    "problem",
    "uncertain",
    "differing",
    "total",
    "created",
    "exists",
    "rejected",
    "expired",
    "pending",
    "recordsPerSecond",
    "limit",
    "estimatedEnd",
)


def state_of(instance: Instance) -> str:
    """Return the state of a delivery."""
    told = {"Running": instance.custom_status, "ContinuedAsNew": instance.custom_status, "Completed": instance.output}
    said = told.get(instance.status)
    state = said.get("state") if isinstance(said, dict) else None
    return str(state) if state in STATES else _OF_RUNTIME.get(instance.status, "failed")


def links(request: Request, instance_id: str) -> dict[str, str]:
    """Return the links of a delivery. They are the app's own, and carry no key."""
    root = f"{request.api_root}/deliveries/{instance_id}"
    return {
        "statusQueryGetUri": root,
        "historyGetUri": f"{root}/history",
        **{f"{verb}PostUri": f"{root}/{verb}" for verb in ("cancel", "suspend", "resume", "redeliver")},
    }


def accepted(request: Request, instance_id: str, resource: str, state: str = "accepted") -> Reply:
    """Return 202 with the links under which a delivery can be watched and managed."""
    content = {"id": instance_id, "resource": resource, "state": state, **links(request, instance_id)}
    return Reply.json(202, content, while_it_goes_on(content["statusQueryGetUri"]))


def view(request: Request, instance: Instance, resource: str, *, is_whole: bool = True) -> dict[str, Any]:
    """Return a delivery as the interface shows it; in a list without Durable's custom status and output."""
    state = state_of(instance)
    told: dict[str, Any] = {}
    for source in (instance.custom_status, instance.output):
        told |= source if isinstance(source, dict) else {}
    shown = {name: told[name] for name in _SHOWN if name in told}
    if state not in {"waiting", "suspended"}:
        shown.pop("nextAttempt", None)
    if instance.status in {"Terminated", "Suspended", "Failed"} and isinstance(instance.output, str):
        shown["reason"] = instance.output
    delivery = {
        "id": instance.id,
        "resource": resource,
        "state": state,
        "createdTime": _time(instance.created),
        "lastUpdatedTime": _time(instance.updated),
        "runtimeStatus": instance.status,
        **shown,
    }
    if is_whole:
        delivery |= {"customStatus": instance.custom_status, "output": instance.output}
        if isinstance(instance.output, dict) and "rejections" in instance.output:
            delivery["rejections"] = instance.output["rejections"]
    return delivery | links(request, instance.id)


def record_states(instance: Instance, resource: Resource) -> list[dict[str, Any]]:
    """Return what became of each record of a batch, whose instance has its input."""
    told: dict[str, Any] = instance.custom_status if isinstance(instance.custom_status, dict) else {}
    created, exists = (from_ranges(told.get(name, "")) for name in ("createdRecords", "existsRecords"))
    output = instance.output if isinstance(instance.output, dict) else {}
    undelivered = {each["index"]: each for each in output.get("rejections", ())}
    rejected, expired = (from_ranges(told.get(name, "")) for name in ("rejectedRecords", "expiredRecords"))
    states = []
    for index, text in enumerate(records_of(instance.input)):
        record: dict[str, Any] = {"index": index, "recordId": shown_id(resource, text), "state": "pending"}
        if index in created or index in exists:
            record["state"] = "created" if index in created else "exists"
        elif index in undelivered:
            record |= undelivered[index]
        elif index in rejected or index in expired:
            # A batch that goes on says why only when it has finished.
            record["state"] = "rejected" if index in rejected else "expired"
        states.append(record)
    return states


def events_of(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return Durable's history as steps; an attempt and a wait have a start (`time`) and an `end`."""
    events: list[dict[str, Any]] = []
    for step in history:
        kind, time = step.get("EventType"), step.get("Timestamp")
        if kind in {"TaskCompleted", "TaskFailed"}:
            events.append(_attempt(step))
        elif kind == "TimerCreated":
            events.append({"type": "wait", "time": time, "end": step.get("FireAt")})
        elif kind == "TimerFired":
            wait = next((each for each in events if each["type"] == "wait" and "fired" not in each), None)
            if wait is not None:
                wait |= {"fired": True, "end": time}
        elif kind in _STEPS:
            reason = step.get("Reason") or (step.get("Input") if kind == "ExecutionTerminated" else None)
            events.append({"type": _STEPS[kind], "time": time, **({"reason": str(reason)} if reason else {})})
    for event in events:
        event.pop("fired", None)
        if event.get("end"):
            event["seconds"] = round((_parsed(event["end"]) - _parsed(event["time"])).total_seconds(), 3)
    return events


_STEPS = {
    "ExecutionStarted": "started",
    "ExecutionSuspended": "suspended",
    "ExecutionResumed": "resumed",
    "ExecutionTerminated": "cancelled",
    "ExecutionCompleted": "finished",
    "GenericEvent": "rewound",
}


def _attempt(step: Mapping[str, Any]) -> dict[str, Any]:
    event = {"type": "attempt", "time": step.get("ScheduledTime") or step.get("Timestamp"), "end": step["Timestamp"]}
    result = step.get("Result")
    if step["EventType"] == "TaskFailed":
        return event | {"outcome": "failed", "reason": str(step.get("Reason", ""))[:400]}
    if isinstance(result, dict) and "outcome" in result:
        return event | {name: result[name] for name in ("outcome", "status", "reason") if name in result}
    if isinstance(result, dict):
        outcomes = [each["outcome"] for each in result.get("outcomes", {}).values()]
        worst = next((name for name in ("deferred", "rejected", "created", "exists") if name in outcomes), "deferred")
        reason = {"reason": result["reason"]} if result.get("reason") else {}
        return {**event, "outcome": worst, "records": len(outcomes), **reason}
    return event


def _parsed(time: str) -> datetime:
    moment = datetime.fromisoformat(time)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None


def while_it_goes_on(url: str) -> dict[str, str]:
    """Return the headers that tell a caller where to look again, and when."""
    return {"location": url, "retry-after": str(POLL_AFTER)}
