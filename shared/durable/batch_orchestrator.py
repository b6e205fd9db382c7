"""The orchestrator of a batch. The rules of orchestrators.py hold here too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from shared.delivery.activity_failure import ended, failure_reason
from shared.delivery.batch import BatchBooks, OrderResult, Rejection
from shared.delivery.batch_input import records_of, total_of
from shared.delivery.delivery_input import check_batch
from shared.delivery.external_id import shown_external_id
from shared.delivery.retry import RetryPolicy, retry_wait

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from shared.delivery.orchestration_context import OrchestrationContext

POST_BUSINESSES = "PostBusinesses"
# For an input that names none.
CHUNK = 50
# What was in activities that failed is divided among so many.
SUSPECT_ORDERS = 8


def deliver_batch(context: OrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Deliver a batch of businesses; give the counts, and every rejected record with its index, id and reason.

    Input: `{"total", "digest", "packed", "keys", "retry": {…}, "lookUp": "always" | "uncertain", "chunk", "parallel",
    "order", "pause"}`, the first four as `batch_input` has them. It begins after `pause` seconds, if any. `parallel`
    activities at a time have at most `order` records each, and post `chunk` of these at a time. The records are not
    handed on: an activity is told their indices and reads them from this input, so that the history has each record
    once. Deferred records go into the next round; a round in which nothing moved makes the wait longer.

    Raises:
        DeliveryError: the input is none of the intake's.
    """
    batch = check_batch(context.get_input())
    total = total_of(batch)
    policy = RetryPolicy.from_json(batch.get("retry", {}))
    start = context.current_utc_datetime
    deadline = start + timedelta(seconds=policy.deadline)
    books = BatchBooks(total, set(range(total)) if batch.get("lookUp", "always") != "uncertain" else set())
    if "pause" in batch:
        yield context.create_timer(start + timedelta(seconds=batch["pause"]))
    number = idle_rounds = 0
    while pending := books.pending():
        number += 1
        age = (context.current_utc_datetime - start).total_seconds()
        order = {
            "instanceId": context.instance_id,
            "digest": batch["digest"],
            "attempt": number,
            "age": age,
            "chunk": batch.get("chunk", CHUNK),
        }
        deferred = yield from _post_round(context, books, pending, batch, order)
        if not books.pending():
            break
        idle_rounds = idle_rounds + 1 if len(books.pending()) == len(pending) else 1
        wishes = [result.retry_after for result in deferred if result.retry_after is not None]
        seed = f"{context.instance_id}/{number}"
        wait = retry_wait(policy, idle_rounds, seed, max(wishes, default=None))
        next_round = context.current_utc_datetime + timedelta(seconds=wait)
        reason = next((result.reason for result in deferred if result.reason), "deferred")
        if next_round > deadline:
            _give_up(books, records_of(batch), f"given up after {number} rounds, at the deadline: {reason}")
            break
        context.set_custom_status({**books.progress(), "nextRound": next_round.isoformat(), "reason": reason})
        yield context.create_timer(next_round)
    context.set_custom_status(books.progress())
    return books.result()


def _post_round(
    context: OrchestrationContext,
    books: BatchBooks,
    pending: Sequence[int],
    batch: dict[str, Any],
    order: dict[str, Any],
) -> Generator[Any, Any, list[OrderResult]]:
    """Post every pending record, by some activities at a time; give the results that have deferred records.

    `order` is what every activity of the round is told, beside the indices of its records. Once the partner is in
    trouble the rest of the round is left for the next one.
    """
    deferred: list[OrderResult] = []
    for wave in _waves(books, pending, batch):
        context.set_custom_status(books.progress(posting=[index for indices in wave for index in indices]))
        records = [[[index, index in books.to_look_up] for index in indices] for indices in wave]
        activities = [context.call_activity(POST_BUSINESSES, {**order, "records": each}) for each in records]
        for result in (yield from _results_of(context, activities, wave)):
            books.enter(result)
            if result.deferred:
                deferred.append(result)
        if any(result.retry_after is not None for result in deferred):
            break
    return deferred


def _results_of(
    context: OrchestrationContext, activities: Sequence[Any], wave: Sequence[Sequence[int]]
) -> Generator[Any, Any, list[OrderResult]]:
    """Wait for all activities of a wave; where one failed, its records are deferred, and may have been posted."""
    yield from ended(context.task_all(activities))
    for activity in activities:
        # The first that failed has ended the wait for all of them. What is there is not waited for: each such wait is
        # a step deeper into the SDK's recursion.
        if not activity.is_completed:
            yield from ended(activity)
    return [_result(activity.result, indices) for activity, indices in zip(activities, wave, strict=True)]


def _result(result: Any, indices: Sequence[int]) -> OrderResult:  # noqa: ANN401, any JSON, or what the activity raised
    if isinstance(result, Exception):
        return OrderResult(deferred=indices, uncertain=indices, reason=failure_reason(result), is_lost=True)
    return OrderResult.from_json(result)


def _waves(books: BatchBooks, pending: Sequence[int], batch: dict[str, Any]) -> list[list[Sequence[int]]]:
    """Divide the pending records into orders, and these into those that go at a time.

    Where an activity failed, one of its records may be the cause, by the memory that it takes for one, and ends the
    worker process with all that runs in it. So these go last, one order at a time, and a fraction of what failed is in
    each: after a few rounds such a record is alone, and the others are delivered.
    """
    parallel: int = batch.get("parallel", 1)
    suspects = [index for index in pending if index in books.suspects]
    others = [index for index in pending if index not in books.suspects]
    orders = _orders(others, _order_size(batch, len(others), parallel))
    waves = [orders[start : start + parallel] for start in range(0, len(orders), parallel)]
    return waves + [[order] for order in _orders(suspects, max(1, -(-len(suspects) // SUSPECT_ORDERS)))]


def _orders(indices: Sequence[int], size: int) -> list[Sequence[int]]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _order_size(batch: dict[str, Any], pending: int, parallel: int) -> int:
    """Give the number of records of one order: as many as keep all activities busy, from a chunk to the most.

    Batches of version 0.1 name no most: each of their orders is a chunk.
    """
    chunk: int = batch.get("chunk", CHUNK)
    most: int = batch.get("order", chunk)
    return max(chunk, min(most, -(-pending // parallel)))


def _give_up(books: BatchBooks, businesses: Sequence[object], reason: str) -> None:
    for index in books.pending():
        books.rejected[index] = Rejection(index, shown_external_id(businesses[index]), reason)
