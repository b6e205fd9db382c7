"""One attempt to deliver a record: the calls that the rules ask for, each in its turn."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from msgspec.structs import replace
from opentelemetry.trace import SpanKind

from shared.errors import (
    ApiConnectError,
    ApiUnavailableError,
    InvalidRecordError,
    RefusedError,
    ResourceError,
    SettingsError,
    TokenError,
    TokenRejectedError,
)
from shared.rules.flow import CallResult
from shared.rules.outcome import Outcome
from shared.rules.record import read_record, shown_id
from shared.rules.verdict import attempt_steps
from shared.telemetry import process_telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.client.admission import Admission
    from shared.client.resource_api import ResourceApi
    from shared.durable.durable_client import DurableClient
    from shared.durable.inputs import Order
    from shared.durable.progress import Deferral
    from shared.resource import Resource
    from shared.rules.outcome import OutcomeKind
    from shared.rules.record import CheckedRecord

logger = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between two looks of an activity whether its orchestration goes on, and after which it has started late."""

WORK = 60.0
"""Seconds that an activity works. It makes no call that may take longer, unless the call's timeout exceeds 30 s."""

# The clocks of two hosts may differ by so much.
_SKEW = timedelta(seconds=2)


@dataclass(slots=True)
class PartnerAccess:
    """What the activities of one process need of one partner; belongs to one event loop.

    `timeout` is the seconds of one call. `under_way` has the instance that is working on a record, by route and id.
    """

    api: Callable[[], Awaitable[ResourceApi]]
    turns: Admission
    timeout: float
    under_way: dict[tuple[str, str], str] = field(default_factory=dict)


class Shift:
    """The time in which an activity may make calls: until `WORK` is over, or its orchestration does not go on.

    `is_late`: it has started so late that it may be the repetition of an activity whose host was lost.
    """

    def __init__(self, client: DurableClient, order: Order, timeout: float) -> None:
        self.order = order
        self._client = client
        self.is_late = datetime.now(UTC) - order.scheduled > timedelta(seconds=LOOK)
        self._clock = asyncio.get_running_loop().time
        self._begin = self._clock()
        self._most = WORK - min(timeout, WORK / 2)
        self._was_ended = False

    async def __aenter__(self) -> Self:
        if self.is_late:
            self._was_ended = not await self._goes_on(if_unknown=False)
        self._watch = asyncio.create_task(self._until_it_ends())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        await asyncio.wait([self._watch])

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return self._clock() - self._begin

    @property
    def age(self) -> float:
        """The age of the delivery in seconds."""
        return self.order.age + self.seconds

    @property
    def left(self) -> float:
        """The seconds in which calls may begin; none are left where 0.0."""
        return 0.0 if self._was_ended else max(0.0, self._most - self.seconds)

    async def _until_it_ends(self) -> None:
        while not self._was_ended:
            await asyncio.sleep(LOOK)
            self._was_ended = not await self._goes_on(if_unknown=True)

    async def _goes_on(self, *, if_unknown: bool) -> bool:
        try:
            instance = await self._client.find(self.order.instance_id)
        except RefusedError:
            return if_unknown  # it has been logged
        # Azure Storage hands out activities before it says that their orchestration runs.
        if instance is None or instance.status not in {"Pending", "Running"}:
            return False
        # A later creation is another run under the same id.
        return instance.created <= self.order.began + _SKEW


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to deliver the record `text` under the idempotency key `key`.

    `known` is what earlier attempts have shown. The first call waits `patience` seconds for its turn. The second waits
    as long as the shift lasts: without it the first was in vain.
    """

    resource: Resource
    access: PartnerAccess
    shift: Shift
    text: bytes
    key: str
    known: Deferral
    patience: float

    async def make(self) -> Outcome:
        """Make the attempt as one span, and log what became of it. Every failure is an outcome.

        A defect in one record must not take those beside it along.
        """
        with process_telemetry().span("delivery attempt", kind=SpanKind.INTERNAL) as span:
            try:
                outcome = await self._outcome(await self.access.api())
            except (SettingsError, TokenError) as exc:
                outcome = Outcome(
                    "deferred",
                    shown_id(self.resource, self.text),
                    reason=str(exc),
                    retry_after=getattr(exc, "retry_after", None),
                    is_misconfigured=isinstance(exc, SettingsError | TokenRejectedError),
                )
                if isinstance(exc, TokenRejectedError):
                    fields = {"instance_id": self.shift.order.instance_id, "reason": outcome.reason}
                    logger.error("partner credentials refused", extra=fields)  # noqa: TRY400, an expected failure
            except Exception as exc:  # noqa: BLE001, it is logged
                outcome = self._failed(exc, may_have_posted=False)
            facts: dict[str, str | int | None] = {
                "resource": self.resource.name,
                "instance_id": self.shift.order.instance_id,
                "record_id": outcome.record_id,
                "attempt": self.known.attempts + 1,
                "outcome": outcome.kind,
                "status": outcome.status,
            }
            is_expected = outcome.kind in {"created", "exists"} or outcome.was_held
            level = logging.INFO if is_expected else logging.WARNING
            logger.log(level, "delivery attempt", extra={**facts, "reason": outcome.reason})
            if span.is_recording():
                said = {name: value for name, value in facts.items() if value is not None}
                span.set_attributes({f"business_relay.{name}": value for name, value in said.items()})
            return outcome

    def _failed(self, exc: Exception, *, may_have_posted: bool) -> Outcome:
        """Log a defect. Return what became of the attempt: where nothing was posted, nothing is uncertain."""
        id_ = shown_id(self.resource, self.text)
        fields = {"instance_id": self.shift.order.instance_id, "record_id": id_}
        logger.error("delivery attempt failed", exc_info=exc, extra=fields)
        # A repetition may follow an attempt that has posted.
        is_uncertain = may_have_posted or self.shift.is_late
        # What a function of shared/partner.py has raised is for its author, any other text for the log alone.
        what = exc.problems[0] if isinstance(exc, ResourceError) else f"{type(exc).__name__}, a defect"
        reason = f"The attempt failed{', and may have posted' if is_uncertain else ''}: {what}; the log has more"
        return Outcome("deferred", id_, reason=reason, is_uncertain=is_uncertain)

    async def _outcome(self, api: ResourceApi) -> Outcome:
        try:
            record = read_record(self.resource, self.text)
        except InvalidRecordError as exc:
            # Whoever has the Durable extension's key starts deliveries past the intake; and rules change.
            is_uncertain = self.known.is_uncertain
            kind: OutcomeKind = "deferred" if is_uncertain else "rejected"
            reason = f"The record breaks a rule: {exc}"
            return Outcome(kind, shown_id(self.resource, self.text), reason=reason, is_uncertain=is_uncertain)
        place, own = (self.resource.route, record.id), self.shift.order.instance_id
        under_way = self.access.under_way
        if place in under_way:
            # After a restart or a purge it may be an earlier attempt of this delivery.
            held = _held(record, "Another attempt at a record with this id is under way in this process", 1.0)
            return replace(held, is_uncertain=under_way[place] == own)
        under_way[place] = own
        try:
            return await self._deliver(api, record)
        finally:
            del under_way[place]

    async def _deliver(self, api: ResourceApi, record: CheckedRecord) -> Outcome:
        known, order, age = self.known, self.shift.order, self.shift.age
        steps = attempt_steps(
            self.resource,
            record,
            age=age,
            was_uncertain=known.is_uncertain,
            was_absent=known.absent_at is not None and age - known.absent_at >= order.settle,
            settle=order.settle,
            may_repeat=self.shift.is_late,
        )
        step = next(steps)
        clock = asyncio.get_running_loop().time
        turn: CallResult | None = None
        may_have_posted = False
        try:
            while True:
                before, turn = turn, None
                patience = self.shift.left if before else min(self.patience, self.shift.left)
                if wait := await self.access.turns.enter(order.instance_id, patience=patience, after=before):
                    return _held(record, "The partner was not asked: others come first", wait)
                turn = CallResult(0.0, is_about_partner=False)
                if not self.shift.left:
                    return _held(record, "The partner was not asked in time")
                began = clock()
                try:
                    if step == "post":
                        may_have_posted = True
                        response = await api.post(self.resource, record, idempotency_key=self.key)
                    else:
                        response = await api.look_up(self.resource, record.id)
                except ApiUnavailableError as exc:
                    turn = CallResult(clock() - began)
                    is_uncertain = step == "post" and not isinstance(exc, ApiConnectError)
                    return Outcome("deferred", record.id, reason=str(exc), is_uncertain=is_uncertain)
                turn = CallResult(clock() - began, response.status, response.headers, response.retry_after)
                try:
                    step = steps.send(response)
                    may_have_posted = False  # the answer to a post that asks for a look-up is a refusal
                except StopIteration as stop:
                    outcome: Outcome = stop.value
                    return outcome
                # Decoded, a megabyte takes thirty: it must not wait for the next call's answer.
                del response
        except (SettingsError, TokenError):
            raise
        except Exception as exc:  # noqa: BLE001, it is logged
            return self._failed(exc, may_have_posted=may_have_posted)
        finally:
            if turn is not None:
                self.access.turns.leave(turn)


def _held(record: CheckedRecord, reason: str, retry_after: float | None = None) -> Outcome:
    return Outcome("deferred", record.id, reason=reason, retry_after=retry_after, was_held=True)
