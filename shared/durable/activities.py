"""The activities: a delivery as plain JSON goes in, an outcome as plain JSON comes out."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry.trace import SpanKind

from shared.delivery.attempt import Attempt
from shared.delivery.external_id import shown_external_id
from shared.delivery.outcome import Outcome
from shared.delivery.record_limits import checked_again
from shared.delivery.verdict import CONFLICT, judge_look_up, judge_post
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    InvalidBusinessError,
    SettingsError,
    TokenRejectedError,
    TokenUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from shared.api.business import Business
    from shared.api.business_api import BusinessApi
    from shared.delivery.partner_gate import PartnerGate
    from shared.telemetry import Telemetry

T = TypeVar("T")

logger = logging.getLogger(__name__)

# The Functions worker keeps no reference to the task in which it runs an activity, and asyncio keeps a weak one:
# without this set a garbage collection can end an activity in the middle.
_running: set[asyncio.Task[Any] | None] = set()


async def keep_running(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and hold a reference to the running task until it is done."""
    task = asyncio.current_task()
    _running.add(task)
    try:
        return await work
    finally:
        _running.discard(task)


async def post_business(
    attempt: Mapping[str, Any],
    business_api: Callable[[], Awaitable[BusinessApi]],
    gate: PartnerGate,
) -> dict[str, Any]:
    """Make one attempt at a delivery; give its outcome.

    Every expected failure is an outcome. An exception is a defect: the orchestrator defers the record.
    """
    return (await keep_running(make_attempt(Attempt.from_json(attempt), business_api, gate))).to_json()


async def make_attempt(
    attempt: Attempt,
    business_api: Callable[[], Awaitable[BusinessApi]],
    gate: PartnerGate,
    telemetry: Telemetry | None = None,
) -> Outcome:
    """Make one attempt, unless the gate holds it back, and log what came of it; all of it is one span.

    That is a span of `telemetry`, or of the API client's.
    """
    try:
        # First of all: it reads the settings, and with them sets telemetry up.
        api = await business_api()
    except SettingsError as exc:
        return _logged(attempt, Outcome("deferred", shown_external_id(attempt.business), reason=str(exc)))
    telemetry = telemetry or api.telemetry
    if telemetry is None:
        return _logged(attempt, await _attempt(attempt, api, gate))
    with telemetry.span("delivery attempt", kind=SpanKind.INTERNAL) as span:
        outcome = _logged(attempt, await _attempt(attempt, api, gate))
        if span.is_recording():
            span.set_attributes({f"business_relay.{name}": value for name, value in _facts(attempt, outcome).items()})
        return outcome


async def _attempt(attempt: Attempt, api: BusinessApi, gate: PartnerGate) -> Outcome:
    external_id = shown_external_id(attempt.business)
    wait = await gate.admit()
    if wait:
        reason = f"The partner is in trouble and was not asked; it will be in {wait:.1f} s"
        return Outcome("deferred", external_id, reason=reason, retry_after=wait)
    lesson: Outcome | None = None
    try:
        lesson = outcome = await _deliver(api, checked_again(attempt.business, is_json=attempt.is_json), attempt)
    except ApiConnectError as exc:
        lesson = outcome = Outcome("deferred", external_id, reason=str(exc))
    except ApiInterruptedError as exc:
        lesson = outcome = Outcome("deferred", external_id, reason=str(exc), is_uncertain=True)
    except SettingsError as exc:
        # Settings are read again where a credential was rotated.
        outcome = Outcome("deferred", external_id, reason=str(exc))
    except TokenUnavailableError as exc:
        outcome = Outcome("deferred", external_id, reason=str(exc), retry_after=exc.retry_after)
    except (TokenRejectedError, InvalidBusinessError) as exc:
        outcome = Outcome("rejected", external_id, reason=str(exc))
    finally:
        gate.learn(lesson)
    return outcome


async def _deliver(api: BusinessApi, business: Business, attempt: Attempt) -> Outcome:
    """Look the record up where that is asked for, post it where it is not there, and judge what the partner says."""
    if attempt.look_up:
        found = judge_look_up(business, await api.get_business(business.external_id))
        if found is not None:
            return found
    response = await api.post_business(business, idempotency_key=attempt.idempotency_key)
    outcome = judge_post(business, response, attempt.age)
    if response.status == CONFLICT and outcome.kind == "rejected":
        # The conflict may be with an attempt of our own whose answer was lost: only a look-up can tell.
        return judge_look_up(business, await api.get_business(business.external_id)) or outcome
    return outcome


def _facts(attempt: Attempt, outcome: Outcome) -> dict[str, str | int]:
    """Give what a log line and a span say of an attempt."""
    facts: dict[str, str | int] = {
        "instance_id": attempt.instance_id,
        "external_id": outcome.external_id,
        "attempt": attempt.number,
        "outcome": outcome.kind,
    }
    if outcome.status is not None:
        facts["status"] = outcome.status
    return facts


def _logged(attempt: Attempt, outcome: Outcome) -> Outcome:
    is_done = outcome.kind in {"created", "exists"}
    fields = {**_facts(attempt, outcome), "status": outcome.status, "reason": outcome.reason}
    logger.log(logging.INFO if is_done else logging.WARNING, "delivery attempt", extra=fields)
    return outcome
