"""Starting a delivery once: the same id starts nothing twice, starts again what failed, and redelivers what is left.

What is refused, or cannot be done now, is a `RefusedError`. `call_timeout` is the
seconds of one call to the partner. Instances that are given have their input.
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.durable import inputs
from shared.durable.attempt import LOOK, WORK
from shared.durable.durable_client import FINISHED
from shared.durable.inputs import BatchInput, SingleInput, from_json, is_batch
from shared.durable.progress import from_ranges
from shared.errors import DeliveryInputError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.durable.durable_client import DurableClient, Instance
    from shared.durable.inputs import DeliveryOptions
    from shared.resource import Resource

logger = logging.getLogger(__name__)

# Milliseconds until the year 2286: thirteen digits.
_END_OF_TIME = 10**13 - 1
_REDELIVERY = "-redelivery-"


def prefix_of(resource: Resource) -> str:
    """Return the prefix of the ids of a resource's deliveries; no prefix begins with another resource's."""
    name = resource.name.lower()
    # An id has letters, digits and hyphens, and a hyphen ends the prefix.
    plain = name.replace("_", "")[:32]
    return f"{plain}-" if plain == name else f"{plain}{hashlib.sha256(name.encode()).hexdigest()[:8]}-"


def new_id(resource: Resource, now: datetime) -> str:
    """Return an id for a delivery without an idempotency key: the newest sort first within a resource."""
    reversed_time = _END_OF_TIME - int(now.timestamp() * 1000)
    return f"{prefix_of(resource)}{reversed_time:013d}-{uuid.uuid4().hex[:16]}"


def keyed_id(resource: Resource, key: str) -> str:
    """Return the id of the delivery that a caller's idempotency key names."""
    hashed = hashlib.sha256(f"{resource.name}\n{key}".encode()).hexdigest()
    return f"{prefix_of(resource)}key-{hashed[:32]}"


async def start_new(client: DurableClient, resource: Resource, input_: Mapping[str, Any], now: datetime) -> str:
    """Start a delivery that is new in any case. Return its id."""
    instance_id = new_id(resource, now)
    await client.start(orchestrator(resource, input_), instance_id, input_)
    return instance_id


async def start_once(
    client: DurableClient, resource: Resource, instance_id: str, input_: Mapping[str, Any], call_timeout: float
) -> str:
    """Start a delivery under this id, unless it is there already with the same payload. Return the id.

    The host would overwrite a finished instance, so the id is looked up first. A delivery that has failed is started
    again, unless it is redelivered: its caller asks again.
    """
    if there := await client.find(instance_id, show_input=True):
        _check_payload(there, input_)
        if there.status != "Failed":
            return instance_id
        if redelivery := await running_redelivery(client, there):
            raise RefusedError(
                "wrong-state", f"The delivery failed, and is redelivered as {redelivery.id}: watch that."
            )
        input_ = started_again(there, input_, call_timeout)
        logger.warning("delivery started again", extra={"instance_id": instance_id})
    if not await client.start(orchestrator(resource, input_), instance_id, input_):
        # Another caller has started it in between.
        there = await client.find(instance_id, show_input=True)
        if there is not None:
            _check_payload(there, input_)
    return instance_id


async def redeliver(
    client: DurableClient, instance: Instance, resource: Resource, options: DeliveryOptions, call_timeout: float
) -> str:
    """Start a delivery with what a finished one has left undelivered. Return its id; asking again starts nothing new.

    A record keeps its idempotency key, for the partner may have stored it and would know it by that. One that the
    partner has rejected gets a new key, for under the old one the partner may repeat its answer.
    """
    if instance.status not in FINISHED:
        raise RefusedError("wrong-state", "The delivery has not finished: only a finished one can be redelivered.")
    if instance.status == "Completed" and "state" not in instance.told:
        raise RefusedError("wrong-state", "The delivery cannot be redelivered: it has no result of a delivery.")
    try:
        input_ = (_left_of_batch if is_batch(instance.input) else _left_of_one)(instance, options)
    except (DeliveryInputError, ValueError, TypeError, LookupError, AttributeError) as exc:
        detail = f"The delivery cannot be redelivered: {type(exc).__name__}: {exc}."
        raise RefusedError("wrong-state", detail) from exc
    if input_ is None:
        raise RefusedError("wrong-state", "The delivery has delivered everything: nothing is left to redeliver.")
    if instance.status != "Completed":
        input_["pause"] = settling_pause(instance, call_timeout)
    # An id is skipped that stands for other records, or for what was left of a delivery that was started again since.
    instance_id, sent = next_redelivery(instance.id), fingerprint(input_)
    while there := await client.find(instance_id, show_input=True):
        if fingerprint(there.input) == sent and not there.is_older_than(instance):
            break
        instance_id = next_redelivery(instance_id)
    return await start_once(client, resource, instance_id, input_, call_timeout)


def orchestrator(resource: Resource, input_: Mapping[str, Any]) -> str:
    """Return the name of the orchestrator that takes this input."""
    return resource.deliver_batch if is_batch(input_) else resource.deliver


def started_again(ended: Instance, input_: Mapping[str, Any], call_timeout: float) -> dict[str, Any]:
    """Return the input with which to start a delivery again that ended without a verdict: it may have posted."""
    uncertain = [*range(input_["total"])] if is_batch(input_) else True
    return {**input_, "uncertain": uncertain, "pause": max(LOOK, settling_pause(ended, call_timeout))}


def settling_pause(ended: Instance, call_timeout: float) -> float:
    """Return the seconds until no activity of an ended delivery can be calling the partner.

    An activity makes no call that ends later than `WORK` seconds after it has begun, and it begins while its
    orchestration goes on, or notices that it does not.
    """
    settled = WORK / 2 + max(WORK / 2, call_timeout) + 2 * LOOK
    ago = max(0.0, (datetime.now(UTC) - ended.updated).total_seconds())
    return max(0.0, settled - ago)


async def running_redelivery(client: DurableClient, instance: Instance) -> Instance | None:
    """Return the first redelivery of a delivery, None if there is none since the delivery was started."""
    redelivery = await client.find(next_redelivery(instance.id))
    return None if redelivery is None or redelivery.is_older_than(instance) else redelivery


def next_redelivery(instance_id: str) -> str:
    """Return the id of a delivery's first redelivery, or of a redelivery's next: "…-redelivery-2"."""
    root, mark, number = instance_id.rpartition(_REDELIVERY)
    return f"{root}{_REDELIVERY}{int(number) + 1}" if mark and number.isdecimal() else f"{instance_id}{_REDELIVERY}1"


def fingerprint(input_: object) -> str | None:
    """Return a digest of what the caller sent: the rest of an input is the app's, and changes with its settings."""
    if not isinstance(input_, dict):
        return None
    try:
        return str(input_.get("digest")) if is_batch(input_) else inputs.digest([str(input_.get("record")).encode()])
    except (ArithmeticError, ValueError, RecursionError):
        return None


def _check_payload(there: Instance, input_: Mapping[str, Any]) -> None:
    if fingerprint(there.input) != fingerprint(input_):
        raise RefusedError("key-reused", "The Idempotency-Key was used for another payload.")


def _left_of_one(instance: Instance, options: DeliveryOptions) -> dict[str, Any] | None:
    delivery, told = from_json(instance.input, SingleInput), instance.told
    state = told.get("state")
    if state == "delivered":
        return None
    input_ = inputs.single_input(delivery.record.encode(), options)
    # A rejection without a status is this app's: the partner has not been asked.
    if state != "rejected" or told.get("status") is None:
        input_["key"] = delivery.key or inputs.idempotency_key(instance.id)
    # What was ended while it was posting may have posted.
    was_posting = instance.status != "Completed" and state == "delivering"
    was_uncertain = told.get("uncertain") or delivery.uncertain or delivery.progress.is_uncertain
    if was_posting or (was_uncertain and state != "rejected"):
        input_["uncertain"] = True
    return input_


def _left_of_batch(instance: Instance, options: DeliveryOptions) -> dict[str, Any] | None:
    batch, told = from_json(instance.input, BatchInput), instance.told
    created, exists, rejected, uncertain, posting = (
        from_ranges(told.get(name, ""))
        for name in ("createdRecords", "existsRecords", "rejectedRecords", "uncertainRecords", "posting")
    )
    left = sorted(set(range(batch.total)) - created - exists)
    if not left:
        return None
    known = batch.progress.pending if batch.progress else {}
    before = batch.uncertain | {index for index, record in known.items() if record.is_uncertain}
    if instance.status != "Completed":
        uncertain |= posting | (before - rejected)
    records, places = inputs.records_of(instance.input), list(enumerate(left))
    input_ = inputs.batch_input([records[index] for index in left], options)
    input_["keys"] = {place: batch.key_of(instance.id, index) for place, index in places if index not in rejected}
    input_["uncertain"] = [place for place, index in places if index in uncertain]
    return input_
