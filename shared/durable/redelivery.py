"""What a finished batch has left undelivered, as a batch of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.delivery.batch_input import is_batch, keys_of, records_of
from shared.delivery.delivery_input import check_batch
from shared.delivery.durable_client import find
from shared.delivery.index_ranges import from_ranges
from shared.delivery.problem import ProblemError, problem
from shared.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from shared.delivery.durable_client import DurableClient, Instance

# A redelivery of a redelivery counts on: "…-redelivery-2".
_MARK = "-redelivery-"
# So many ids are looked at for one that is free.
_MOST = 100


@dataclass(frozen=True, slots=True)
class Left:
    """Records that are left, each with the idempotency key under which it was posted, None where it gets a new one."""

    records: list[Any]
    keys: list[str | None]


def undelivered(batch: Instance) -> Left:
    """Give the records of a finished batch that were not delivered.

    Of a completed one, those that were rejected; of a failed or terminated one, all that its status does not call
    delivered: what was being posted then is looked up before it is posted again.

    What the partner has not answered for good keeps its key: it may have been stored, and the partner would know it by
    that. What it has rejected gets a new key, for under the old one it may repeat its answer.

    Raises:
        ProblemError: 409 where the batch goes on, nothing is left, or its records are none that the intake has packed;
            404 where the instance is no batch.
    """
    if not is_batch(batch.input):
        raise ProblemError(problem(404, "There is no batch with this id."))
    if batch.status not in {"Completed", "Failed", "Terminated"}:
        raise ProblemError(problem(409, f"The batch is {batch.status}: only a finished one can be redelivered."))
    try:
        input_ = check_batch(batch.input)
        records, keys = records_of(input_), keys_of(input_, batch.id)
        left, answered = _left_of(batch, len(records))
    except DeliveryError as exc:
        raise ProblemError(problem(409, f"The batch cannot be redelivered: {exc}.")) from exc
    if not left:
        raise ProblemError(problem(409, "The batch has delivered every record: nothing is left to redeliver."))
    indices = sorted(left)
    kept = [None if index in answered else keys[index] for index in indices]
    return Left([records[index] for index in indices], kept)


def _left_of(batch: Instance, total: int) -> tuple[set[int], set[int]]:
    """Give the indices of what is left, and which of them the partner has rejected."""
    if batch.status == "Completed":
        output = batch.output if isinstance(batch.output, dict) else {}
        rejections = output.get("rejections")
        if not isinstance(rejections, list) or not all(isinstance(each, dict) for each in rejections):
            raise DeliveryError("It has no result of a batch")
        left = _whole((each.get("index") for each in rejections), total)
        return left, {each["index"] for each in rejections if each.get("status") is not None}
    status = batch.custom_status if isinstance(batch.custom_status, dict) else {}
    try:
        delivered, rejected = (from_ranges(status.get(name, "")) for name in ("delivered", "rejectedRecords"))
    except (ValueError, AttributeError):
        raise DeliveryError("Its custom status is none of a batch") from None
    return set(range(total)) - delivered, rejected


def _whole(indices: Iterable[object], total: int) -> set[int]:
    found = set()
    for index in indices:
        if not isinstance(index, int) or not 0 <= index < total:
            raise DeliveryError("Its result names records that it does not have")
        found.add(index)
    return found


def next_redelivery(instance_id: str) -> str:
    """Give the instance id of a batch's first redelivery."""
    root, mark, number = instance_id.rpartition(_MARK)
    if mark and number.isdecimal():
        return f"{root}{_MARK}{int(number) + 1}"
    return f"{instance_id}{_MARK}1"


async def redelivery_id(client: DurableClient, batch: Instance, input_: Mapping[str, Any]) -> str:
    """Give the instance id of the redelivery with this input: always the same one, so that asking twice starts one.

    An id is passed over that stands for other records, or for what was left of a batch that was begun anew since.

    Raises:
        ProblemError: 409 where too many are passed over, 503 where Durable's state cannot be read.
    """
    instance_id = batch.id
    for _ in range(_MOST):
        instance_id = next_redelivery(instance_id)
        there = await find(client, instance_id, show_input=True)
        if there is None:
            return instance_id
        is_same = isinstance(there.input, dict) and there.input.get("digest") == input_["digest"]
        if is_same and not there.is_older_than(batch):
            return instance_id
    raise ProblemError(problem(409, f"The batch has been redelivered {_MOST} times: redeliver {instance_id}."))
