"""The orchestrators of a record and of a batch: deterministic generators over plain JSON.

They are replayed from the start at every step: no clock but the context's, no randomness, no environment, no I/O, no
logging. docs/how-to/roll-back.md says how to change them: instances in flight replay their history with the new code.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from shared.durable import inputs
from shared.durable.inputs import BatchInput, BatchOrder, SingleInput, SingleOrder
from shared.durable.progress import BatchBooks, Deferral, OrderResult, wake_at
from shared.errors import DeliveryInputError
from shared.rules.outcome import Outcome, fitted
from shared.rules.record import shown_id
from shared.rules.text import shortened

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from shared.durable.inputs import DeliveryInput
    from shared.resource import Resource

    # The Durable SDK's DurableOrchestrationContext and tasks: it has no types, and function_app.py alone imports it.
    Context = Any
    Task = Any
    Output = dict[str, Any]

ATTEMPTS_OF_A_RUN = 20
"""After so many attempts an orchestration continues as new, so that its history stays small."""

LINGER = 10.0
"""Seconds that an activity waits for a deferred record when all others of its order are done."""

SUSPECT_ORDERS = 8
"""The records of activities that failed are divided among so many."""


def deliver_one(context: Context, resource: Resource) -> Generator[Any, Any, Output | None]:
    """Deliver the record of a `SingleInput`.

    The output is `{"state": "delivered" | "rejected" | "expired", "recordId", "attempts", …}`.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    delivery = inputs.from_json(context.get_input(), SingleInput)
    policy, record, began = delivery.terms.retry, delivery.progress, context.current_utc_datetime
    record.is_uncertain |= delivery.uncertain
    record.facts.setdefault("recordId", shown_id(resource, delivery.record))
    if delivery.pause:
        # An earlier activity may have posted since a look-up missed the record.
        record.absent_at = None
    start = yield from _started(context, delivery, record.shown())
    for turn in range(ATTEMPTS_OF_A_RUN):
        context.set_custom_status(fitted({"state": "delivering", **record.shown()}))
        order = SingleOrder(
            **_circumstances(context, delivery, began, start),
            record=delivery.record,
            key=delivery.key or inputs.idempotency_key(context.instance_id),
            known=record.told(),
        )
        result = yield from _ended(context.call_activity(resource.post_one, inputs.to_json(order)))
        if isinstance(result, Exception):
            outcome = Outcome("deferred", record.facts["recordId"], reason=_lost(result), is_uncertain=True)
        else:
            outcome = Outcome.from_json(result)
        record.enter(outcome, _age(context, start), policy, f"{context.instance_id}/{turn}")
        if outcome.kind != "deferred":
            record.is_uncertain = False
            kind = {} if outcome.kind == "rejected" else {"outcome": outcome.kind}
            return _finished(context, {"state": "delivered" if kind else "rejected", **kind, **record.shown()})
        # A record that nobody could try has as much time again.
        if record.due > policy.deadline * (1 if record.attempts else 2):
            reason = f"The deadline of {policy.deadline:.15g} s would pass before the next attempt. {outcome.reason}"
            return _finished(context, {"state": "expired", **record.shown(), "reason": reason})
        yield from _wait(context, start + timedelta(seconds=record.due), record.shown())
    _continue_as_new(context, start, record)
    return None


def deliver_batch(context: Context, resource: Resource) -> Generator[Any, Any, Output | None]:
    """Deliver the records of a `BatchInput`. A deferred record waits for its own time while the others go on.

    The output is `{"state": "delivered" | "partly", counts, "rejections": […]}`.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    batch = inputs.from_json(context.get_input(), BatchInput)
    began = context.current_utc_datetime
    books = batch.progress or BatchBooks({index: Deferral() for index in range(batch.total)})
    for index, record in books.pending.items():
        record.is_uncertain |= index in batch.uncertain
        record.absent_at = None if batch.pause else record.absent_at  # the same
    start = yield from _started(context, batch, books.progress())
    pace = _Pace(len(books.pending), _age(context, start))
    waves = 0
    while books.pending and waves < ATTEMPTS_OF_A_RUN:
        age = _age(context, start)
        said = pace.facts(len(books.pending), age, start, batch.terms.retry.deadline)
        ready = [index for index, record in books.pending.items() if record.due <= age]
        if not ready:
            wake = wake_at([record.due for record in books.pending.values()], age)
            yield from _wait(context, start + timedelta(seconds=wake), {**books.progress(), **said})
            continue
        waves += 1
        wave = _next_wave(ready, books.suspects, batch)
        posting = [index for indices in wave for index in indices]
        context.set_custom_status(fitted({"state": "delivering", **books.progress(posting), **said}))
        # Whoever waits in an activity holds up the records of the next wave.
        linger = LINGER if len(posting) == len(ready) else 0.0
        circumstances = _circumstances(context, batch, began, start)
        orders = [_order(books, indices, batch, linger, circumstances) for indices in wave]
        activities = [context.call_activity(resource.post_batch, inputs.to_json(order)) for order in orders]
        yield from _all_ended(context, activities)
        pace.said = _enter(books, orders, [activity.result for activity in activities], _age(context, start))
    if books.pending:
        _continue_as_new(context, start, books.fitting())
        return None
    return _finished(context, _output(books, context, resource), books.progress())


def first_start(context: Context, began: datetime) -> datetime:
    """Return when a delivery began whose present run `began` at this time. The run has accepted its input."""
    start = context.get_input().get("start")
    return datetime.fromisoformat(start) if start else began


def _started(context: Context, delivery: DeliveryInput, status: Output) -> Generator[Any, Any, datetime]:
    """Wait for the pause. Return when the delivery started: its deadline counts from the first attempt."""
    if delivery.pause:
        until = context.current_utc_datetime + timedelta(seconds=delivery.pause)
        yield from _wait(context, until, {**status, "reason": "Waiting until no earlier attempt can be under way"})
    return delivery.start or context.current_utc_datetime


def _wait(context: Context, until: datetime, status: Output) -> Generator[Any, Any, None]:
    """Wait on a durable timer, and say so in the custom status."""
    context.set_custom_status(fitted({"state": "waiting", **status, "nextAttempt": until.isoformat()}))
    yield context.create_timer(until)


def _ended(task: Task) -> Generator[Any, Any, Any]:
    """Wait for a task. Return its result, or what it raised."""
    try:
        return (yield task)
    except Exception as exc:  # noqa: BLE001, the Durable SDK raises nothing narrower
        return exc


def _all_ended(context: Context, activities: Sequence[Task]) -> Generator[Any, Any, None]:
    yield from _ended(context.task_all(activities))
    for activity in activities:
        # The first failure has ended the wait for all. Those that are there are not waited for: each such wait is a
        # step deeper into the SDK's recursion.
        if not activity.is_completed:
            yield from _ended(activity)


def _finished(context: Context, output: Output, status: Output | None = None) -> Output:
    shown = status or {name: output[name] for name in ("recordId", "attempts")}
    context.set_custom_status(fitted({"state": output["state"], **shown}))
    return output


def _continue_as_new(context: Context, start: datetime, progress: Deferral | BatchBooks) -> None:
    """Start the orchestration again under its id with what is known, and an empty history."""
    input_ = {name: value for name, value in context.get_input().items() if name not in {"pause", "uncertain"}}
    context.continue_as_new({**input_, "start": start.isoformat(), "progress": inputs.to_json(progress)})


def _age(context: Context, start: datetime) -> float:
    seconds: float = (context.current_utc_datetime - start).total_seconds()
    return seconds


def _circumstances(context: Context, delivery: DeliveryInput, began: datetime, start: datetime) -> dict[str, Any]:
    """Return the members of an `Order` that say who gives it, and when."""
    return {
        "instance_id": context.instance_id,
        "began": began,
        "scheduled": context.current_utc_datetime,
        "age": _age(context, start),
        "settle": delivery.terms.settle,
    }


def _lost(failure: Exception) -> str:
    """Say why an activity has no result, in one line.

    The Durable extension repeats an activity after the loss of its host. Where only the worker process has ended, or an
    activity exceeded `functionTimeout`, the activity fails; a defect of the app looks the same. Nobody knows how far
    any of them came. The text is the extension's sentence and, after a line break between two spaces, a traceback,
    which stays in the host's log.
    """
    sentence = " ".join(str(failure).partition(" \n ")[0].split())
    return shortened(f"The attempt ended without a result, and may have posted: {sentence}", 400)


def _next_wave(ready: Sequence[int], suspects: set[int], batch: BatchInput) -> list[Sequence[int]]:
    """Divide the records that are ready into orders for activities that run at a time.

    If an activity failed, one of its records may be the cause, for example by the memory that it takes, and end the
    worker process with all that runs in it. So these records go last, one order at a time, and each order has a
    fraction of what failed: after a few rounds such a record is alone, and the others are delivered.
    """
    others: Sequence[int] = [index for index in ready if index not in suspects]
    if not others:
        return [ready[: max(1, -(-len(ready) // SUSPECT_ORDERS))]]
    # As many records as keep all activities busy, from a chunk to the most of an order.
    options = batch.terms
    size = max(options.chunk, min(options.order, -(-len(others) // options.parallel)))
    return [others[first : first + size] for first in range(0, len(others), size)][: options.parallel]


def _order(
    books: BatchBooks, indices: Sequence[int], batch: BatchInput, linger: float, circumstances: dict[str, Any]
) -> BatchOrder:
    known = {index: books.pending[index].told() for index in indices}
    return BatchOrder(
        **circumstances,
        digest=batch.digest,
        records=list(indices),
        known={index: record for index, record in known.items() if record != Deferral()},
        chunk=batch.terms.chunk,
        retry=batch.terms.retry,
        linger=linger,
    )


def _enter(books: BatchBooks, orders: Sequence[BatchOrder], results: Sequence[Any], age: float) -> dict[str, Any]:
    """Enter what became of the orders of a wave. Return what the activities say of the partner."""
    is_stalled = True
    limits: list[float] = []
    reasons: list[str] = []
    for order, result in zip(orders, results, strict=True):
        if isinstance(result, Exception):
            books.enter_lost(order.records, _lost(result), age, order.retry, f"{order.instance_id}/{age}")
            continue
        entry = inputs.from_json(result, OrderResult)
        books.enter(order.records, entry, age)
        is_stalled = is_stalled and not (entry.created or entry.exists or entry.rejected or entry.deferred)
        limits += [entry.limit] if entry.limit else []
        reasons += filter(None, [entry.reason, *(record.facts["reason"] for record in entry.deferred.values())])
    books.expire(age, orders[0].retry.deadline, is_stalled=is_stalled)
    return ({"limit": round(limits[-1], 1)} if limits else {}) | ({"reason": reasons[0]} if reasons else {})


def _output(books: BatchBooks, context: Context, resource: Resource) -> Output:
    rejections = [*books.fitting().rejections.values()]
    unnamed = [rejection for rejection in rejections if not rejection["recordId"]]
    try:
        texts = inputs.records_of(context.get_input()) if unnamed else []
        for rejection in unnamed:
            rejection["recordId"] = shown_id(resource, texts[rejection["index"]])
    except DeliveryInputError:
        pass  # nobody can read them
    return {"state": "partly" if rejections else "delivered", **books.counts(), "rejections": rejections}


class _Pace:
    """How fast a run of the batch's orchestration goes, for its custom status; `said` is what its activities say."""

    def __init__(self, pending: int, age: float) -> None:
        self._pending = pending
        self._age = age
        self.said: dict[str, Any] = {}

    def facts(self, pending: int, age: float, start: datetime, deadline: float) -> dict[str, Any]:
        """Return the records per second, the limit found, the estimated end, and why records wait."""
        done, seconds = self._pending - pending, age - self._age
        if done <= 0 or seconds <= 0:
            return self.said
        end = start + timedelta(seconds=age + min(pending * seconds / done, deadline))
        return {
            **self.said,
            "recordsPerSecond": round(done / seconds, 1),
            "estimatedEnd": end.isoformat(timespec="seconds"),
        }
