"""The input of a batch's orchestration: its records, packed.

Each turn of an orchestrator is handed its whole input, and a batch takes dozens of turns. A list of a thousand records
costs 20 ms a turn to parse, as text that is packed they cost none: only who wants the records unpacks them. They also
take a fraction of the room in the history; a batch of 1 MiB would not fit into a message of the Durable Task Scheduler.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import TYPE_CHECKING, Any

import msgspec

from shared.delivery.idempotency_key import IDEMPOTENCY_KEY
from shared.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_RECORDS = 1_000
# Bytes of the records' JSON array. The intake takes 1 MiB; a number of four bytes and its comma may become nineteen
# where it is written again: 9000000000000000.0 for 9e15.
MAX_UNPACKED = 4 * 1024 * 1024
# Characters: what zlib cannot compress it makes longer by a thousandth, and base64 by a third.
MAX_PACKED = MAX_UNPACKED * 3 // 2
# The default level takes twice the time for a twentieth less.
_LEVEL = 1


def batch_input(records: Sequence[Mapping[str, Any]], keys: Sequence[str | None] = ()) -> dict[str, Any]:
    """Give the records for an orchestration's input, with their number and the digest that names them.

    `packed` is their JSON array, compressed (RFC 1950), in base64; so are `keys`, idempotency keys that some of the
    records bring along, None for the others.
    """
    digest = hashlib.sha256(msgspec.json.encode(records, order="sorted")).hexdigest()
    input_ = {"total": len(records), "digest": digest, "packed": _pack(records)}
    return {**input_, "keys": _pack(keys)} if any(keys) else input_


def is_batch(input_: object) -> bool:
    """Tell whether an orchestration's input is that of a batch."""
    return isinstance(input_, dict) and ("packed" in input_ or "businesses" in input_)


def total_of(input_: Mapping[str, Any]) -> int:
    """Give the number of a batch's records."""
    total: int = input_["total"] if "packed" in input_ else len(input_["businesses"])
    return total


def records_of(input_: Mapping[str, Any]) -> list[Any]:
    """Give the records of a batch; those of version 0.1 stand in the input as they are.

    Raises:
        DeliveryError: these are no records that `batch_input` has packed.
    """
    if "packed" not in input_:
        return list(input_["businesses"])
    records = _unpacked(input_["packed"])
    if not isinstance(records, list) or len(records) != input_["total"] or len(records) > MAX_RECORDS:
        raise DeliveryError("The records of the batch are not as many as it says")
    return records


def keys_of(input_: Mapping[str, Any], instance_id: str) -> list[str]:
    """Give the idempotency keys of a batch's records: each its own, or that of the batch with its index.

    Raises:
        DeliveryError: these are no keys that `batch_input` has packed.
    """
    total = total_of(input_)
    keys = _unpacked(input_["keys"]) if "keys" in input_ else [None] * total
    if not isinstance(keys, list) or len(keys) != total or not all(map(_may_be_key, keys)):
        raise DeliveryError("The keys of the batch are not one for each record")
    return [key or f"{instance_id}-{index}" for index, key in enumerate(keys)]


def _may_be_key(key: object) -> bool:
    return key is None or (isinstance(key, str) and IDEMPOTENCY_KEY.fullmatch(key) is not None)


def _pack(value: object) -> str:
    return base64.b64encode(zlib.compress(msgspec.json.encode(value), _LEVEL)).decode()


def _unpacked(packed: str) -> object:
    try:
        unpacking = zlib.decompressobj()
        # A few kilobytes may hold a gigabyte of zeros: what is too much is never unpacked.
        text = unpacking.decompress(base64.b64decode(packed), MAX_UNPACKED)
        # One that ends where it should is at its end after so many bytes.
        if unpacking.eof:
            # The records are not looked at more closely: whoever delivers them does.
            return msgspec.json.decode(text)
    except (zlib.error, ValueError, TypeError, RecursionError) as exc:
        raise DeliveryError("The records of the batch cannot be unpacked") from exc
    raise DeliveryError(f"The records of the batch are more than {MAX_UNPACKED} bytes, or broken off")
