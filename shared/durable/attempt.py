"""One attempt to deliver a record: the calls that the rules ask for, each in its turn."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self

from opentelemetry.trace import SpanKind

from shared.errors import (
    ApiConnectError,
    ApiUnavailableError,
    DeliveryRefusedError,
    InvalidRecordError,
    SettingsError,
    TokenError,
    TokenRejectedError,
)
from shared.rules.flow import CallResult
from shared.rules.outcome import Outcome
from shared.rules.record import read_record, shown_id
from shared.rules.verdict import attempt_steps

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shared.client.resource_api import ResourceApi
    from shared.durable.durable_client import DurableClient
    from shared.resource import ApiResponse, Resource
    from shared.rules.record import CheckedRecord
    from shared.rules.verdict import Step

logger = logging.getLogger(__name__)

LOOK = 2.0
"""Seconds between two looks of an activity whether its orchestration goes on, and after which it has started late."""

WORK = 60.0
"""Seconds that an activity works. It makes no call that may take longer, unless the call's timeout exceeds 30 s."""

# Seconds after which a record is tried again that another attempt in this process is working on.
_UNDER_WAY_PAUSE = 1.0
LONGEST_HELD = 600.0
"""Seconds after which a record whose turn did not come asks again, at the latest."""

# The clocks of two hosts may differ by so many seconds.
_SKEW = timedelta(seconds=2)
# Azure Storage hands out activities before it says that their orchestration runs.
_GOES_ON = {"Pending", "Running"}


class Turns(Protocol):
    """The part of `Admission` that an attempt uses."""

    async def enter(self, delivery: str, *, patience: float, after: CallResult | None = None) -> float:
        """Wait for a turn: 0.0 to go ahead, else the seconds after which to ask again. `after` gives one back."""

    def leave(self, result: CallResult) -> None:
        """Give the turn back, and say what became of the call."""


@dataclass(slots=True)
class PartnerAccess:
    """What the activities of one process need of one partner; belongs to one event loop.

    `timeout` is the seconds of one call. `limit` returns the limit that flow control has found, in calls per second.
    `under_way` has the instance that is working on a record, by route and id.
    """

    api: Callable[[], Awaitable[ResourceApi]]
    turns: Turns
    timeout: float
    limit: Callable[[], float | None] = lambda: None
    under_way: dict[tuple[str, str], str] = field(default_factory=dict)


class Shift:
    """The time in which an activity may make calls: until `WORK` is over, or its orchestration does not go on.

    `is_late`: it has started so late that it may be the repetition of an activity whose host was lost.

    Whoever starts a delivery in the place of one that has ended waits until its activities have noticed.
    """

    def __init__(
        self,
        client: DurableClient,
        order: Mapping[str, Any],
        timeout: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._instance_id: str = order["instanceId"]
        self._began = datetime.fromisoformat(order["began"])
        self.is_late = now() - datetime.fromisoformat(order["scheduled"]) > timedelta(seconds=LOOK)
        self._clock = asyncio.get_running_loop().time
        self._end = self._clock() + WORK - min(timeout, WORK / 2)
        self._watch: asyncio.Task[None] | None = None
        self._was_ended = False

    async def __aenter__(self) -> Self:
        if self.is_late:
            self._was_ended = not await self._goes_on(if_unknown=False)
        self._watch = asyncio.create_task(self._until_it_ends())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])

    @property
    def is_over(self) -> bool:
        """Whether no call may be made any more."""
        return self._was_ended or self._clock() > self._end

    def patience(self, most: float) -> float:
        """Return the seconds for which a call may wait for its turn."""
        return max(0.0, min(most, self._end - self._clock()))

    async def _until_it_ends(self) -> None:
        while not self._was_ended:
            await asyncio.sleep(LOOK)
            self._was_ended = not await self._goes_on(if_unknown=True)

    async def _goes_on(self, *, if_unknown: bool) -> bool:
        try:
            instance = await self._client.find(self._instance_id)
        except DeliveryRefusedError:
            return if_unknown  # it has been logged
        if instance is None or instance.status not in _GOES_ON:
            return False
        # A later creation is another run under the same id.
        return instance.created is None or instance.created <= self._began + _SKEW


@dataclass(frozen=True, slots=True)
class Attempt:
    """The `number`-th attempt (from 1) to deliver the record `text`, `age` seconds after the delivery began.

    A call waits `patience` seconds for its turn. `was_uncertain`, `was_absent` and `settle` as in `attempt_steps`.
    """

    resource: Resource
    access: PartnerAccess
    shift: Shift
    text: bytes
    instance_id: str
    key: str
    number: int
    age: float
    settle: float
    patience: float
    was_uncertain: bool
    was_absent: bool

    async def make(self) -> Outcome:
        """Make the attempt as one span, and log what became of it. Every expected failure is an outcome."""
        try:
            # First of all: it reads the settings, and with them sets telemetry up.
            api = await self.access.api()
        except SettingsError as exc:
            return self._logged(Outcome("deferred", shown_id(self.resource, self.text), reason=str(exc)))
        if api.telemetry is None:
            return self._logged(await self._outcome(api))
        with api.telemetry.span("delivery attempt", kind=SpanKind.INTERNAL) as span:
            outcome = self._logged(await self._outcome(api))
            if span.is_recording():
                facts = self._facts(outcome)
                span.set_attributes({f"business_relay.{name}": value for name, value in facts.items()})
            return outcome

    async def _outcome(self, api: ResourceApi) -> Outcome:
        try:
            record = read_record(self.resource, self.text)
        except InvalidRecordError as exc:
            # Whoever has the Durable extension's key starts deliveries past the intake; and rules change.
            id_ = shown_id(self.resource, self.text)
            kind: Any = "deferred" if self.was_uncertain else "rejected"
            return Outcome(kind, id_, reason=f"The record breaks a rule: {exc}", is_uncertain=self.was_uncertain)
        place = self.resource.route, record.id
        other = self.access.under_way.get(place)
        if other is not None:
            reason = "Another attempt at a record with this id is under way in this process"
            held = replace(_held(record, reason), retry_after=_UNDER_WAY_PAUSE)
            # After a restart or a purge it may be an earlier attempt of this delivery.
            return replace(held, is_uncertain=other == self.instance_id)
        self.access.under_way[place] = self.instance_id
        try:
            return await self._deliver(api, record)
        finally:
            del self.access.under_way[place]

    async def _deliver(self, api: ResourceApi, record: CheckedRecord) -> Outcome:
        steps = attempt_steps(
            self.resource,
            record,
            age=self.age,
            was_uncertain=self.was_uncertain,
            was_absent=self.was_absent,
            settle=self.settle,
            may_repeat=self.shift.is_late,
        )
        step = next(steps)
        turn: CallResult | None = None
        try:
            while True:
                before, turn = turn, None
                patience = self.shift.patience(self.patience)
                wait = await self.access.turns.enter(self.instance_id, patience=patience, after=before)
                if wait:
                    held = _held(record, "The partner was not asked: others come first")
                    return replace(held, retry_after=min(wait, LONGEST_HELD))
                turn = CallResult(0.0, is_about_partner=False)
                if self.shift.is_over:
                    return _held(record, "The partner was not asked in time")
                answer, turn = await self._call(step, api, record)
                if isinstance(answer, Outcome):
                    return answer
                try:
                    step = steps.send(answer)
                except StopIteration as stop:
                    outcome: Outcome = stop.value
                    return outcome
                # Decoded, a megabyte takes thirty: it must not wait for the next call's answer.
                del answer
        finally:
            if turn is not None:
                self.access.turns.leave(turn)

    async def _call(
        self, step: Step, api: ResourceApi, record: CheckedRecord
    ) -> tuple[ApiResponse | Outcome, CallResult]:
        """Make a call. Return the response, or the outcome where there is none, and what flow control learns."""
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            if step == "post":
                response = await api.post(self.resource, record, idempotency_key=self.key)
            else:
                response = await api.look_up(self.resource, record.id)
        except ApiUnavailableError as exc:
            is_uncertain = step == "post" and not isinstance(exc, ApiConnectError)
            outcome = Outcome("deferred", record.id, reason=str(exc), is_uncertain=is_uncertain)
            return outcome, CallResult(clock() - began)
        except (SettingsError, TokenError) as exc:
            # Settings are read again where a credential was rotated.
            if isinstance(exc, TokenRejectedError):
                fields = {"instance_id": self.instance_id, "reason": str(exc)}
                logger.error("partner credentials refused", extra=fields)  # noqa: TRY400, an expected failure
            outcome = Outcome("deferred", record.id, reason=str(exc), retry_after=getattr(exc, "retry_after", None))
            return outcome, CallResult(0.0, is_about_partner=False)
        return response, CallResult(clock() - began, response.status, response.headers, response.retry_after)

    def _facts(self, outcome: Outcome) -> dict[str, str | int]:
        """Return what a log line and a span say of the attempt."""
        facts: dict[str, str | int] = {
            "resource": self.resource.name,
            "instance_id": self.instance_id,
            "record_id": outcome.record_id,
            "attempt": self.number,
            "outcome": outcome.kind,
        }
        return facts if outcome.status is None else {**facts, "status": outcome.status}

    def _logged(self, outcome: Outcome) -> Outcome:
        is_expected = outcome.kind in {"created", "exists"} or outcome.was_held
        fields = {**self._facts(outcome), "status": outcome.status, "reason": outcome.reason}
        logger.log(logging.INFO if is_expected else logging.WARNING, "delivery attempt", extra=fields)
        return outcome


def _held(record: CheckedRecord, reason: str) -> Outcome:
    return Outcome("deferred", record.id, reason=reason, was_held=True)
