"""What orchestrations and activities are given, and the packed records of a batch. Pure.

An orchestrator may not read settings, so a delivery keeps the options that it began with in its input. Whoever has the
Durable extension's key starts orchestrations past the intake: an input that the intake never writes fails at the first
step. The activities check the records.

Each turn of an orchestrator is handed its whole input, and a batch takes dozens of turns. A list of a thousand records
would cost 20 ms a turn to parse; packed text costs nothing, and takes a fraction of the room in the history.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from datetime import datetime  # noqa: TC003, msgspec reads the annotations
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from shared.durable.progress import MAX_RECORDS, BatchBooks, Deferral, Index, OrderResult
from shared.errors import DeliveryInputError
from shared.rules.outcome import Outcome
from shared.rules.record import IDEMPOTENCY_KEY
from shared.rules.retry import MAX_WAIT, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

T = TypeVar("T")

# More would save turns of the orchestrator, but an activity would last longer.
_CHUNKS_OF_AN_ORDER = 5
# Bytes of the records' JSON array: the intake accepts 1 MiB.
MAX_UNPACKED = 2 * 1024 * 1024
_Seconds = Annotated[float, Meta(ge=0, le=MAX_WAIT)]
# A text of a megabyte that zlib cannot compress, in base64.
_Text = Annotated[str, Meta(max_length=3 * 1024 * 1024)]
_Key = Annotated[str, Meta(pattern=rf"^{IDEMPOTENCY_KEY.pattern}\Z")]
# The default level takes twice the time for a twentieth less.
_LEVEL = 1


class DeliveryOptions(msgspec.Struct, frozen=True):
    """How a delivery goes about it. `settle` is the seconds until a stored record shows up in a look-up.

    Of a batch, `parallel` activities at a time have at most `order` records each, and call the partner for `chunk` of
    these at a time. No setting allows more than the limits.
    """

    retry: RetryPolicy = RetryPolicy()
    settle: Annotated[float, Meta(ge=0, le=3_600)] = 5.0
    chunk: Annotated[int, Meta(ge=1, le=1_000)] = 50
    parallel: Annotated[int, Meta(ge=1, le=10_000)] = 1
    order: Annotated[int, Meta(ge=1, le=5_000)] = 50

    @classmethod
    def of_batch(cls, retry: RetryPolicy, settle: float, chunk: int, max_connections: int) -> DeliveryOptions:
        """Return the options of a batch: no more chunks at a time than there are connections for."""
        return cls(retry, settle, chunk, max(1, max_connections // chunk), _CHUNKS_OF_AN_ORDER * chunk)


class SingleInput(msgspec.Struct, kw_only=True):
    """The input of the orchestration of one record, whose JSON text is `record`.

    `key` is the idempotency key of an earlier delivery; `uncertain` says that this one may have stored the record.
    `pause` is the seconds to wait first, `recoveries` how often the delivery was started again after it had failed.
    `start` is when an earlier run began: `progress` is what that one knew.
    """

    terms: DeliveryOptions
    pause: _Seconds = 0.0
    recoveries: int = 0
    start: datetime | None = None
    record: _Text
    key: _Key | None = None
    uncertain: bool = False
    progress: Deferral = msgspec.field(default_factory=Deferral)


class BatchInput(msgspec.Struct, kw_only=True):
    """The input of the orchestration of a batch of `total` records; the rest as in `SingleInput`.

    `packed` is the JSON array of the records, compressed (RFC 1950), in base64; `digest` is the same for the same JSON,
    however it is written. `keys` are the idempotency keys of an earlier delivery; `uncertain` has the records that this
    one may have stored.
    """

    terms: DeliveryOptions
    pause: _Seconds = 0.0
    recoveries: int = 0
    start: datetime | None = None
    total: Annotated[int, Meta(ge=0, le=MAX_RECORDS)]
    digest: Annotated[str, Meta(max_length=128)]
    packed: _Text
    keys: dict[Index, _Key] = {}
    uncertain: set[Index] = set()
    progress: BatchBooks | None = None

    def key_of(self, instance_id: str, index: int) -> str:
        """Return the idempotency key of a record."""
        return self.keys.get(index) or idempotency_key(instance_id, index)


class Order(msgspec.Struct, kw_only=True, omit_defaults=True, rename="camel"):
    """What the orchestration `instance_id` has an activity do: an attempt at one record, or at some of a batch.

    The orchestration's run `began`, and `scheduled` this at the delivery's `age` in seconds. `settle` as in
    `DeliveryOptions`. `known` is what is known of the records, by their indices.

    One record is handed on, with its idempotency key. Those of a batch, `chunk` of which are worked on at a time, the
    activity reads from the batch's input, so that the history has them once.
    """

    instance_id: str
    began: datetime
    scheduled: datetime
    age: float
    settle: float
    known: dict[int, Deferral] = {}
    record: str = ""
    key: str = ""
    digest: str = ""
    records: list[int] = []
    chunk: int = 1


# msgspec examines a type when it is first used, and crashes if another thread uses it meanwhile (seen with 0.22.0). The
# Functions worker runs orchestrators in threads.
for _kind in (SingleInput, BatchInput, Order, OrderResult, Outcome):
    msgspec.json.Decoder(_kind)


def to_json(value: msgspec.Struct) -> dict[str, Any]:
    """Return a Struct as a plain object for a durable boundary."""
    plain: dict[str, Any] = msgspec.to_builtins(value, str_keys=True)
    return plain


def from_json(value: object, kind: type[T]) -> T:
    """Read what `to_json` wrote.

    Raises:
        DeliveryInputError: it cannot have written this.
    """
    try:
        return msgspec.convert(value, kind, str_keys=True)
    except (msgspec.ValidationError, OverflowError) as exc:
        raise DeliveryInputError(f"This app starts no delivery with such an input: {exc}") from exc


def single_input(text: bytes, terms: DeliveryOptions) -> dict[str, Any]:
    """Return a `SingleInput`; `text` is the JSON text as the caller sent it."""
    return {"record": text.decode(), "terms": to_json(terms)}


def batch_input(texts: Sequence[bytes], terms: DeliveryOptions) -> dict[str, Any]:
    """Return a `BatchInput`; `texts` are the JSON texts of the records as the caller sent them."""
    packed = base64.b64encode(zlib.compress(b"[" + b",".join(texts) + b"]", _LEVEL)).decode()
    return {"total": len(texts), "digest": digest(texts), "packed": packed, "terms": to_json(terms)}


def is_batch(input_: object) -> bool:
    """Return whether an orchestration's input is that of a batch."""
    return isinstance(input_, dict) and "packed" in input_


def records_of(input_: Mapping[str, Any]) -> list[bytes]:
    """Return the texts of a batch's records.

    Raises:
        DeliveryInputError: `batch_input` has not packed these.
    """
    try:
        unpacking = zlib.decompressobj()
        # A few kilobytes may hold a gigabyte of zeros: no more than the most is unpacked.
        text = unpacking.decompress(base64.b64decode(input_["packed"]), MAX_UNPACKED)
        if not unpacking.eof:
            raise DeliveryInputError(f"The records of the batch are more than {MAX_UNPACKED} bytes, or cut off")
        records = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (zlib.error, ValueError, RecursionError) as exc:
        raise DeliveryInputError("The records of the batch cannot be unpacked") from exc
    if len(records) != input_["total"] or len(records) > MAX_RECORDS:
        raise DeliveryInputError("The batch has more or fewer records than it says")
    return [bytes(record) for record in records]


def idempotency_key(instance_id: str, index: int | None = None) -> str:
    """Return the key of a delivery, or of a batch's record: the instance id, hashed where no header can hold it."""
    if not IDEMPOTENCY_KEY.fullmatch(instance_id) or len(instance_id) > 200:  # noqa: PLR2004, it leaves room for the index
        instance_id = "delivery-" + hashlib.sha256(instance_id.encode(errors="surrogatepass")).hexdigest()
    return instance_id if index is None else f"{instance_id}-{index}"


def digest(texts: Iterable[bytes]) -> str:
    """Return a digest of JSON texts that depends on their values alone: not on white space, order or escapes."""
    hashed = hashlib.sha256()
    for text in texts:
        value = msgspec.json.encode(_VALUES.decode(text), order="sorted")
        hashed.update(b"%d:" % len(value) + value)
    return hashed.hexdigest()


def _canonical(number: str) -> Any:  # noqa: ANN401, a number, or JSON of one
    value = Decimal(number)
    if not value:
        return 0
    # Above that of every double. Written out, 1e999999 would be a million digits, and only the intake refuses it.
    if abs(value.adjusted()) > 400:  # noqa: PLR2004, the comment above
        return number
    # The intake refuses more digits than a double has, so nothing is rounded.
    return msgspec.Raw(format(value.normalize(), "f").encode())


_VALUES = msgspec.json.Decoder(float_hook=_canonical)
