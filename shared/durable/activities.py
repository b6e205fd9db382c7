"""The activities: one attempt at a record, or at each record of an order. Plain JSON goes in and comes out."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from shared.durable.attempt import WORK, Attempt, Shift
from shared.durable.batch import OrderResult, from_ranges
from shared.durable.batch_input import keys_of, records_of
from shared.errors import ActivityInterruptedError, DeliveryInputError, DeliveryRefusedError
from shared.rules.outcome import Outcome
from shared.rules.record import shown_id

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from shared.durable.attempt import PartnerAccess
    from shared.durable.durable_client import DurableClient
    from shared.resource import Resource

T = TypeVar("T")

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that an attempt at a single record waits for its turn. A longer wait is a durable timer's."""

# The Functions worker keeps no reference to the task in which it runs an activity, and asyncio keeps a weak one:
# without this set a garbage collection can end an activity in the middle.
_running: set[asyncio.Task[Any] | None] = set()


async def post_one(
    order: Mapping[str, Any], resource: Resource, client: DurableClient, access: PartnerAccess
) -> dict[str, Any]:
    """Make one attempt at a record. Return its outcome.

    Every expected failure is an outcome. An exception is a defect, and the orchestrator defers the record.
    """

    async def post() -> Outcome:
        async with Shift(client, order, access.timeout) as shift:
            attempt = Attempt(
                resource,
                access,
                shift,
                text=order["record"].encode(errors="surrogatepass"),
                instance_id=order["instanceId"],
                key=order["key"],
                number=order["attempt"],
                age=order["age"],
                settle=order["settle"],
                patience=PATIENCE,
                was_uncertain=order["uncertain"],
                was_absent=order["wasAbsent"],
            )
            return await attempt.make()

    return (await contained(post())).to_json()


async def post_batch(
    order: Mapping[str, Any], resource: Resource, client: DurableClient, batches: BatchRecords, access: PartnerAccess
) -> dict[str, Any]:
    """Make one attempt at each record of an order, `chunk` of them at a time. Return what became of them.

    `order` is `{"instanceId", "digest", "attempt", "age", "began", "scheduled", "chunk", "settle", "records",
    "uncertain"?, "absent"?}`; the last three are ranges of indices. What is not done when time is up, or when the batch
    has been ended, is left.
    """
    indices = sorted(from_ranges(order["records"]))
    uncertain, absent = (from_ranges(order.get(name, "")) for name in ("uncertain", "absent"))
    instance_id: str = order["instanceId"]

    async def outcome_of(batch: Batch, index: int, shift: Shift) -> Outcome:
        attempt = Attempt(
            resource,
            access,
            shift,
            text=batch.records[index],
            instance_id=instance_id,
            key=batch.keys[index],
            number=order["attempt"],
            age=order["age"],
            settle=order["settle"],
            patience=WORK,
            was_uncertain=index in uncertain,
            was_absent=index in absent,
        )
        try:
            return await attempt.make()
        except Exception as exc:
            # A defect in one record must not take those beside it along.
            record_id = shown_id(resource, attempt.text)
            logger.exception("delivery attempt failed", extra={"instance_id": instance_id, "record_id": record_id})
            reason = f"The attempt failed, and may have posted: {type(exc).__name__}, a defect that is in the log"
            return Outcome("deferred", record_id, reason=reason, is_uncertain=True)

    async def post() -> OrderResult:
        try:
            batch = await batches.of(instance_id, order["digest"], client)
        except DeliveryRefusedError:
            return OrderResult(left=indices, left_for=1.0, reason="The records of the batch cannot be read now")
        except DeliveryInputError as exc:
            return OrderResult({index: Outcome("rejected", "", reason=str(exc)) for index in indices})
        outcomes: dict[int, Outcome] = {}
        waiting = iter(indices)

        async def one_after_the_other(shift: Shift) -> None:
            for index in waiting:
                if shift.is_over:
                    return
                outcomes[index] = await outcome_of(batch, index, shift)

        async with Shift(client, order, access.timeout) as shift:
            await asyncio.gather(*(one_after_the_other(shift) for _ in range(min(order["chunk"], len(indices)))))
        return _summary(indices, outcomes, access.limit())

    return (await contained(post())).to_json()


@dataclass(frozen=True, slots=True)
class Batch:
    """The texts of a batch's records, and the idempotency key of each."""

    records: Sequence[bytes]
    keys: Sequence[str]


class BatchRecords:
    """The records of batches, each read once from its orchestration's input. Concurrent callers share the reading.

    Keeps the `most` batches used last. They are kept by the digest of their records: after a purge an old instance id
    may stand for new ones. A batch belongs to the event loop that has read it, and is dropped when that is closed.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._batches: OrderedDict[tuple[str, str], asyncio.Task[Batch]] = OrderedDict()

    async def of(self, instance_id: str, digest_: str, client: DurableClient) -> Batch:
        """Return the records of a batch.

        Raises:
            LookupError: there is no such batch with these records.
            DeliveryInputError: they cannot be unpacked.
            DeliveryRefusedError: Durable Functions does not answer.
        """
        loop = asyncio.get_running_loop()
        for kept in [kept for kept, task in self._batches.items() if task.get_loop() is not loop]:
            del self._batches[kept]
        key = instance_id, digest_
        batch = self._batches.get(key)
        if batch is None or (batch.done() and (batch.cancelled() or batch.exception() is not None)):
            batch = self._batches[key] = loop.create_task(_read(instance_id, digest_, client))
        self._batches.move_to_end(key)
        while len(self._batches) > self._most:
            self._batches.popitem(last=False)
        return await asyncio.shield(batch)


async def _read(instance_id: str, digest_: str, client: DurableClient) -> Batch:
    instance = await client.find(instance_id, show_input=True)
    if instance is None or not isinstance(instance.input, dict) or instance.input.get("digest") != digest_:
        raise LookupError(f"There is no batch with the instance id {instance_id} and the digest {digest_}")
    return Batch(records_of(instance.input), keys_of(instance.input, instance_id))


async def contained(work: Coroutine[Any, Any, T]) -> T:
    """Await the work of an activity, and hold a reference to its task until it is done.

    Raises:
        ActivityInterruptedError: it was cancelled. The host would wait for a `BaseException` until `functionTimeout`.
    """
    task = asyncio.current_task()
    _running.add(task)
    try:
        return await work
    except Exception:
        raise
    except BaseException as exc:
        raise ActivityInterruptedError(f"The activity was interrupted: {type(exc).__name__}") from exc
    finally:
        _running.discard(task)


def _summary(indices: list[int], outcomes: Mapping[int, Outcome], limit: float | None) -> OrderResult:
    """Return the result of an order; records at which the partner was not asked are left to the next."""
    is_left = {index: outcome.was_held and not outcome.is_uncertain for index, outcome in outcomes.items()}
    done = {index: outcomes[index] for index in indices if not is_left.get(index, True)}
    held = [outcomes[index] for index in indices if is_left.get(index, False)]
    waits = [outcome.retry_after for outcome in held if outcome.retry_after]
    left = [index for index in indices if index not in done]
    return OrderResult(done, left, min(waits, default=0.0), held[0].reason if held else None, limit)
