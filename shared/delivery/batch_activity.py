"""The activity that posts some records of a batch."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from shared.delivery.activities import keep_running, make_attempt
from shared.delivery.activity_failure import defect_reason
from shared.delivery.attempt import Attempt
from shared.delivery.batch import OrderResult, Rejection
from shared.delivery.external_id import shown_external_id
from shared.delivery.outcome import Outcome
from shared.delivery.problem import ProblemError
from shared.delivery.settling import until_it_ends
from shared.errors import DeliveryError
from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shared.api.business_api import BusinessApi
    from shared.delivery.batch_records import Batch, BatchRecords
    from shared.delivery.durable_client import DurableClient
    from shared.delivery.partner_gate import PartnerGate

logger = logging.getLogger(__name__)

# A batch's output has every rejection, its custom status a reason: so many characters of each are kept.
MAX_REASON = 400


async def post_businesses(
    order: Mapping[str, Any],
    client: DurableClient,
    batches: BatchRecords,
    business_api: Callable[[], Awaitable[BusinessApi]],
    gate: PartnerGate,
) -> dict[str, Any]:
    """Make one attempt at each record of an order, `chunk` of them at a time; give what came of them.

    `order` is `{"instanceId", "digest", "attempt", "age", "chunk", "records": [[index, look up?], …]}`. An order
    of version 0.1 names no `chunk`: it is one. Where the batch does not go on any more, what is left is deferred.
    """
    instance_id: str = order["instanceId"]
    number, age = order.get("attempt", 1), order.get("age", 0.0)

    async def attempt(batch: Batch, index: int, *, look_up: bool) -> Outcome:
        business = batch.records[index]
        made = Attempt(business, instance_id, batch.keys[index], number, look_up, age, batch.is_json)
        try:
            return await make_attempt(made, business_api, gate)
        except Exception as exc:
            # A defect in one record must not take those beside it along, and leave them being posted by nobody.
            external_id = shown_external_id(business)
            fields = {"instance_id": instance_id, "external_id": external_id, "attempt": number}
            logger.exception("delivery attempt failed", extra=fields)
            return Outcome("deferred", external_id, reason=defect_reason(exc), is_uncertain=True)

    async def post() -> OrderResult:
        indices = [index for index, _ in order["records"]]
        try:
            batch = await batches.of(instance_id, order["digest"], client)
        except ProblemError:
            # Durable's state passes with time, as the partner's troubles do; find() has logged it.
            return OrderResult(deferred=indices, reason="The records of the batch cannot be read now")
        except DeliveryError as exc:
            # No later attempt could.
            return OrderResult(rejected=[Rejection(index, "", str(exc)) for index in indices])
        outcomes: dict[int, Outcome] = {}
        waiting = iter(order["records"])

        async def one_after_the_other() -> None:
            for index, look_up in waiting:
                if end.done():
                    outcomes[index] = Outcome("deferred", "", reason="The batch was ended or suspended meanwhile")
                else:
                    outcomes[index] = await attempt(batch, index, look_up=look_up)

        end = asyncio.create_task(until_it_ends(client, instance_id))
        at_once = min(order.get("chunk", len(indices)), len(indices))
        try:
            await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
        finally:
            end.cancel()
        return _summary({index: outcomes[index] for index in indices})

    return (await keep_running(post())).to_json()


def _summary(outcomes: Mapping[int, Outcome]) -> OrderResult:
    def of(kind: str) -> list[int]:
        return [index for index, outcome in outcomes.items() if outcome.kind == kind]

    deferred = of("deferred")
    wishes = [outcomes[index].retry_after for index in deferred]
    return OrderResult(
        created=of("created"),
        exists=of("exists"),
        rejected=[_rejection(index, outcomes[index]) for index in of("rejected")],
        deferred=deferred,
        uncertain=[index for index in deferred if outcomes[index].is_uncertain],
        retry_after=max((wish for wish in wishes if wish is not None), default=None),
        reason=next((shortened(outcomes[index].reason or "deferred", MAX_REASON) for index in deferred), None),
    )


def _rejection(index: int, outcome: Outcome) -> Rejection:
    return Rejection(index, outcome.external_id, shortened(outcome.reason or outcome.kind, MAX_REASON), outcome.status)
