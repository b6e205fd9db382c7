"""The activities: one attempt at a record, or at each record of an order. Plain JSON goes in and comes out."""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from shared.durable.attempt import WORK, Attempt, Shift
from shared.durable.batch import Deferral, OrderResult, from_ranges
from shared.durable.batch_input import keys_of, records_of
from shared.errors import ActivityInterruptedError, DeliveryInputError, DeliveryRefusedError
from shared.rules.outcome import Outcome
from shared.rules.record import shown_id
from shared.rules.retry import RetryPolicy

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
    """Deliver the records of an order, `chunk` of them at a time. Return what became of them.

    `order` is `{"instanceId", "digest", "age", "began", "scheduled", "chunk", "settle", "retry", "linger", "records",
    "uncertain"?, "deferred"?}`: `records` and `uncertain` are ranges of indices, `deferred` is a list of `[index,
    attempts, age at which it was absent]`. A deferred record is tried again when it is due, for up to `linger` seconds
    after the others. What is not done when time is up, or when the batch has been ended, is left.
    """
    indices = sorted(from_ranges(order["records"]))
    instance_id: str = order["instanceId"]

    async def post() -> OrderResult:
        try:
            batch = await batches.of(instance_id, order["digest"], client)
        except DeliveryRefusedError:
            return OrderResult(left=indices, left_for=1.0, reason="The records of the batch cannot be read now")
        except DeliveryInputError as exc:
            return OrderResult({index: Outcome("rejected", "", reason=str(exc)) for index in indices})
        async with Shift(client, order, access.timeout) as shift:
            work = _BatchWork(order, resource, access, shift, batch, indices)
            await asyncio.gather(*(work.one_after_the_other() for _ in range(min(order["chunk"], len(indices)))))
        return work.result(indices)

    return (await contained(post())).to_json()


class _BatchWork:
    """An activity's work on the records of an order. Ages are of the batch, in seconds."""

    def __init__(  # noqa: PLR0913, PLR0917, each is one thing
        self,
        order: Mapping[str, Any],
        resource: Resource,
        access: PartnerAccess,
        shift: Shift,
        batch: Batch,
        indices: Sequence[int],
    ) -> None:
        self._order = order
        self._resource = resource
        self._access = access
        self._shift = shift
        self._batch = batch
        self._policy = RetryPolicy.from_json(order["retry"])
        self._clock = asyncio.get_running_loop().time
        self._birth: float = self._clock() - order["age"]
        self._uncertain = from_ranges(order.get("uncertain", ""))
        self._known = {
            index: Deferral(attempts, absent_at=absent_at) for index, attempts, absent_at in order.get("deferred", ())
        }
        self._waiting = iter(indices)
        self._due: list[tuple[float, int]] = []  # a heap of ages and indices
        self._outcomes: dict[int, Outcome] = {}
        self._deferrals: dict[int, Deferral] = {}
        self._held: list[Outcome] = []

    async def one_after_the_other(self) -> None:
        """Try records until none is left, or time is up. So many of these as `chunk` says run at a time."""
        while not self._shift.is_over and (turn := self._next()) is not None:
            due, index = turn
            if (wait := due - self._age()) > 0:
                await asyncio.sleep(wait)
                if self._shift.is_over:
                    return
            self._take(index, await self._outcome_of(index))

    def result(self, indices: Sequence[int]) -> OrderResult:
        """Return what became of the records of these indices."""
        end = self._age()
        deferrals = {index: deferral.since(end) for index, deferral in self._deferrals.items()}
        left = [index for index in indices if index not in self._outcomes and index not in deferrals]
        wait = min((held.retry_after for held in self._held if held.retry_after), default=0.0)
        reason = self._held[0].reason if self._held else None
        return OrderResult(self._outcomes, deferrals, left, wait, reason, self._access.limit())

    def _age(self) -> float:
        age: float = self._clock() - self._birth
        return age

    def _next(self) -> tuple[float, int] | None:
        """Return a record and the age at which to try it: one that is due, else a new one, else the next to be due."""
        age = self._age()
        if self._due and self._due[0][0] <= age:
            return heapq.heappop(self._due)
        index = next(self._waiting, None)
        if index is not None:
            return age, index
        linger = self._shift.patience(self._order["linger"])
        return heapq.heappop(self._due) if self._due and self._due[0][0] - age < linger else None

    def _take(self, index: int, outcome: Outcome) -> None:
        """Take in what came of an attempt."""
        deferral = self._deferrals.get(index)
        if outcome.kind != "deferred":
            self._outcomes[index] = outcome
            self._deferrals.pop(index, None)
        elif outcome.was_held and not outcome.is_uncertain:
            # The partner was not asked: the next order asks again.
            if deferral is None:
                self._held.append(outcome)
            else:
                deferral.due = self._age() + (outcome.retry_after or 0.0)
        else:
            deferral = self._deferrals.setdefault(index, deferral or self._known.get(index, Deferral()))
            seed = f"{self._order['instanceId']}/{index}"
            deferral.enter(outcome, self._age(), self._policy, seed)
            if deferral.due <= self._policy.deadline:
                heapq.heappush(self._due, (deferral.due, index))

    async def _outcome_of(self, index: int) -> Outcome:
        known = self._deferrals.get(index) or self._known.get(index, Deferral())
        age = self._age()
        attempt = Attempt(
            self._resource,
            self._access,
            self._shift,
            text=self._batch.records[index],
            instance_id=self._order["instanceId"],
            key=self._batch.keys[index],
            number=known.attempts + 1,
            age=age,
            settle=self._order["settle"],
            patience=WORK,
            was_uncertain=index in self._uncertain or (known.last is not None and known.last.is_uncertain),
            was_absent=known.is_absent(age, self._order["settle"]),
        )
        try:
            return await attempt.make()
        except Exception as exc:
            # A defect in one record must not take those beside it along.
            fields = {"instance_id": attempt.instance_id, "record_id": shown_id(self._resource, attempt.text)}
            logger.exception("delivery attempt failed", extra=fields)
            reason = f"The attempt failed, and may have posted: {type(exc).__name__}, a defect that is in the log"
            return Outcome("deferred", fields["record_id"], reason=reason, is_uncertain=True)


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
