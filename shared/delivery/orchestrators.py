"""The orchestrators: deterministic generators that see plain JSON only.

They are replayed from the start at every step: no clock but the context's, no randomness, no environment, no I/O, no
logging. Change them as docs/operations.md says: instances in flight replay their history through the new code.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from shared.delivery.activity_failure import ended, failure_reason
from shared.delivery.attempt import Attempt
from shared.delivery.delivery_input import check_delivery
from shared.delivery.external_id import shown_external_id
from shared.delivery.outcome import Outcome
from shared.delivery.retry import RetryPolicy, retry_wait
from shared.errors import DeliveryError

if TYPE_CHECKING:
    from collections.abc import Generator

    from shared.delivery.orchestration_context import OrchestrationContext

POST_BUSINESS = "PostBusiness"


def deliver_business(context: OrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Deliver one business; give its outcome with the number of `attempts`.

    Input: `{"business": {…}, "retry": {"deadline", "first", "max"}, "lookUp": "always" | "uncertain"}`.

    Raises:
        DeliveryError: the partner rejects the record, the deadline has passed, or the input is none of the intake's.
    """
    delivery = check_delivery(context.get_input())
    policy = RetryPolicy.from_json(delivery.get("retry", {}))
    start = context.current_utc_datetime
    deadline = start + timedelta(seconds=policy.deadline)
    look_up = delivery.get("lookUp", "always") != "uncertain"
    number = 1
    while True:
        age = (context.current_utc_datetime - start).total_seconds()
        attempt = Attempt(delivery["business"], context.instance_id, context.instance_id, number, look_up, age)
        outcome = yield from _outcome_of(context, attempt)
        if outcome.kind != "deferred":
            break
        look_up = look_up or outcome.is_uncertain
        wait = timedelta(seconds=retry_wait(policy, number, context.instance_id, outcome.retry_after))
        next_attempt = context.current_utc_datetime + wait
        if next_attempt > deadline:
            context.set_custom_status({**outcome.to_json(), "attempts": number})
            raise DeliveryError(
                f"Business {outcome.external_id!r} was given up after {_attempts(number)}: the deadline of "
                f"{policy.deadline:.15g} s would pass before the next one. The last one: {_words(outcome)}",
            )
        context.set_custom_status({**outcome.to_json(), "attempts": number, "nextAttempt": next_attempt.isoformat()})
        yield context.create_timer(next_attempt)
        number += 1
    context.set_custom_status({**outcome.to_json(), "attempts": number})
    if outcome.kind == "rejected":
        raise DeliveryError(
            f"Business {outcome.external_id!r} was rejected after {_attempts(number)}: {_words(outcome)}"
        )
    return {**outcome.to_json(), "attempts": number}


def _outcome_of(context: OrchestrationContext, attempt: Attempt) -> Generator[Any, Any, Outcome]:
    """Have an attempt made; one that failed is deferred, and may have posted the record."""
    result = yield from ended(context.call_activity(POST_BUSINESS, attempt.to_json()))
    if isinstance(result, Exception):
        external_id = shown_external_id(attempt.business)
        return Outcome("deferred", external_id, reason=failure_reason(result), is_uncertain=True)
    return Outcome.from_json(result)


def _attempts(number: int) -> str:
    return f"{number} attempt" + ("s" if number > 1 else "")


def _words(outcome: Outcome) -> str:
    """Say why, with the partner's problem as it came."""
    problem = f" {json.dumps(dict(outcome.problem), ensure_ascii=False)}" if outcome.problem else ""
    return (outcome.reason or outcome.kind) + problem
