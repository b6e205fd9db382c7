"""The orchestrator of a batch. The rules of orchestrators.py hold here too."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from shared.durable.batch import BatchBooks, OrderResult, from_ranges, to_ranges, wake_at
from shared.durable.batch_input import records_of
from shared.durable.delivery_options import DeliveryOptions, check_batch
from shared.durable.orchestrators import ATTEMPTS_OF_A_RUN, SETTLING, ended, failure_reason, wait_until
from shared.errors import DeliveryInputError
from shared.rules.outcome import fitted
from shared.rules.record import shown_id

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from shared.durable.orchestrators import OrchestrationContext
    from shared.resource import Resource

LINGER = 10.0
"""Seconds that an activity waits for a deferred record when all others of its order are done."""

SUSPECT_ORDERS = 8
"""The records of activities that failed are divided among so many."""


def deliver_batch(context: OrchestrationContext, resource: Resource) -> Generator[Any, Any, dict[str, Any] | None]:
    """Deliver a batch. The output is `{"state": "delivered" | "partly", counts, "rejections": […]}`.

    Input: `{"resource", "total", "digest", "packed", "keys"?, "uncertain"?, "terms", "pause"?, "progress"?}`, the first
    five as batch_input.py has them. `uncertain` names the records that an earlier delivery may have stored, as ranges;
    `pause` is the seconds to wait first. `progress` is what an earlier run of this orchestration knew. The records are
    not handed on: an activity is told their indices and reads them from this input, so the history has them once.

    A deferred record waits for its own time while the others go on.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    batch = check_batch(context.get_input())
    options = DeliveryOptions.from_json(batch["terms"])
    known: dict[str, Any] = batch.get("progress", {})
    books = BatchBooks.from_json(batch["total"], options.retry, known)
    books.uncertain |= from_ranges(batch.get("uncertain", ""))
    began = context.current_utc_datetime
    if "pause" in batch:
        # An earlier activity may have posted since a look-up missed a record.
        books.forget_absence()
        paused = {**books.progress(), "reason": SETTLING}
        yield from wait_until(context, began + timedelta(seconds=batch["pause"]), paused)
    # The deadline counts from the first attempt.
    start = datetime.fromisoformat(known["start"]) if "start" in known else context.current_utc_datetime
    pace = _Pace(books, (context.current_utc_datetime - start).total_seconds())
    waves = 0
    while (pending := books.pending()) and waves < ATTEMPTS_OF_A_RUN:
        now = context.current_utc_datetime
        age = (now - start).total_seconds()
        dues = [books.deferrals[index].due if index in books.deferrals else 0.0 for index in pending]
        ready = [index for index, due in zip(pending, dues, strict=True) if due <= age]
        if not ready:
            status = {**books.progress(), **pace.facts(books, now, age)}
            yield from wait_until(context, start + timedelta(seconds=wake_at(dues, age)), status)
            continue
        waves += 1
        wave = _next_wave(ready, books.suspects, options)
        posting = [index for order in wave for index in order]
        context.set_custom_status(
            fitted({"state": "delivering", **books.progress(posting), **pace.facts(books, now, age)})
        )
        order = {
            "instanceId": context.instance_id,
            "digest": batch["digest"],
            "age": age,
            "began": began.isoformat(),
            "scheduled": now.isoformat(),
            "chunk": options.chunk,
            "settle": options.settle,
            "retry": options.retry.to_json(),
            # Whoever waits here holds up the records of the next wave.
            "linger": LINGER if len(posting) == len(ready) else 0.0,
        }
        activities = [
            context.call_activity(resource.post_batch, {**order, **_records(books, indices)}) for indices in wave
        ]
        results = yield from _results(context, activities)
        age = (context.current_utc_datetime - start).total_seconds()
        _enter(books, wave, results, age, f"{context.instance_id}/{age}")
        pace.note(results)
    progress = {"start": start.isoformat(), **books.to_json()}
    if books.pending():
        again = {name: value for name, value in batch.items() if name not in {"pause", "uncertain"}}
        context.continue_as_new({**again, "progress": progress})
        return None
    result = books.result(lambda index: _id_of(resource, batch, index))
    context.set_custom_status(fitted({"state": result["state"], **books.progress()}))
    return result


def _results(context: OrchestrationContext, activities: Sequence[Any]) -> Generator[Any, Any, list[Any]]:
    """Wait for all activities of a wave. Return their results, or what they raised."""
    yield from ended(context.task_all(activities))
    for activity in activities:
        # The first failure has ended the wait for all. Those that are there are not waited for: each such wait is a
        # step deeper into the SDK's recursion.
        if not activity.is_completed:
            yield from ended(activity)
    return [activity.result for activity in activities]


def _enter(books: BatchBooks, wave: Sequence[Sequence[int]], results: Sequence[Any], age: float, seed: str) -> None:
    is_stalled = True
    for indices, result in zip(wave, results, strict=True):
        if isinstance(result, Exception):
            books.enter_lost(indices, failure_reason(result), age, seed)
            continue
        entry = OrderResult.from_json(result)
        books.enter(entry, age)
        is_stalled = is_stalled and not entry.outcomes and not entry.deferrals
    books.expire(age, is_stalled=is_stalled)


def _next_wave(ready: Sequence[int], suspects: set[int], options: DeliveryOptions) -> list[Sequence[int]]:
    """Divide the records that are ready into orders for activities that run at a time.

    If an activity failed, one of its records may be the cause, for example by the memory that it takes, and end the
    worker process with all that runs in it. So these records go last, one order at a time, and each order has a
    fraction of what failed: after a few rounds such a record is alone, and the others are delivered.
    """
    others: Sequence[int] = [index for index in ready if index not in suspects]
    if not others:
        return [ready[: max(1, -(-len(ready) // SUSPECT_ORDERS))]]
    # As many records as keep all activities busy, from a chunk to the most of an order.
    size = max(options.chunk, min(options.order, -(-len(others) // options.parallel)))
    return [others[first : first + size] for first in range(0, len(others), size)][: options.parallel]


def _records(books: BatchBooks, indices: Sequence[int]) -> dict[str, Any]:
    """Return what an activity is told of the records of its order."""
    known = ((index, books.deferrals[index]) for index in indices if index in books.deferrals)
    told = {
        "records": to_ranges(indices),
        "uncertain": to_ranges(index for index in indices if index in books.uncertain),
        "deferred": [[index, each.attempts, each.absent_at] for index, each in known if each.attempts],
    }
    return {name: value for name, value in told.items() if value}


def _id_of(resource: Resource, batch: Mapping[str, Any], index: int) -> str:
    try:
        return shown_id(resource, records_of(batch)[index])
    except DeliveryInputError:
        return ""


class _Pace:
    """How fast a run of the batch's orchestration goes, for its custom status."""

    def __init__(self, books: BatchBooks, age: float) -> None:
        self._age = age
        self._done = books.total - len(books.pending())
        self._said: dict[str, Any] = {}

    def note(self, results: Sequence[Any]) -> None:
        """Take in what the activities say of the partner."""
        said = [result for result in results if isinstance(result, dict)]
        limits = [result["limit"] for result in said if result.get("limit")]
        reasons = [result["reason"] for result in said if result.get("reason")]
        reasons += [each["reason"] for result in said for each in result.get("deferred", ()) if each.get("reason")]
        self._said = {"limit": round(limits[-1], 1)} if limits else {}
        if reasons:
            self._said["reason"] = reasons[0]

    def facts(self, books: BatchBooks, now: datetime, age: float) -> dict[str, Any]:
        """Return the records per second, the limit found, the estimated end, and why records wait."""
        left = len(books.pending())
        done = books.total - left - self._done
        if done <= 0 or age <= self._age:
            return self._said
        rate = done / (age - self._age)
        end = now + timedelta(seconds=min(left / rate, books.policy.deadline))
        return {**self._said, "recordsPerSecond": round(rate, 1), "estimatedEnd": end.isoformat(timespec="seconds")}
