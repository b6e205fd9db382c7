"""The routes of a record type: accept a record or a batch, and show the partner's record."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from shared.durable.durable_client import DurableClient, Instance, wait_until_finished
from shared.durable.inputs import batch_input, single_input
from shared.durable.starting import keyed_id, start_new, start_once
from shared.errors import ApiConnectError, ApiUnavailableError, RefusedError, TokenError, TokenRejectedError
from shared.http import intake
from shared.http.deliveries import accepted, state_of, view
from shared.http.messages import Reply, Request, problem
from shared.rules.record import id_problem
from shared.rules.verdict import found_records
from shared.telemetry import DELIVERIES_ACCEPTED, PARTNER, RESOURCE, process_telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.client.resource_api import ResourceApi
    from shared.durable.inputs import DeliveryOptions
    from shared.resource import ApiResponse, Resource

logger = logging.getLogger(__name__)

_ENCODER = msgspec.json.Encoder(decimal_format="number")
_APPLIED = {"preference-applied": "wait"}


async def accept_record(
    request: Request, client: DurableClient, resource: Resource, options: DeliveryOptions, call_timeout: float
) -> Reply:
    """Accept a record, and start its delivery: 202 with links to watch it, or with `Prefer: wait` its result."""
    input_ = single_input(intake.read_one(request, resource).text, options)
    return await _started(request, client, resource, input_, call_timeout)


async def accept_batch(
    request: Request, client: DurableClient, resource: Resource, options: DeliveryOptions, call_timeout: float
) -> Reply:
    """Accept a batch of records, and start its delivery, as `accept_record` does for one."""
    texts = [record.text for record in intake.read_batch(request, resource)]
    input_ = batch_input(texts, options)
    return await _started(request, client, resource, input_, call_timeout)


async def get_record(request: Request, resource: Resource, api: Callable[[], Awaitable[ResourceApi]]) -> Reply:
    """Show the partner's record."""
    id_ = request.last_segment
    if fault := id_problem(id_):
        raise RefusedError("malformed", f"The id {fault}.")
    if resource.look_up is None:
        raise RefusedError("not-found", f"The partner of {resource.name} offers no look-up.")
    try:
        return _record(resource, id_, await (await api()).look_up(resource, id_))
    except TokenRejectedError:
        return problem("configuration", "The partner's token endpoint refuses this app; the log says why.")
    except TokenError as exc:
        detail = "No access token can be had now; the log says why."
        return problem("unavailable", detail, retry_after=exc.retry_after or 1)
    except ApiUnavailableError as exc:
        return problem("partner" if isinstance(exc, ApiConnectError) else "timeout", str(exc))


async def _started(
    request: Request, client: DurableClient, resource: Resource, input_: dict[str, Any], call_timeout: float
) -> Reply:
    """Start a delivery unless it is there already, and wait for its result as long as the caller would."""
    key = intake.idempotency_key(request)
    if key is None:
        instance_id = await start_new(client, resource, input_, datetime.now(UTC))
    else:
        instance_id = await start_once(client, resource, keyed_id(resource, key), input_, call_timeout)
    logger.info("delivery accepted", extra={"instance_id": instance_id, "resource": resource.name})
    attributes = {PARTNER: resource.partner.name, RESOURCE: resource.name}
    process_telemetry().count(DELIVERIES_ACCEPTED, attributes, input_.get("total", 1))
    wait = request.preferred_wait
    finished = await wait_until_finished(client, instance_id, wait) if wait else None
    return accepted(request, instance_id, resource.name) if finished is None else _result(request, finished, resource)


def _result(request: Request, finished: Instance, resource: Resource) -> Reply:
    """Return what has become of a delivery that its caller has waited for."""
    delivery, state = view(request, finished, resource.name), state_of(finished)
    if state in {"delivered", "partly"}:
        return Reply.json(200, delivery, _APPLIED)
    # A defect, or somebody has cancelled it: neither the record nor the partner is to blame.
    kind = state if state in {"rejected", "expired"} else "configuration" if finished.is_misconfigured else "failed"
    detail = f"The delivery {finished.id} is {state}: {delivery.get('reason') or 'no reason is known'}"
    members = {name: delivery[name] for name in ("problem", "uncertain", "attempts", "differing") if name in delivery}
    return problem(kind, detail, headers=_APPLIED, delivery=delivery["statusQueryGetUri"], **members)


def _record(resource: Resource, id_: str, response: ApiResponse) -> Reply:
    """Return the partner's record, or say what the partner's answer means to the caller."""
    found = found_records(resource, id_, response)
    if found == "absent":
        return problem("not-found", f"The partner has no {resource.name} with this id.")
    if found:
        # The record as the partner wrote it, where it is the whole answer.
        whole = response.body if found[0] == response.content else _ENCODER.encode(found[0])
        return Reply(200, whole, {"content-type": "application/json"})
    if response.is_success and not response.is_readable:
        return problem("partner", f"The partner answered {response.status} with a body that is not JSON.")
    if response.status in {429, 503}:
        detail = f"The partner answered {response.status}: it takes no calls now."
        return problem("unavailable", detail, retry_after=response.retry_after or 1)
    kind = "timeout" if response.status == 504 else "partner"  # noqa: PLR2004, RFC 9110
    return problem(kind, f"The partner answered {response.status}.")
