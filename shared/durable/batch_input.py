"""The inputs of orchestrations, and the packed records of a batch. Pure.

Each turn of an orchestrator is handed its whole input, and a batch takes dozens of turns. A list of a thousand records
would cost 20 ms a turn to parse; packed text costs nothing and takes a fraction of the room in the history. Only who
wants the records unpacks them.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from shared.durable.delivery_options import MAX_RECORDS
from shared.durable.orchestrators import idempotency_key
from shared.errors import DeliveryInputError
from shared.rules.record import IDEMPOTENCY_KEY

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Bytes of the records' JSON array: the intake accepts 1 MiB.
MAX_UNPACKED = 2 * 1024 * 1024
# The default level takes twice the time for a twentieth less.
_LEVEL = 1
# Above that of every double. Written out, 1e999999 would be a million digits, and only the intake refuses it.
_MAX_EXPONENT = 400


def single_input(resource: str, text: bytes, terms: Mapping[str, Any]) -> dict[str, Any]:
    """Return the input of one record's orchestration; `text` is the JSON text as the caller sent it."""
    return {"resource": resource, "record": text.decode(), "terms": dict(terms)}


def batch_input(
    resource: str, texts: Sequence[bytes], terms: Mapping[str, Any], keys: Sequence[str | None] = ()
) -> dict[str, Any]:
    """Return the input of a batch's orchestration; `texts` are the JSON texts of the records as the caller sent them.

    `packed` is their JSON array, compressed (RFC 1950), in base64; so are `keys`, the idempotency keys that some of the
    records bring along, None for the others. `digest` is the same for the same JSON, however it is written.
    """
    packed = _pack(b"[" + b",".join(texts) + b"]")
    input_ = {"resource": resource, "total": len(texts), "digest": digest(texts), "packed": packed, "terms": terms}
    return {**input_, "keys": _pack(msgspec.json.encode(keys))} if any(keys) else input_


def digest(texts: Iterable[bytes]) -> str:
    """Return a digest of JSON texts that depends on their values alone: not on white space, order or escapes."""
    hashed = hashlib.sha256()
    for text in texts:
        value = msgspec.json.encode(_VALUES.decode(text), order="sorted")
        hashed.update(b"%d:" % len(value) + value)
    return hashed.hexdigest()


def is_batch(input_: object) -> bool:
    """Return whether an orchestration's input is that of a batch."""
    return isinstance(input_, dict) and "packed" in input_


def records_of(input_: Mapping[str, Any]) -> list[bytes]:
    """Return the texts of a batch's records.

    Raises:
        DeliveryInputError: `batch_input` has not packed these.
    """
    try:
        records = msgspec.json.decode(_unpacked(input_["packed"]), type=list[msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise DeliveryInputError("The records of the batch are not a JSON array") from exc
    if len(records) != input_["total"] or len(records) > MAX_RECORDS:
        raise DeliveryInputError("The batch has more or fewer records than it says")
    return [bytes(record) for record in records]


def keys_of(input_: Mapping[str, Any], instance_id: str) -> list[str]:
    """Return the idempotency keys of a batch's records: those they bring along, or the batch's own with their index.

    Raises:
        DeliveryInputError: `batch_input` has not packed these.
    """
    total: int = input_["total"]
    keys: list[str | None] = [None] * total
    if "keys" in input_:
        try:
            keys = msgspec.json.decode(_unpacked(input_["keys"]), type=list[str | None])
        except (msgspec.MsgspecError, RecursionError) as exc:
            raise DeliveryInputError("The keys of the batch are not texts") from exc
    if len(keys) != total or not all(key is None or IDEMPOTENCY_KEY.fullmatch(key) for key in keys):
        raise DeliveryInputError("The batch does not have one key for each record")
    return [key or idempotency_key(instance_id, index) for index, key in enumerate(keys)]


def _canonical(number: str) -> Any:  # noqa: ANN401, a number, or JSON of one
    value = Decimal(number)
    if abs(value.adjusted()) > _MAX_EXPONENT:
        return number
    # The intake refuses more digits than a double has, so nothing is rounded.
    return msgspec.Raw(format(value.normalize(), "f").encode()) if value else 0


_VALUES = msgspec.json.Decoder(float_hook=_canonical)


def _pack(text: bytes) -> str:
    return base64.b64encode(zlib.compress(text, _LEVEL)).decode()


def _unpacked(packed: str) -> bytes:
    try:
        unpacking = zlib.decompressobj()
        # A few kilobytes may hold a gigabyte of zeros: no more than the most is unpacked.
        text = unpacking.decompress(base64.b64decode(packed), MAX_UNPACKED)
    except (zlib.error, ValueError) as exc:
        raise DeliveryInputError("The records of the batch cannot be unpacked") from exc
    if not unpacking.eof:
        raise DeliveryInputError(f"The records of the batch are more than {MAX_UNPACKED} bytes, or cut off")
    return text
