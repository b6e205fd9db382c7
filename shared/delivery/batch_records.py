"""BatchRecords: the records of the batches that this process works on."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shared.delivery.batch_input import keys_of, records_of
from shared.delivery.durable_client import find

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.delivery.durable_client import DurableClient


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of a batch, and the idempotency key of each; `is_json` as `Attempt` has it."""

    records: Sequence[Mapping[str, Any]]
    keys: Sequence[str]
    is_json: bool = True


class BatchRecords:
    """The records of batches, read from their orchestrations' inputs, each once.

    Keeps the `most` batches used last, of at most `MAX_UNPACKED` bytes each. They are kept by the digest of their
    records: after a purge an old instance id may stand for new ones. Those that the intake had are not kept: that they
    are read tells an activity that was queued for long that its batch is still there.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._batches: OrderedDict[tuple[str, str], asyncio.Task[Batch]] = OrderedDict()

    async def of(self, instance_id: str, digest: str, client: DurableClient) -> Batch:
        """Give the records of a batch; concurrent callers read them once.

        Raises:
            LookupError: there is no such batch with these records.
            DeliveryError: they cannot be unpacked.
            ProblemError: 503, Durable's state cannot be read.
        """
        key = instance_id, digest
        batch = self._batches.get(key)
        if batch is None or (batch.done() and (batch.cancelled() or batch.exception() is not None)):
            batch = asyncio.create_task(_read(instance_id, digest, client))
        self._batches[key] = batch
        self._batches.move_to_end(key)
        while len(self._batches) > self._most:
            self._batches.popitem(last=False)
        return await asyncio.shield(batch)


async def _read(instance_id: str, digest: str, client: DurableClient) -> Batch:
    instance = await find(client, instance_id, show_input=True)
    if instance is None or not isinstance(instance.input, dict) or instance.input.get("digest") != digest:
        raise LookupError(f"There is no batch with the instance id {instance_id} and the digest {digest}")
    return Batch(records_of(instance.input), keys_of(instance.input, instance_id), is_json="packed" in instance.input)
