"""What a finished batch has left undelivered, as a batch of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.delivery.batch_input import is_batch, records_of
from shared.delivery.index_ranges import from_ranges
from shared.delivery.problem import ProblemError, problem
from shared.errors import DeliveryError

if TYPE_CHECKING:
    from shared.delivery.durable_client import Instance

# A redelivery of a redelivery counts on: "…-redelivery-2".
_MARK = "-redelivery-"


def undelivered(batch: Instance) -> list[dict[str, Any]]:
    """Give the records of a finished batch that were not delivered.

    Of a completed one, those that were rejected; of a failed or terminated one, all that its status does not call
    delivered: what was being posted then is looked up before it is posted again.

    Raises:
        ProblemError: 409 where the batch goes on, nothing is left, or its records are none that the intake has packed;
            404 where the instance is no batch.
    """
    if not is_batch(batch.input):
        raise ProblemError(problem(404, "There is no batch with this id."))
    try:
        records = records_of(batch.input)
    except DeliveryError as exc:
        raise ProblemError(problem(409, f"The batch cannot be redelivered: {exc}.")) from exc
    if batch.status == "Completed":
        left = {rejection["index"] for rejection in batch.output["rejections"]}
    elif batch.status in {"Failed", "Terminated"}:
        status = batch.custom_status if isinstance(batch.custom_status, dict) else {}
        left = set(range(len(records))) - from_ranges(status.get("delivered", ""))
    else:
        raise ProblemError(problem(409, f"The batch is {batch.status}: only a finished one can be redelivered."))
    if not left:
        raise ProblemError(problem(409, "The batch has delivered every record: nothing is left to redeliver."))
    return [records[index] for index in sorted(left)]


def redelivery_id(instance_id: str) -> str:
    """Give the instance id of a batch's redelivery: always the same one, so that asking twice starts one."""
    root, mark, number = instance_id.rpartition(_MARK)
    if mark and number.isdecimal():
        return f"{root}{_MARK}{int(number) + 1}"
    return f"{instance_id}{_MARK}1"
