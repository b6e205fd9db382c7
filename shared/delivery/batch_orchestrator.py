"""The orchestrator of a batch. The rules of orchestrators.py hold here too."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from shared.delivery.batch import BatchBooks, ChunkResult, Rejection
from shared.delivery.retry import RetryPolicy, retry_wait

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from shared.delivery.orchestration_context import OrchestrationContext

POST_BUSINESSES = "PostBusinesses"


def deliver_batch(context: OrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Deliver a batch of businesses; give the counts, and every rejected record with its index, id and reason.

    Input: `{"businesses": […], "digest", "retry": {…}, "lookUp": "always" | "uncertain", "chunk", "parallel"}`. The
    records are not handed on: an activity is told their indices and reads them from this input, so that the history has
    each record once. Deferred records go into the next round; a round in which nothing moved makes the wait longer.
    """
    batch = context.get_input()
    total = len(batch["businesses"])
    policy = RetryPolicy.from_json(batch.get("retry", {}))
    start = context.current_utc_datetime
    deadline = start + timedelta(seconds=policy.deadline)
    books = BatchBooks(total, set(range(total)) if batch.get("lookUp", "always") != "uncertain" else set())
    number = idle_rounds = 0
    while pending := books.pending():
        number += 1
        age = (context.current_utc_datetime - start).total_seconds()
        order = {"instanceId": context.instance_id, "digest": batch["digest"], "attempt": number, "age": age}
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
            _give_up(books, batch["businesses"], f"given up after {number} rounds, at the deadline: {reason}")
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
) -> Generator[Any, Any, list[ChunkResult]]:
    """Post every pending record, some chunks at a time; give the results that have deferred records.

    `order` is what every activity of the round is told, beside the indices of its records. Once the partner is in
    trouble the rest of the round is left for the next one.
    """
    size = batch.get("chunk", 50)
    chunks = [pending[start : start + size] for start in range(0, len(pending), size)]
    parallel = batch.get("parallel", 1)
    deferred: list[ChunkResult] = []
    for start in range(0, len(chunks), parallel):
        wave = chunks[start : start + parallel]
        context.set_custom_status(books.progress(posting=[index for chunk in wave for index in chunk]))
        records = [[[index, index in books.to_look_up] for index in chunk] for chunk in wave]
        results = yield context.task_all(
            [context.call_activity(POST_BUSINESSES, {**order, "records": chunk}) for chunk in records]
        )
        for result in map(ChunkResult.from_json, results):
            books.enter(result)
            if result.deferred:
                deferred.append(result)
        if any(result.retry_after is not None for result in deferred):
            break
    return deferred


def _give_up(books: BatchBooks, businesses: Sequence[dict[str, Any]], reason: str) -> None:
    for index in books.pending():
        books.rejected[index] = Rejection(index, str(businesses[index].get("externalId")), reason)
