"""The orchestrators of a record and of a batch: deterministic generators over plain JSON.

They are replayed from the start at every step: no clock but the context's, no randomness, no environment, no I/O, no
logging. docs/how-to/roll-back.md says how to change them: instances in flight replay their history with the new code.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from shared.durable.inputs import BatchInput, Order, SingleInput, from_json, idempotency_key, records_of, to_json
from shared.durable.progress import BatchBooks, Deferral, OrderResult
from shared.errors import DeliveryInputError
from shared.rules.outcome import Outcome, fitted_status, shortened
from shared.rules.record import shown_id

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from shared.resource import Resource

    # The Durable SDK's DurableOrchestrationContext and tasks: it has no types, and function_app.py alone imports it.
    Context = Any
    Task = Any
    Output = dict[str, Any]

ATTEMPTS_OF_A_RUN = 20
"""After so many attempts an orchestration continues as new, so that its history stays small."""

SUSPECT_ORDERS = 8
"""The records of activities that failed are divided among so many."""


def deliver_one(context: Context, resource: Resource) -> Generator[Any, Any, Output | None]:
    """Deliver the record of a `SingleInput`.

    The output is `{"state": "delivered" | "rejected" | "expired", "recordId", "attempts", …}`.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    delivery = from_json(context.get_input(), SingleInput)
    run, policy, record = _Run(context, delivery), delivery.terms.retry, delivery.progress
    record.is_uncertain |= delivery.uncertain
    record.facts.setdefault("recordId", shown_id(resource, delivery.record))
    key = delivery.key or idempotency_key(context.instance_id)
    if delivery.pause:
        yield from run.pause([record], record.shown())
    for turn in range(ATTEMPTS_OF_A_RUN):
        run.show("delivering", record.shown())
        order = run.order(record=delivery.record, key=key, known={0: record.told()})
        result = yield from _ended(context.call_activity(resource.post_one, to_json(order)))
        outcome = _lost(result) if isinstance(result, Exception) else from_json(result, Outcome)
        record.enter(outcome, run.age, policy, f"{run.instance_id}/{turn}")
        output = record.shown()
        if outcome.kind == "rejected":
            output = {"state": "rejected", **output}
        elif outcome.kind != "deferred":
            output = {"state": "delivered", "outcome": outcome.kind, **output}
        # A record that nobody could try has as much time again.
        elif record.due > policy.deadline * (1 if record.attempts else 2):
            reason = f"The deadline of {policy.deadline:.15g} s would pass before the next attempt. {outcome.reason}"
            output = {"state": "expired", **output, "reason": reason}
        else:
            yield from run.wait(record.due, output)
            continue
        run.show(output["state"], {"recordId": output["recordId"], "attempts": record.attempts})
        return output
    run.continue_as_new(record)
    return None


def deliver_batch(context: Context, resource: Resource) -> Generator[Any, Any, Output | None]:
    """Deliver the records of a `BatchInput`. A deferred record waits for its own time while the others go on.

    The output is `{"state": "delivered" | "partly", counts, "rejections": […]}`.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    batch = from_json(context.get_input(), BatchInput)
    run, books = _Run(context, batch), batch.progress or BatchBooks({index: Deferral() for index in range(batch.total)})
    for index in batch.uncertain & books.pending.keys():
        books.pending[index].is_uncertain = True
    if batch.pause:
        yield from run.pause(books.pending.values(), books.progress())
        if batch.recoveries:
            # One of its records may have ended the worker in the middle of a turn of this orchestration.
            books.suspects = {*books.pending}
    pending, first_age = len(books.pending), run.age
    said: Output = {}
    waves = 0
    while books.pending and waves < ATTEMPTS_OF_A_RUN:
        age, left = run.age, len(books.pending)
        if pending > left and age > first_age:
            rate = (pending - left) / (age - first_age)
            end = context.current_utc_datetime + timedelta(seconds=min(left / rate, batch.terms.retry.deadline))
            said |= {"recordsPerSecond": round(rate, 1), "estimatedEnd": end.isoformat(timespec="seconds")}
        ready = [index for index, record in books.pending.items() if record.due <= age]
        if not ready:
            wake = min(record.due for record in books.pending.values())
            yield from run.wait(wake, {**books.progress(), **said})
            continue
        waves += 1
        wave = _next_wave(ready, books.suspects, batch)
        run.show("delivering", {**books.progress([index for indices in wave for index in indices]), **said})
        activities = []
        for indices in wave:
            known = {index: books.pending[index].told() for index in indices}
            known = {index: record for index, record in known.items() if record != Deferral()}
            order = run.order(digest=batch.digest, records=indices, known=known, chunk=batch.terms.chunk)
            activities.append(context.call_activity(resource.post_batch, to_json(order)))
        yield from _all_ended(context, activities)
        said = _enter(books, run, wave, [activity.result for activity in activities])
    if books.pending:
        run.continue_as_new(books)
        return None
    output = _output(books, context, resource)
    run.show(output["state"], books.progress())
    return output


def first_start(context: Context, began: datetime) -> datetime:
    """Return when a delivery began whose present run `began` at this time. The run has accepted its input."""
    start = context.get_input().get("start")
    return datetime.fromisoformat(start) if start else began


class _Run:
    """One run of an orchestration. Ages are of the delivery, in seconds: its deadline counts from the first attempt."""

    def __init__(self, context: Context, delivery: SingleInput | BatchInput) -> None:
        self._context = context
        self.instance_id: str = context.instance_id
        self.delivery = delivery
        self._began: datetime = context.current_utc_datetime
        self._start = delivery.start or self._began

    @property
    def age(self) -> float:
        return (self._context.current_utc_datetime - self._start).total_seconds()  # type: ignore[no-any-return]  # the SDK's

    def show(self, state: str, status: Output) -> None:
        self._context.set_custom_status(fitted_status({"state": state, **status}))

    def wait(self, age: float, status: Output) -> Generator[Any, Any, None]:
        """Wait on a durable timer, and say so in the custom status."""
        until = self._start + timedelta(seconds=age)
        self.show("waiting", {**status, "nextAttempt": until.isoformat()})
        yield self._context.create_timer(until)

    def pause(self, records: Iterable[Deferral], status: Output) -> Generator[Any, Any, None]:
        for record in records:
            record.absent_at = None  # an earlier activity may have posted since a look-up missed it
        reason = "Waiting until no earlier attempt can be under way"
        yield from self.wait(self.age + self.delivery.pause, {**status, "reason": reason})
        self._start = self.delivery.start or self._context.current_utc_datetime

    def order(self, **more: Any) -> Order:  # noqa: ANN401, the members of an order
        return Order(
            instance_id=self.instance_id,
            began=self._began,
            scheduled=self._context.current_utc_datetime,
            age=self.age,
            settle=self.delivery.terms.settle,
            **more,
        )

    def continue_as_new(self, progress: Deferral | BatchBooks) -> None:
        """Start the orchestration again under its id with what is known, and an empty history."""
        given = self._context.get_input().items()
        again = {name: value for name, value in given if name not in {"pause", "uncertain"}}
        self._context.continue_as_new({**again, "start": self._start.isoformat(), "progress": to_json(progress)})


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


def _lost(failure: Exception) -> Outcome:
    """Return the outcome of an activity that has no result.

    Its worker process has ended, it exceeded `functionTimeout`, or it has a defect: nobody knows how far it came. The
    text is the extension's sentence and, after a line break between two spaces, a traceback, which stays in the log.
    """
    sentence = " ".join(str(failure).partition(" \n ")[0].split())
    reason = shortened(f"The attempt ended without a result, and may have posted: {sentence}", 400)
    return Outcome("deferred", "", reason=reason, is_uncertain=True)


def _next_wave(ready: list[int], suspects: set[int], batch: BatchInput) -> list[list[int]]:
    """Divide the records that are ready into orders for activities that run at a time.

    If an activity failed, one of its records may be the cause, for example by the memory that it takes, and end the
    worker process with all that runs in it. So these records go last, one order at a time, and each order has a
    fraction of what failed: after a few rounds such a record is alone, and the others are delivered.
    """
    others = [index for index in ready if index not in suspects]
    if not others:
        return [ready[: max(1, -(-len(ready) // SUSPECT_ORDERS))]]
    # As many records as keep all activities busy, from a chunk to the most of an order.
    options = batch.terms
    size = max(options.chunk, min(options.order, -(-len(others) // options.parallel)))
    return [others[first : first + size] for first in range(0, len(others), size)][: options.parallel]


def _enter(books: BatchBooks, run: _Run, wave: Sequence[list[int]], results: Sequence[Any]) -> Output:
    """Enter what became of the orders of a wave. Return what the activities say of the partner."""
    age, policy = run.age, run.delivery.terms.retry
    is_stalled = True
    said: Output = {}
    for indices, result in zip(wave, results, strict=True):
        if isinstance(result, Exception):
            entry = OrderResult(dict.fromkeys(indices, _lost(result)))
        else:
            entry = from_json(result, OrderResult)
            is_stalled = is_stalled and not entry.outcomes
            deferred = (each.reason for each in entry.outcomes.values() if each.kind == "deferred")
            if reason := entry.reason or next(deferred, None):
                said.setdefault("reason", reason)
            if any(each.is_misconfigured for each in entry.outcomes.values()):
                said["misconfigured"] = True
            if entry.limit:
                said["limit"] = round(entry.limit, 1)
        books.enter(indices, entry, age, policy, f"{run.instance_id}/{age}")
        books.suspects.update(indices if isinstance(result, Exception) else ())
    books.expire(age, policy.deadline, is_stalled=is_stalled)
    return said


def _output(books: BatchBooks, context: Context, resource: Resource) -> Output:
    rejections = [rejection for _, rejection in sorted(books.rejections.items())]
    unnamed = [rejection for rejection in rejections if not rejection["recordId"]]
    try:
        texts = records_of(context.get_input()) if unnamed else []
        for rejection in unnamed:
            rejection["recordId"] = shown_id(resource, texts[rejection["index"]])
    except DeliveryInputError:
        pass  # nobody can read them
    return {"state": "partly" if rejections else "delivered", **books.counts(), "rejections": rejections}
