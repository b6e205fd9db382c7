"""The orchestrator of one record, and what it shares with the batch's: deterministic generators over plain JSON.

They are replayed from the start at every step: no clock but the context's, no randomness, no environment, no I/O, no
logging. docs/how-to/roll-back.md says how to change them: instances in flight replay their history with the new code.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from shared.durable.delivery_options import DeliveryOptions, check_delivery
from shared.rules.outcome import Outcome, fitted
from shared.rules.record import shown_id
from shared.rules.retry import retry_wait
from shared.rules.text import IDEMPOTENCY_KEY, shortened

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from shared.resource import Resource

ATTEMPTS_OF_A_RUN = 20
"""After so many attempts an orchestration continues as new, so that its history stays small."""

SETTLING = "Waiting until no earlier attempt can be under way"
MAX_FAILURE = 400
"""Characters that are kept of an activity's failure."""


class OrchestrationContext(Protocol):
    """The part of `DurableOrchestrationContext` that the orchestrators use. The Durable SDK has no types."""

    @property
    def instance_id(self) -> str:
        """The orchestration's instance id."""

    @property
    def current_utc_datetime(self) -> datetime:
        """The time, the same at every replay."""

    def get_input(self) -> Any:  # noqa: ANN401, it is any JSON
        """Return the orchestration's input."""

    def call_activity(self, name: str, input_: Any) -> Any:  # noqa: ANN401, a task of the Durable SDK, which is untyped
        """Schedule an activity."""

    def task_all(self, activities: Sequence[Any]) -> Any:  # noqa: ANN401, a task of the Durable SDK, which is untyped
        """Wait for all of the tasks."""

    def create_timer(self, fire_at: datetime) -> Any:  # noqa: ANN401, a task of the Durable SDK, which is untyped
        """Schedule a durable timer."""

    def set_custom_status(self, status: Any) -> None:  # noqa: ANN401, it is any JSON
        """Show a status to those who watch."""

    def continue_as_new(self, input_: Any) -> None:  # noqa: ANN401, it is any JSON
        """Start the orchestration again under its id, with another input and an empty history."""


def deliver_one(context: OrchestrationContext, resource: Resource) -> Generator[Any, Any, dict[str, Any] | None]:
    """Deliver one record. The output is `{"state": "delivered" | "rejected" | "expired", "recordId", "attempts", …}`.

    Input: `{"resource", "record", "terms", "key"?, "uncertain"?, "pause"?, "progress"?}`. `record` is the JSON text;
    `key` the idempotency key of an earlier delivery; `uncertain` says that this one may have stored the record; `pause`
    is the seconds to wait first. `progress` is what an earlier run of this orchestration knew.

    Raises:
        DeliveryInputError: the intake writes no such input.
    """
    delivery = check_delivery(context.get_input())
    options = DeliveryOptions.from_json(delivery["terms"])
    known: dict[str, Any] = delivery.get("progress", {})
    began = context.current_utc_datetime
    attempts: int = known.get("attempts", 0)
    is_uncertain: bool = known.get("uncertain", False) or delivery.get("uncertain", False)
    # After a pause an earlier activity may have posted since.
    absent_at: float | None = known.get("absentAt") if "pause" not in delivery else None
    status: dict[str, Any] = {"recordId": shown_id(resource, delivery["record"]), "attempts": attempts}
    status |= known.get("facts", {})
    if "pause" in delivery:
        paused = {**status, "reason": SETTLING}
        yield from wait_until(context, began + timedelta(seconds=delivery["pause"]), paused)
    # The deadline counts from the first attempt.
    start = datetime.fromisoformat(known["start"]) if "start" in known else context.current_utc_datetime
    for turn in range(ATTEMPTS_OF_A_RUN):
        context.set_custom_status(fitted({"state": "delivering", **status}))
        now = context.current_utc_datetime
        age = (now - start).total_seconds()
        attempt = {
            "record": delivery["record"],
            "instanceId": context.instance_id,
            "key": delivery.get("key") or idempotency_key(context.instance_id),
            "attempt": attempts + 1,
            "age": age,
            "began": began.isoformat(),
            "scheduled": now.isoformat(),
            "settle": options.settle,
            "uncertain": is_uncertain,
            "wasAbsent": absent_at is not None and age - absent_at >= options.settle,
        }
        result = yield from ended(context.call_activity(resource.post_one, attempt))
        outcome = _outcome(result, status["recordId"])
        now = context.current_utc_datetime
        age = (now - start).total_seconds()
        attempts += not outcome.was_held
        is_uncertain = is_uncertain or outcome.is_uncertain
        absent_at = next_absent_at(absent_at, outcome, age)
        status = {"recordId": outcome.record_id, "attempts": attempts, **outcome.facts()}
        if outcome.kind == "rejected":
            return _finished(context, {"state": "rejected", **status})
        if outcome.kind != "deferred":
            return _finished(context, {"state": "delivered", "outcome": outcome.kind, **status})
        if is_uncertain:
            status["uncertain"] = True
        step = 1 if outcome.was_held else attempts
        wait = retry_wait(options.retry, step, f"{context.instance_id}/{turn}", outcome.retry_after)
        # A record that nobody could try has as much time again.
        if age + wait > options.retry.deadline * (1 if attempts else 2):
            reason = f"The deadline of {options.retry.deadline:.15g} s would pass before the next attempt. "
            status["reason"] = reason + (outcome.reason or "")
            return _finished(context, {"state": "expired", **status})
        yield from wait_until(context, now + timedelta(seconds=wait), status)
    kept = {name: value for name, value in status.items() if name not in {"recordId", "attempts", "uncertain"}}
    progress = {"start": start.isoformat(), "attempts": attempts, "uncertain": is_uncertain, "absentAt": absent_at}
    again = {name: value for name, value in delivery.items() if name != "pause"}
    context.continue_as_new({**again, "progress": {**progress, "facts": kept}})
    return None


def first_start(context: OrchestrationContext, began: datetime) -> datetime:
    """Return when a delivery began whose present run `began` at this time. The run has accepted its input."""
    known = context.get_input().get("progress", {})
    return datetime.fromisoformat(known["start"]) if "start" in known else began


def wait_until(context: OrchestrationContext, time: datetime, status: dict[str, Any]) -> Generator[Any, Any, None]:
    """Wait on a durable timer, and say so in the custom status."""
    context.set_custom_status(fitted({"state": "waiting", **status, "nextAttempt": time.isoformat()}))
    yield context.create_timer(time)


def ended(task: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401, a task of the Durable SDK, which is untyped
    """Wait for a task. Return its result, or what it raised."""
    try:
        return (yield task)
    except Exception as exc:  # noqa: BLE001, the Durable SDK raises nothing narrower
        return exc


def failure_reason(failure: Exception) -> str:
    """Say why an activity has no result, in one line.

    The Durable extension repeats an activity after the loss of its host. Where only the worker process has ended, or an
    activity exceeded `functionTimeout`, the activity fails; a defect of the app looks the same. Nobody knows how far
    any of them came. The text is the extension's sentence and, after a line break between two spaces, a traceback,
    which stays in the host's log.
    """
    sentence = " ".join(str(failure).partition(" \n ")[0].split())
    return shortened(f"The attempt ended without a result, and may have posted: {sentence}", MAX_FAILURE)


def next_absent_at(absent_at: float | None, outcome: Outcome, age: float) -> float | None:
    """Return the delivery's age at which a look-up first missed the record after its last uncertain attempt.

    It counts from when the result arrived, which is later than the look-up.
    """
    if outcome.is_absent:
        return age if absent_at is None else absent_at
    return None if outcome.is_uncertain else absent_at


def idempotency_key(instance_id: str, index: int | None = None) -> str:
    """Return the key of a delivery, or of a batch's record: the instance id, hashed where no header can hold it."""
    if not IDEMPOTENCY_KEY.fullmatch(instance_id) or len(instance_id) > 200:  # noqa: PLR2004, it leaves room for the index
        instance_id = "delivery-" + hashlib.sha256(instance_id.encode(errors="surrogatepass")).hexdigest()
    return instance_id if index is None else f"{instance_id}-{index}"


def _outcome(result: Any, record_id: str) -> Outcome:  # noqa: ANN401, any JSON, or what the activity raised
    if isinstance(result, Exception):
        return Outcome("deferred", record_id, reason=failure_reason(result), is_uncertain=True)
    return Outcome.from_json(result)


def _finished(context: OrchestrationContext, output: dict[str, Any]) -> dict[str, Any]:
    context.set_custom_status(
        {"state": output["state"], "recordId": output["recordId"], "attempts": output["attempts"]}
    )
    return output
