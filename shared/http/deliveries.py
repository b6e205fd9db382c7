"""Deliveries as a resource of the HTTP interface: one, a page of them, a history, and what can be done with one.

The second half is pure: how a delivery is shown, with its state, its links, its records, and its history as steps.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from shared.durable.durable_client import FINISHED, DurableClient, Instance
from shared.durable.inputs import records_of
from shared.durable.progress import from_ranges
from shared.durable.starting import keyed_id, prefix_of
from shared.durable.starting import redeliver as start_redelivery
from shared.errors import RefusedError
from shared.http.messages import Reply, Request
from shared.rules.record import IDEMPOTENCY_KEY, shown_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shared.durable.durable_client import Operation
    from shared.durable.inputs import DeliveryOptions
    from shared.resource import Resource

VERBS = ("cancel", "suspend", "resume", "redeliver")
STATES_OF = {
    "Pending": ("accepted",),
    "Running": ("delivering", "waiting"),
    "ContinuedAsNew": ("delivering", "waiting"),
    "Completed": ("delivered", "partly", "rejected", "expired"),
    "Terminated": ("cancelled",),
    "Suspended": ("suspended",),
    "Failed": ("failed",),
}
"""The states for each runtimeStatus of Durable; the first is that of a delivery which tells none of them."""
STATES = tuple(dict.fromkeys(chain.from_iterable(STATES_OF.values())))

TEXT, COUNT, TIME = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}
SHOWN: dict[str, Any] = {
    "recordId": TEXT,
    "outcome": {"description": "`exists`: the partner had the same content already.", "enum": ["created", "exists"]},
    "status": {"description": "The partner's HTTP status.", "type": "integer", "minimum": 100, "maximum": 599},
    "reason": {"description": "A sentence for people.", "type": "string"},
    "problem": {"description": "The partner's problem details (RFC 9457).", "type": "object"},
    "uncertain": {"description": "The partner may have stored the record all the same.", "type": "boolean"},
    "misconfigured": {"description": "It waits until somebody mends the app's settings.", "type": "boolean"},
    "differing": {"type": "array", "items": TEXT},
    "recordsPerSecond": {"type": "number"},
    "limit": {"description": "Requests per second that the partner was found to allow.", "type": "number"},
    **dict.fromkeys(("nextAttempt", "estimatedEnd"), TIME),
    **dict.fromkeys(("attempts", "total", "created", "exists", "rejected", "expired", "pending"), COUNT),
}
"""The members that a delivery shows of its custom status or output, and their JSON Schemas."""

MAX_PAGE = 100
_STATE = f"({'|'.join(STATES)})"
FILTERS = {
    "state": (f"{_STATE}(,{_STATE})*", f"one or more of {', '.join(STATES)}, separated by commas"),
    "key": (IDEMPOTENCY_KEY.pattern, "1 to 255 visible ASCII characters"),
    "top": (f"[1-9][0-9]?|{MAX_PAGE}", f"a whole number from 1 to {MAX_PAGE}"),
    # Durable's continuation tokens are base64. They become a header.
    "token": ("[A-Za-z0-9+/=_.-]{1,4000}", "that of a nextLink"),
}
"""What some parameters of a list must match, and what they must be."""

_SINCE = timedelta(days=1)
# Azure Storage knows no earlier time.
_EARLIEST = datetime(1601, 1, 1, tzinfo=UTC)
# Durable's ids may have more characters, but these cannot break out of a URL, as dots alone can.
_INSTANCE_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_@:.-]{1,100}")
# Durable's operation, and the states that it is for.
_ACTIONS: dict[str, tuple[Operation, tuple[str, ...]]] = {
    "cancel": ("terminate", ("accepted", "delivering", "waiting", "suspended")),
    "suspend": ("suspend", ("accepted", "delivering", "waiting")),
    "resume": ("resume", ("suspended",)),
}


async def get_delivery(request: Request, client: DurableClient, resources: Sequence[Resource]) -> Reply:
    """Show a delivery: 200 when it has finished, 202 while it goes on."""
    wants_records = request.flag("records", default=False)
    instance, resource = await _find(request, client, resources, show_input=wants_records)
    delivery = view(request, instance, resource.name)
    if wants_records and "total" in delivery:
        delivery["records"] = record_states(instance, resource)
    return Reply.json(200, delivery) if instance.status in FINISHED else going_on(delivery)


async def list_deliveries(
    request: Request, client: DurableClient, resources: Sequence[Resource], now: datetime | None = None
) -> Reply:
    """Return one page of deliveries, the newest first, with a link to the next one."""
    now = now or datetime.now(UTC)
    asked = request.query
    for name, (pattern, rule) in FILTERS.items():
        if name in asked and not re.fullmatch(pattern, asked[name]):
            raise RefusedError("malformed", f"{name} must be {rule}.")
    since, until = _moment(asked, "from") or now - _SINCE, _moment(asked, "to")
    states = set(asked["state"].split(",")) if "state" in asked else set(STATES)
    named = [each for each in resources if asked.get("resource", "") in {"", each.name, each.route}]
    if not named:
        raise RefusedError("malformed", f"resource must be one of {', '.join(each.name for each in resources)}.")
    token = None
    if "key" in asked:
        looked_up = [await client.find(keyed_id(resource, asked["key"])) for resource in named]
        found = [instance for instance in looked_up if instance]
    else:
        statuses = (status for status, ours in STATES_OF.items() if "state" in asked and states & set(ours))
        found, token = await client.list_instances(
            asked.get("token"),
            runtimeStatus=",".join(statuses),
            createdTimeFrom=since,
            createdTimeTo=until,
            instanceIdPrefix=prefix_of(named[0]) if len(named) == 1 else None,
            top=int(asked.get("top", MAX_PAGE)),
        )
    shown = [
        view(request, instance, resource.name, is_whole=False)
        for instance in sorted(found, key=lambda each: each.created, reverse=True)
        if (resource := _resource_of(instance, named)) and state_of(instance) in states
    ]
    page: dict[str, Any] = {"deliveries": shown}
    if token:
        # The same page of the same moment: a default `from` must not move on.
        query = {name: value for name, value in asked.items() if name != "code"}
        query |= {"from": since.isoformat(), "token": token}
        page["nextLink"] = f"{request.api_root}/deliveries?{urlencode(query)}"
    return Reply.json(200, page)


async def get_history(request: Request, client: DurableClient, resources: Sequence[Resource]) -> Reply:
    """Show the steps of a delivery: attempts and waits with their times."""
    instance, _ = await _find(request, client, resources, show_history=True)
    events = events_of(instance.history)
    return Reply.json(200, {"id": instance.id, "state": state_of(instance), "events": events})


async def act(request: Request, client: DurableClient, resources: Sequence[Resource], verb: str) -> Reply:
    """Cancel, suspend or resume a delivery."""
    instance, resource = await _find(request, client, resources)
    state, (operation, possible) = state_of(instance), _ACTIONS[verb]
    if state not in possible:
        fitting = " or ".join(possible)
        raise RefusedError("wrong-state", f"The delivery is {state}; {verb} is for one that is {fitting}.")
    if not await client.manage(operation, instance.id, f"{verb} through the deliveries API"):
        raise RefusedError("wrong-state", "The delivery has changed its state: look at it again.")
    return accepted(request, instance.id, resource.name, state)


async def redeliver(
    request: Request,
    client: DurableClient,
    resources: Sequence[Resource],
    options: Callable[[Resource], DeliveryOptions],
    call_timeout: Callable[[Resource], float],
) -> Reply:
    """Start a delivery with what a finished one has left undelivered; asking again starts nothing new."""
    instance, resource = await _find(request, client, resources, show_input=True)
    instance_id = await start_redelivery(client, instance, resource, options(resource), call_timeout(resource))
    return accepted(request, instance_id, resource.name)


async def _find(
    request: Request, client: DurableClient, resources: Sequence[Resource], **options: bool
) -> tuple[Instance, Resource]:
    """Return the delivery that the path names, and its record type; `options` are those of `DurableClient.find`."""
    id_ = request.params["id"]
    instance = await client.find(id_, **options) if _INSTANCE_ID.fullmatch(id_) else None
    resource = _resource_of(instance, resources) if instance else None
    if instance is None or resource is None:
        raise RefusedError("not-found", "There is no delivery with this id.")
    return instance, resource


def _resource_of(instance: Instance, resources: Sequence[Resource]) -> Resource | None:
    return next((each for each in resources if instance.name in {each.deliver, each.deliver_batch}), None)


def _moment(asked: Mapping[str, str], name: str) -> datetime | None:
    if not asked.get(name):
        return None
    try:
        # The plus of an offset that was not encoded arrives as a space.
        moment = datetime.fromisoformat(asked[name].replace(" ", "+"))
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        moment = _EARLIEST
    if moment <= _EARLIEST:
        raise RefusedError("malformed", f"{name} must be a time such as 2026-11-29T08:00:00Z.") from None
    return moment


def state_of(instance: Instance) -> str:
    """Return the state of a delivery."""
    possible = STATES_OF.get(instance.status, ("failed",))
    told = instance.told.get("state")
    return told if told in possible else possible[0]


def accepted(request: Request, instance_id: str, resource: str, state: str = "accepted") -> Reply:
    """Return 202 with the links under which a delivery can be watched and managed."""
    return going_on({"id": instance_id, "resource": resource, "state": state, **_links(request, instance_id)})


def going_on(content: Mapping[str, Any]) -> Reply:
    """Return 202 with a delivery, and where and when to look at it again: as Durable's own answers do, after 5 s."""
    return Reply.json(202, content, {"location": content["statusQueryGetUri"], "retry-after": "5"})


def view(request: Request, instance: Instance, resource: str, *, is_whole: bool = True) -> dict[str, Any]:
    """Return a delivery as the interface shows it; in a list without Durable's custom status and output."""
    state = state_of(instance)
    told = instance.told
    shown = {name: told[name] for name in SHOWN if name in told}
    if state not in {"waiting", "suspended"}:
        shown.pop("nextAttempt", None)
    if instance.status in {"Terminated", "Suspended", "Failed"} and isinstance(instance.output, str):
        shown["reason"] = instance.output
    delivery = {
        "id": instance.id,
        "resource": resource,
        "state": state,
        "createdTime": instance.created,
        "lastUpdatedTime": instance.updated,
        "runtimeStatus": instance.status,
        **shown,
        **_links(request, instance.id),
    }
    if is_whole:
        delivery |= {"customStatus": instance.custom_status, "output": instance.output}
        delivery |= {"rejections": told["rejections"]} if "rejections" in told else {}
    return delivery


def record_states(instance: Instance, resource: Resource) -> list[dict[str, Any]]:
    """Return what became of each record of a batch, whose instance has its input."""
    told = instance.told
    states: dict[int, str] = {}
    for state in ("expired", "rejected", "exists", "created"):
        states |= dict.fromkeys(from_ranges(told.get(f"{state}Records", "")), state)
    # A batch that goes on says why only when it has finished.
    reasons = {each["index"]: each for each in told.get("rejections", ())}
    return [
        {"index": index, "recordId": shown_id(resource, text), "state": states.get(index, "pending")}
        | reasons.get(index, {})
        for index, text in enumerate(records_of(instance.input))
    ]


def events_of(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return Durable's history as steps; an attempt and a wait have a start (`time`) and an `end`."""
    events = []
    for step in history:
        kind, time = step["EventType"], step["Timestamp"]
        if kind in {"TaskCompleted", "TaskFailed"}:
            events.append(_lasting("attempt", step["ScheduledTime"], time) | _attempt(step))
        elif kind == "TimerCreated":
            events.append(_lasting("wait", time, step["FireAt"]))
        elif kind in _STEPS:
            reason = step.get("Input" if kind == "ExecutionTerminated" else "Reason")
            events.append({"type": _STEPS[kind], "time": time} | ({"reason": str(reason)} if reason else {}))
    return events


_STEPS = {
    "ExecutionStarted": "started",
    "ExecutionSuspended": "suspended",
    "ExecutionResumed": "resumed",
    "ExecutionTerminated": "cancelled",
    "ExecutionCompleted": "finished",
    "GenericEvent": "rewound",
}


def _lasting(kind: str, start: str, end: str) -> dict[str, Any]:
    lasted = datetime.fromisoformat(end) - datetime.fromisoformat(start)
    return {"type": kind, "time": start, "end": end, "seconds": round(lasted.total_seconds(), 3)}


def _attempt(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an activity has told of its attempt; of a batch, what is most worth a look."""
    if step["EventType"] == "TaskFailed":
        return {"outcome": "failed", "reason": str(step.get("Reason", ""))[:400]}
    told = step.get("Result")
    if not isinstance(told, dict):
        return {}
    if "outcome" not in told:
        outcomes = [each["outcome"] for each in told.get("outcomes", {}).values()]
        worst = next((name for name in ("deferred", "rejected", "created", "exists") if name in outcomes), "deferred")
        told = {**told, "outcome": worst, "records": len(outcomes)}
    return {name: told[name] for name in ("outcome", "status", "reason", "records") if name in told}


def _links(request: Request, instance_id: str) -> dict[str, str]:
    """Return the links of a delivery. They are the app's own, and carry no key."""
    root = f"{request.api_root}/deliveries/{instance_id}"
    posts = {f"{verb}PostUri": f"{root}/{verb}" for verb in VERBS}
    return {"statusQueryGetUri": root, "historyGetUri": f"{root}/history", **posts}
