"""The activities: one attempt at a record, or at each record of an order. Plain JSON goes in and comes out."""

from __future__ import annotations

import asyncio
import functools
import math
from collections import deque
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from msgspec.structs import replace

from shared.durable.attempt import LOOK, WORK, Attempt, Shift
from shared.durable.inputs import BatchInput, Order, from_json, records_of, to_json
from shared.durable.progress import Deferral, OrderResult, room_of_one
from shared.errors import ActivityInterruptedError, DeliveryInputError, RefusedError
from shared.rules.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from shared.durable.attempt import PartnerAccess
    from shared.durable.durable_client import DurableClient
    from shared.resource import Resource

    # The text of each record of a batch, and its idempotency key.
    Records = list[tuple[bytes, str]]

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE = 5.0
"""Seconds that an attempt at a single record waits for its turn. A longer wait is a durable timer's."""

# The Functions worker keeps no reference to the task in which it runs an activity, and asyncio keeps a weak one:
# without this set a garbage collection can end an activity in the middle.
_running: set[asyncio.Task[Any] | None] = set()


def contained(activity: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let no `BaseException` leave an activity: the host would wait until `functionTimeout`."""

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
    """Make one attempt at the record of an `Order`. Return its outcome."""
    order = from_json(given, Order)
    text, known = order.record.encode(errors="surrogatepass"), order.known.get(0) or Deferral()
    async with Shift(client, order, access.timeout) as shift:
        outcome = await Attempt(resource, access, shift, text, order.key, known, PATIENCE).make()
    return to_json(outcome.fitted())


@contained
async def post_batch(
    given: Mapping[str, Any], resource: Resource, client: DurableClient, batches: BatchRecords, access: PartnerAccess
) -> dict[str, Any]:
    """Make one attempt at each record of an `Order`, `chunk` of them at a time. Return an `OrderResult`.

    What is not done when time is up, or when the batch has been ended, is left. A record whose attempt is uncertain is
    looked up again while others are tried: an absence counts from then, and not from the next order.
    """
    order = from_json(given, Order)
    try:
        records = await batches.of(order.instance_id, order.digest, client)
    except RefusedError:
        return to_json(OrderResult(left_for=1.0, reason="The records of the batch cannot be read now"))
    except DeliveryInputError as exc:
        return to_json(OrderResult(dict.fromkeys(order.records, Outcome("rejected", "", reason=str(exc)))))
    ended: dict[int, tuple[Outcome, float]] = {}
    waiting, uncertain = iter(order.records), deque[tuple[float, int]]()
    async with Shift(client, order, access.timeout) as shift:

        def next_one() -> int | None:
            if uncertain and uncertain[0][0] <= shift.seconds:
                return uncertain.popleft()[1]
            return next(waiting, None)

        async def one_after_the_other() -> None:
            while shift.left and (index := next_one()) is not None:
                text, key = records[index]
                known, earlier = order.known.get(index) or Deferral(), ended.get(index)
                if earlier is not None:
                    known = replace(known, is_uncertain=True, absent_at=None)
                outcome = await Attempt(resource, access, shift, text, key, known, WORK).make()
                if earlier is None and resource.look_up is not None and _is_worth_a_look(outcome):
                    uncertain.append((shift.seconds + LOOK, index))
                ended[index] = _latest(earlier, (outcome, shift.seconds))

        await asyncio.gather(*(one_after_the_other() for _ in range(min(order.chunk, len(order.records)))))
    result = OrderResult(limit=access.turns.snapshot()["limit"])
    _enter(result, ended, shift.seconds, room_of_one(len(records)))
    return to_json(result)


def _is_worth_a_look(outcome: Outcome) -> bool:
    is_new = outcome.kind == "deferred" and outcome.is_uncertain and not outcome.is_absent
    # A record that the partner does not want for a time is left alone for it.
    return is_new and outcome.retry_after is None


def _latest(earlier: tuple[Outcome, float] | None, now: tuple[Outcome, float]) -> tuple[Outcome, float]:
    """Return what is known of a record, each with its time, after an `earlier` attempt that may have stored it."""
    outcome, seconds = now
    if earlier is None or outcome.kind != "deferred":
        return now
    # Whatever has kept the second attempt from an answer, the first may have stored the record.
    return earlier if outcome.was_held else (replace(outcome, is_uncertain=True), seconds)


def _enter(result: OrderResult, ended: Mapping[int, tuple[Outcome, float]], end: float, most: int) -> None:
    """Enter what became of records, each at its time, as an order that ends now hands it on."""
    for index, (outcome, seconds) in ended.items():
        if outcome.kind in {"created", "exists"}:
            result.outcomes[index] = Outcome(outcome.kind, "")
        elif not outcome.was_held or outcome.is_uncertain:
            ago = math.floor(1000 * (end - seconds)) / 1000
            result.outcomes[index] = replace(outcome.fitted(most, most), differing=[], ago=ago)
        else:
            # The partner was not asked: the next order asks again.
            result.reason = result.reason or outcome.reason
            if wait := outcome.retry_after:
                result.left_for = min(wait, result.left_for or wait)


class BatchRecords:
    """The records of batches, each read once from its orchestration's input. Belongs to one event loop.

    Keeps the `most` batches used last. They are kept by the digest of their records: after a purge an old instance id
    may stand for new ones.
    """

    def __init__(self, most: int = 8) -> None:
        self._most = most
        self._batches: dict[tuple[str, str], asyncio.Task[Records]] = {}  # the last one used is the last

    async def of(self, instance_id: str, digest: str, client: DurableClient) -> Records:
        """Return the records of a batch; concurrent callers share the reading.

        Raises:
            LookupError: there is no such batch with these records.
            DeliveryInputError: they cannot be unpacked.
            RefusedError: Durable Functions does not answer.
        """
        key = instance_id, digest
        batch = self._batches.pop(key, None)
        if batch is None or (batch.done() and (batch.cancelled() or batch.exception() is not None)):
            batch = asyncio.create_task(_read(instance_id, digest, client))
        self._batches[key] = batch
        if len(self._batches) > self._most:
            del self._batches[next(iter(self._batches))]
        return await asyncio.shield(batch)


async def _read(instance_id: str, digest: str, client: DurableClient) -> Records:
    instance = await client.find(instance_id, show_input=True)
    if instance is None or not isinstance(instance.input, dict) or instance.input.get("digest") != digest:
        raise LookupError(f"There is no batch with the instance id {instance_id} and the digest {digest}")
    batch = from_json(instance.input, BatchInput)
    return [(text, batch.key_of(instance_id, index)) for index, text in enumerate(records_of(instance.input))]
