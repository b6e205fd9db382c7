"""What a finished delivery has left undelivered, as a delivery of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.durable.batch import from_ranges, to_ranges
from shared.durable.batch_input import batch_input, is_batch, keys_of, records_of, single_input
from shared.durable.delivery_options import check_batch, check_delivery
from shared.durable.durable_client import FINISHED
from shared.durable.orchestrators import idempotency_key
from shared.durable.starting import redelivery_id, settling_pause, start_once
from shared.errors import DeliveryInputError, DeliveryRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.durable.delivery_options import DeliveryOptions
    from shared.durable.durable_client import DurableClient, Instance
    from shared.resource import Resource


async def redeliver(
    client: DurableClient, instance: Instance, resource: Resource, options: DeliveryOptions, call_timeout: float
) -> str:
    """Start a delivery with what a finished one has left undelivered. Return its id; asking again starts nothing new.

    `instance` has its input. `call_timeout` is the seconds of one call to the partner.

    A record keeps its idempotency key, for the partner may have stored it and would know it by that. One that the
    partner has rejected gets a new key, for under the old one the partner may repeat its answer.

    Raises:
        DeliveryRefusedError: 409 where the delivery goes on, has left nothing, or was not started by the intake; 503
            where Durable Functions does not answer.
    """
    if instance.status not in FINISHED:
        raise DeliveryRefusedError(409, f"The delivery is {instance.status}: only a finished one can be redelivered.")
    try:
        left = _left_of_batch if is_batch(instance.input) else _left_of_one
        input_ = left(instance, resource, options.to_json())
    except (DeliveryInputError, ValueError, TypeError, LookupError, AttributeError) as exc:
        detail = f"The delivery cannot be redelivered: {type(exc).__name__}: {exc}."
        raise DeliveryRefusedError(409, detail) from exc
    if input_ is None:
        raise DeliveryRefusedError(409, "The delivery has delivered everything: nothing is left to redeliver.")
    if instance.status != "Completed":
        input_ |= settling_pause(instance, call_timeout)
    instance_id = await redelivery_id(client, instance, input_)
    return await start_once(client, resource, instance_id, input_, call_timeout)


def _left_of_one(instance: Instance, resource: Resource, terms: Mapping[str, Any]) -> dict[str, Any] | None:
    delivery = check_delivery(instance.input)
    input_ = single_input(resource.name, delivery["record"].encode(), terms)
    result = _result(instance)
    if result.get("state") == "delivered":
        return None
    # A rejection without a status is this app's: the partner has not been asked.
    if not (result.get("state") == "rejected" and result.get("status") is not None):
        input_["key"] = delivery.get("key") or idempotency_key(instance.id)
    before = delivery.get("progress", delivery)
    if result.get("state") != "rejected" and (result.get("uncertain") or before.get("uncertain")):
        input_["uncertain"] = True
    # What was ended while it was posting may have posted.
    if instance.status != "Completed" and result.get("state") == "delivering":
        input_["uncertain"] = True
    return input_


def _left_of_batch(instance: Instance, resource: Resource, terms: Mapping[str, Any]) -> dict[str, Any] | None:
    batch = check_batch(instance.input)
    records, keys = records_of(batch), keys_of(batch, instance.id)
    result = _result(instance)
    if instance.status == "Completed":
        rejections = {each["index"]: each for each in result["rejections"]}
        left = set(rejections)
        rejected = {
            index
            for index, each in rejections.items()
            if each["state"] == "rejected" and each.get("status") is not None
        }
        uncertain = {index for index, each in rejections.items() if each.get("uncertain")}
    else:
        created, exists, rejected, uncertain, posting = (
            from_ranges(result.get(name, ""))
            for name in ("createdRecords", "existsRecords", "rejectedRecords", "uncertainRecords", "posting")
        )
        left = set(range(len(records))) - created - exists
        before = batch.get("progress", batch).get("uncertain", "")
        uncertain |= posting | (from_ranges(before) - rejected)
    if not left:
        return None
    indices = sorted(left)
    kept = [None if index in rejected else keys[index] for index in indices]
    input_ = batch_input(resource.name, [records[index] for index in indices], terms, kept)
    if ranges := to_ranges(position for position, index in enumerate(indices) if index in uncertain):
        input_["uncertain"] = ranges
    return input_


def _result(instance: Instance) -> dict[str, Any]:
    """Return the output of a completed delivery, else its last custom status."""
    if instance.status == "Completed":
        if not isinstance(instance.output, dict) or "state" not in instance.output:
            raise DeliveryInputError("It has no result of a delivery")
        return instance.output
    return instance.custom_status if isinstance(instance.custom_status, dict) else {}
