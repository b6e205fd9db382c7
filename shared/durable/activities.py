"""The activities: one attempt at a record, or at each record of an order. Plain JSON goes in and comes out."""

from __future__ import annotations

import asyncio
import functools
import heapq
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from shared.durable.attempt import WORK, Attempt, Shift
from shared.durable.inputs import BatchOrder, SingleOrder, from_json, keys_of, records_of, to_json
from shared.durable.progress import Deferral, OrderResult, fitted_facts
from shared.errors import ActivityInterruptedError, DeliveryInputError, DeliveryRefusedError
from shared.rules.outcome import Outcome
from shared.rules.record import shown_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from shared.durable.attempt import PartnerAccess
    from shared.durable.durable_client import DurableClient
    from shared.resource import Resource

    # The text of each record of a batch, and its idempotency key.
    Records = list[tuple[bytes, str]]

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

PATIENCE = 5.0
"""Seconds that an attempt at a single record waits for its turn. A longer wait is a durable timer's."""

# The Functions worker keeps no reference to the task in which it runs an activity, and asyncio keeps a weak one:
# without this set a garbage collection can end an activity in the middle.
_running: set[asyncio.Task[Any] | None] = set()


def contained(activity: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Have no `BaseException` leave an activity, for the host would wait until `functionTimeout`.

    Raises:
        ActivityInterruptedError: the activity was cancelled, or its process is ending.
    """

    @functools.wraps(activity)
    async def run(*arguments: P.args, **named: P.kwargs) -> T:
        task = asyncio.current_task()
        _running.add(task)
        try:
            return await activity(*arguments, **named)
        except Exception:
            raise
        except BaseException as exc:
            raise ActivityInterruptedError(f"The activity was interrupted: {type(exc).__name__}") from exc
        finally:
            _running.discard(task)

    return run


@contained
async def post_one(
    given: Mapping[str, Any], resource: Resource, client: DurableClient, access: PartnerAccess
) -> dict[str, Any]:
    """Make one attempt at the record of a `SingleOrder`. Return its outcome.

    Every expected failure is an outcome. An exception is a defect, and the orchestrator defers the record.
    """
    order = from_json(given, SingleOrder)
    text = order.record.encode(errors="surrogatepass")
    async with Shift(client, order, access.timeout) as shift:
        attempt = Attempt(resource, access, shift, order, text, order.key, order.known, order.age, PATIENCE)
        return (await attempt.make()).to_json()


@contained
async def post_batch(
    given: Mapping[str, Any], resource: Resource, client: DurableClient, batches: BatchRecords, access: PartnerAccess
) -> dict[str, Any]:
    """Deliver the records of a `BatchOrder`. Return an `OrderResult`.

    What is not done when time is up, or when the batch has been ended, is left.
    """
    order = from_json(given, BatchOrder)
    try:
        records = await batches.of(order.instance_id, order.digest, client)
    except DeliveryRefusedError:
        return to_json(OrderResult(left_for=1.0, reason="The records of the batch cannot be read now"))
    except DeliveryInputError as exc:
        return to_json(OrderResult(rejected={index: {"reason": str(exc)} for index in order.records}))
    async with Shift(client, order, access.timeout) as shift:
        work = _BatchWork(order, resource, access, shift, records)
        await asyncio.gather(*(work.one_after_the_other() for _ in range(min(order.chunk, len(order.records)))))
    return to_json(work.result())


class _BatchWork:
    """An activity's work on the records of an order. Ages are of the batch, in seconds."""

    def __init__(
        self, order: BatchOrder, resource: Resource, access: PartnerAccess, shift: Shift, records: Records
    ) -> None:
        self._order = order
        self._resource = resource
        self._access = access
        self._shift = shift
        self._records = records
        self._clock = asyncio.get_running_loop().time
        self._birth: float = self._clock() - order.age
        self._waiting = iter(order.records)
        self._due: list[tuple[float, int]] = []  # a heap of ages and indices
        self._held: list[Outcome] = []
        self._result = OrderResult()

    async def one_after_the_other(self) -> None:
        """Try records until none is left, or time is up. So many of these as `chunk` says run at a time."""
        while not self._shift.is_over and (turn := self._next()) is not None:
            due, index = turn
            if (wait := due - self._age()) > 0:
                await asyncio.sleep(wait)
                if self._shift.is_over:
                    return
            self._take(index, await self._outcome_of(index))

    def result(self) -> OrderResult:
        """Return what became of the records."""
        result, end = self._result, self._age()
        for index, deferral in result.deferred.items():
            deferral.facts = fitted_facts(deferral.facts)
            result.deferred[index] = deferral.since(end)
        result.left_for = min((held.retry_after for held in self._held if held.retry_after), default=0.0)
        result.reason = self._held[0].reason if self._held else None
        result.limit = self._access.limit()
        return result

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
        linger = self._shift.patience(self._order.linger)
        return heapq.heappop(self._due) if self._due and self._due[0][0] - age < linger else None

    def _known(self, index: int) -> Deferral:
        return self._result.deferred.get(index) or self._order.known.get(index) or Deferral()

    def _take(self, index: int, outcome: Outcome) -> None:
        """Take in what came of an attempt."""
        result = self._result
        if outcome.kind != "deferred":
            result.deferred.pop(index, None)
        if outcome.kind == "created":
            result.created.add(index)
        elif outcome.kind == "exists":
            result.exists.add(index)
        elif outcome.kind == "rejected":
            result.rejected[index] = fitted_facts({"recordId": outcome.record_id, **outcome.facts()})
        elif not outcome.was_held or outcome.is_uncertain:
            deferral = result.deferred[index] = self._known(index)
            deferral.enter(outcome, self._age(), self._order.retry, f"{self._order.instance_id}/{index}")
            if deferral.due <= self._order.retry.deadline:
                heapq.heappush(self._due, (deferral.due, index))
        # The partner was not asked: the next order asks again.
        elif index in result.deferred:
            result.deferred[index].due = self._age() + (outcome.retry_after or 0.0)
        else:
            self._held.append(outcome)

    async def _outcome_of(self, index: int) -> Outcome:
        (text, key), known, age = self._records[index], self._known(index), self._age()
        try:
            return await Attempt(
                self._resource, self._access, self._shift, self._order, text, key, known, age, WORK
            ).make()
        except Exception as exc:
            # A defect in one record must not take those beside it along.
            id_ = shown_id(self._resource, text)
            fields = {"instance_id": self._order.instance_id, "record_id": id_}
            logger.exception("delivery attempt failed", extra=fields)
            reason = f"The attempt failed, and may have posted: {type(exc).__name__}, a defect that is in the log"
            return Outcome("deferred", id_, reason=reason, is_uncertain=True)


class BatchRecords:
    """The records of batches, each read once from its orchestration's input. Belongs to one event loop.

    Keeps the `most` batches used last. They are kept by the digest of their records: after a purge an old instance id
    may stand for new ones.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._batches: OrderedDict[tuple[str, str], asyncio.Task[Records]] = OrderedDict()

    async def of(self, instance_id: str, digest: str, client: DurableClient) -> Records:
        """Return the records of a batch; concurrent callers share the reading.

        Raises:
            LookupError: there is no such batch with these records.
            DeliveryInputError: they cannot be unpacked.
            DeliveryRefusedError: Durable Functions does not answer.
        """
        key = instance_id, digest
        batch = self._batches.get(key)
        if batch is None or (batch.done() and (batch.cancelled() or batch.exception() is not None)):
            batch = self._batches[key] = asyncio.create_task(_read(instance_id, digest, client))
        self._batches.move_to_end(key)
        while len(self._batches) > self._most:
            self._batches.popitem(last=False)
        return await asyncio.shield(batch)


async def _read(instance_id: str, digest: str, client: DurableClient) -> Records:
    instance = await client.find(instance_id, show_input=True)
    if instance is None or not isinstance(instance.input, dict) or instance.input.get("digest") != digest:
        raise LookupError(f"There is no batch with the instance id {instance_id} and the digest {digest}")
    return list(zip(records_of(instance.input), keys_of(instance.input, instance_id), strict=True))
