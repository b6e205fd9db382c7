"""Deliveries as a resource of the HTTP interface: one, a page of them, a history, and what can be done with one."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from shared.durable.durable_client import FINISHED
from shared.durable.starting import keyed_id, prefix_of
from shared.durable.starting import redeliver as start_redelivery
from shared.http.delivery_view import STATES, accepted, events_of, record_states, state_of, view, while_it_goes_on
from shared.http.intake import flag
from shared.http.problem import refuse
from shared.http.request import Reply
from shared.rules.text import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shared.durable.durable_client import DurableClient, Instance, Operation
    from shared.durable.inputs import DeliveryOptions
    from shared.http.request import Request
    from shared.resource import Resource

MAX_PAGE = 100
PAGE_PATTERN = r"[A-Za-z0-9+/=_.-]{1,4000}"
"""Durable's continuation tokens are base64."""

_SINCE = timedelta(days=1)
# Azure Storage knows no earlier time.
_EARLIEST = datetime(1601, 1, 1, tzinfo=UTC)
# Durable's runtimeStatus for each of our states.
_RUNTIME = {
    "accepted": "Pending",
    "delivering": "Running",
    "waiting": "Running",
    "delivered": "Completed",
    "partly": "Completed",
    "rejected": "Completed",
    "expired": "Completed",
    "cancelled": "Terminated",
    "suspended": "Suspended",
    "failed": "Failed",
}
# Durable's ids may have more characters, but these cannot break out of a URL, as dots alone can.
_INSTANCE_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_@:.-]{1,100}")
_TOKEN = re.compile(PAGE_PATTERN)
_OPERATIONS: dict[str, Operation] = {"cancel": "terminate", "suspend": "suspend", "resume": "resume"}
_ACTIONS = {
    "cancel": ("accepted", "delivering", "waiting", "suspended"),
    "suspend": ("accepted", "delivering", "waiting"),
    "resume": ("suspended",),
}


async def get_delivery(request: Request, client: DurableClient, resources: Sequence[Resource]) -> Reply:
    """Show a delivery: 200 when it has finished, 202 while it goes on."""
    wants_records = flag(request, "records", default=False)
    instance, resource = await _find(request, client, resources, show_input=wants_records)
    delivery = view(request, instance, resource.name)
    if wants_records and "total" in delivery:
        delivery["records"] = record_states(instance, resource)
    if instance.status in FINISHED:
        return Reply.json(200, delivery)
    return Reply.json(202, delivery, while_it_goes_on(delivery["statusQueryGetUri"]))


async def list_deliveries(
    request: Request, client: DurableClient, resources: Sequence[Resource], now: datetime | None = None
) -> Reply:
    """Return one page of deliveries, the newest first, with a link to the next one."""
    now = now or datetime.now(UTC)
    asked = request.query
    states = [state for state in asked.get("state", "").split(",") if state]
    if unknown := [state for state in states if state not in STATES]:
        raise refuse("malformed", f"state={unknown[0][:40]} is none of {', '.join(STATES)}.")
    named = [resource for resource in resources if asked.get("resource", "") in {"", resource.name, resource.route}]
    if not named:
        names = ", ".join(resource.name for resource in resources)
        raise refuse("malformed", f"resource={asked['resource'][:60]} is none of {names}.")
    since, until, top, token = _moment(asked, "from") or now - _SINCE, _moment(asked, "to"), _top(asked), _token(asked)
    if "key" in asked:
        found = await _by_key(client, named, asked["key"])
        token = None
    else:
        found, token = await client.list_instances(
            token,
            runtimeStatus=",".join(sorted({_RUNTIME[state] for state in states})),
            createdTimeFrom=since,
            createdTimeTo=until,
            instanceIdPrefix=prefix_of(named[0]) if len(named) == 1 else None,
            top=top,
        )
    shown = []
    for instance in sorted(found, key=lambda each: each.created or now, reverse=True):
        resource = _resource_of(instance, named)
        if resource is not None and (not states or state_of(instance) in states):
            shown.append(view(request, instance, resource.name, is_whole=False))
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
    content = {"id": instance.id, "state": state_of(instance), "events": events_of(instance.history)}
    return Reply.json(200, content)


async def act(request: Request, client: DurableClient, resources: Sequence[Resource], verb: str) -> Reply:
    """Cancel, suspend or resume a delivery."""
    instance, resource = await _find(request, client, resources)
    state = state_of(instance)
    if state not in _ACTIONS[verb]:
        raise refuse(
            "wrong-state", f"The delivery is {state}; {verb} is for one that is {' or '.join(_ACTIONS[verb])}."
        )
    if not await client.manage(_OPERATIONS[verb], instance.id, f"{verb} through the deliveries API"):
        raise refuse("wrong-state", "The delivery has changed its state: look at it again.")
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
    request: Request,
    client: DurableClient,
    resources: Sequence[Resource],
    *,
    show_input: bool = False,
    show_history: bool = False,
) -> tuple[Instance, Resource]:
    """Return the delivery that the path names, and its record type.

    Raises:
        ProblemError: 404, there is none; 503, Durable's state cannot be read.
    """
    id_ = request.params["id"]
    instance = None
    if _INSTANCE_ID.fullmatch(id_):
        instance = await client.find(id_, show_input=show_input, show_history=show_history)
    resource = None if instance is None else _resource_of(instance, resources)
    if instance is None or resource is None:
        raise refuse("not-found", "There is no delivery with this id.")
    return instance, resource


async def _by_key(client: DurableClient, resources: Sequence[Resource], key: str) -> list[Instance]:
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise refuse("malformed", "key must be 1 to 255 visible ASCII characters.")
    found = [await client.find(keyed_id(resource, key)) for resource in resources]
    return [instance for instance in found if instance is not None]


def _resource_of(instance: Instance, resources: Sequence[Resource]) -> Resource | None:
    return next((each for each in resources if instance.name in {each.deliver, each.deliver_batch}), None)


def _token(asked: Mapping[str, str]) -> str | None:
    token = asked.get("token")
    # It becomes a header.
    if token is not None and not _TOKEN.fullmatch(token):
        raise refuse("malformed", "token must be that of a nextLink.")
    return token


def _top(asked: Mapping[str, str]) -> int:
    top = asked.get("top", str(MAX_PAGE))
    if not top.isascii() or not top.isdecimal() or not 1 <= int(top[:9]) <= MAX_PAGE:
        raise refuse("malformed", f"top must be a whole number from 1 to {MAX_PAGE}.")
    return int(top)


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
        raise refuse("malformed", f"{name} must be a time such as 2026-11-29T08:00:00Z.") from None
    return moment
