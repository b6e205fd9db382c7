"""The inputs of orchestrations, checked: the intake is not the only one that can start them.

Whoever has the Durable extension's key, which is in every status link, starts an orchestration with any input. One that
the intake would never make fails at its first step: it must not loop, or take the memory of those beside it. What the
records are is for the activities to check. Pure, and the same at every replay.
"""

from __future__ import annotations

from typing import Any

from shared.delivery.batch_input import MAX_PACKED, MAX_RECORDS
from shared.delivery.retry import MAX_DEADLINE, MAX_WAIT
from shared.delivery.terms import CHUNKS_OF_AN_ORDER
from shared.errors import DeliveryError

# The settings allow no more.
MAX_CHUNK, MAX_PARALLEL = 1_000, 10_000
MAX_ORDER = CHUNKS_OF_AN_ORDER * MAX_CHUNK
_MOST_SECONDS = {"deadline": MAX_DEADLINE, "first": MAX_WAIT, "max": MAX_WAIT}


def check_delivery(input_: object) -> dict[str, Any]:
    """Give the input of one record's delivery.

    Raises:
        DeliveryError: it is none that the intake makes.
    """
    if not isinstance(input_, dict) or "business" not in input_:
        raise _refused("it has no business")
    _check_retry(input_)
    return input_


def check_batch(input_: object) -> dict[str, Any]:
    """Give the input of a batch; its records, where they are packed, stay so.

    Raises:
        DeliveryError: it is none that the intake makes.
    """
    if not isinstance(input_, dict) or not isinstance(input_.get("digest"), str):
        raise _refused("it has no digest")
    is_packed = "packed" in input_
    records = input_.get("packed" if is_packed else "businesses")
    if not isinstance(records, str if is_packed else list):
        raise _refused("it has no records")
    if is_packed and len(records) > MAX_PACKED:
        raise _refused(f"its records take {len(records)} characters, more than {MAX_PACKED}")
    if not _is_whole(input_.get("total") if is_packed else len(records), 0, MAX_RECORDS):
        raise _refused(f"the number of its records is not a whole number from 0 to {MAX_RECORDS}")
    for name, most in (("chunk", MAX_CHUNK), ("parallel", MAX_PARALLEL), ("order", MAX_ORDER)):
        if not _is_whole(input_.get(name, 1), 1, most):
            raise _refused(f"its {name} is not a whole number from 1 to {most}")
    keys = input_.get("keys", "")
    if not isinstance(keys, str) or len(keys) > MAX_PACKED:
        raise _refused("its keys are none that were packed")
    if not _is_seconds(input_.get("pause", 1), MAX_WAIT):
        raise _refused(f"its pause is not a number of seconds over 0 and up to {MAX_WAIT:g}")
    _check_retry(input_)
    return input_


def _check_retry(input_: dict[str, Any]) -> None:
    retry = input_.get("retry", {})
    if not isinstance(retry, dict):
        raise _refused("its retry is not an object")
    for name, most in _MOST_SECONDS.items():
        if not _is_seconds(retry.get(name, 1), most):
            raise _refused(f"its retry.{name} is not a number of seconds over 0 and up to {most:g}")


def _is_seconds(value: object, most: float) -> bool:
    # NaN is neither.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= most


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _refused(why: str) -> DeliveryError:
    return DeliveryError(f"The input is none that this app starts a delivery with: {why}")
