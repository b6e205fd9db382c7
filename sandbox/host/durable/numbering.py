"""The numbers of what an orchestrator schedules, and what of it is new. Pure.

Activities, sub-orchestrations and timers count up from 0 in the order in which they are scheduled. A call with retry
takes one number for each attempt and one for each pause after a failed attempt, the last one included, as in the
Durable Task Framework. Such a number is given when the failure or the end of the pause is processed, which
`is_retry_event` has the host do in a batch of its own, so that the order is the same here and in the SDK.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from durabletask.internal import helpers

from sandbox.host.durable.orchestrator_state import ActionType, NonDeterministicError, OrchestratorFailedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from durabletask.internal import orchestrator_service_pb2 as pb

WITH_RETRY = {
    ActionType.CallActivityWithRetry: ActionType.CallActivity,
    ActionType.CallSubOrchestratorWithRetry: ActionType.CallSubOrchestrator,
}
_SCHEDULING = {ActionType.CallActivity, ActionType.CallSubOrchestrator, ActionType.CreateTimer, *WITH_RETRY}
_SUPPORTED = _SCHEDULING | {ActionType.ContinueAsNew, ActionType.WaitForExternalEvent}
# The kinds of history events, by what they do.
_SCHEDULED = {
    "taskScheduled": ActionType.CallActivity,
    "subOrchestrationInstanceCreated": ActionType.CallSubOrchestrator,
    "timerCreated": ActionType.CreateTimer,
}
_FAILURES = {"taskFailed", "subOrchestrationInstanceFailed"}
_ENDS = {"taskCompleted", "subOrchestrationInstanceCompleted", "timerFired", *_FAILURES}


@dataclass(frozen=True, slots=True)
class KnownFunctions:
    """The names that orchestrations can call, and the version of a sub-orchestration that names none."""

    activities: AbstractSet[str]
    orchestrators: AbstractSet[str]
    default_version: str | None = None

    def check(self, kind: str, name: str) -> None:
        """Raise OrchestratorFailedError where the app does not have a function."""
        known = self.activities if kind == "activity" else self.orchestrators
        if name not in known:
            names = ", ".join(repr(each) for each in sorted(known))
            raise OrchestratorFailedError(
                f"The function {name!r} doesn't exist, is disabled, or is not an {kind} function. Additional info: "
                f"The following are the known {kind} functions: {names}."
            )


def is_retry_event(event: pb.HistoryEvent) -> bool:
    """Tell whether an event may give a call with retry its next number."""
    kind = event.WhichOneof("eventType")
    return kind == "timerFired" or kind in _FAILURES


def ended_number(event: pb.HistoryEvent) -> int | None:
    """Return the number of the activity, timer or sub-orchestration that an event ends, None where it ends none."""
    kind = event.WhichOneof("eventType")
    if kind not in _ENDS:
        return None
    return event.timerFired.timerId if kind == "timerFired" else int(getattr(event, kind).taskScheduledId)


class _Call:
    """An action that schedules something, and where it stands."""

    def __init__(self, action: Mapping[str, Any]) -> None:
        self.action = action
        self.kind = WITH_RETRY.get(action["actionType"], ActionType(action["actionType"]))
        self.is_open = not action.get("isCanceled")
        self.pause_until: datetime | None = None
        self._attempts = 1

    def finish(self, *, has_failed: bool, now: datetime) -> bool:
        """Take in the end of an attempt or a pause; return whether the call needs another number."""
        options = self.action.get("retryOptions")
        if options is not None and has_failed:
            self.pause_until = now + timedelta(milliseconds=options["firstRetryIntervalInMilliseconds"])
            return True
        if self.pause_until is not None and self._attempts < self.action["retryOptions"]["maxNumberOfAttempts"]:
            self.pause_until = None
            self._attempts += 1
            return True
        self.is_open = False
        return False

    def schedules(self, kind: ActionType, name: str | None) -> bool:
        """Tell whether this is what the call schedules next."""
        if self.pause_until is not None or self.kind == ActionType.CreateTimer:
            return kind == ActionType.CreateTimer
        return kind == self.kind and name == self.action["functionName"]

    def engine_action(self, number: int, known: KnownFunctions) -> pb.OrchestratorAction:
        """Return the engine's form of what the call schedules next."""
        if self.pause_until is not None:
            return helpers.new_create_timer_action(number, self.pause_until)
        if self.kind == ActionType.CreateTimer:
            fire_at = datetime.fromisoformat(self.action["fireAt"])
            return helpers.new_create_timer_action(number, fire_at if fire_at.tzinfo else fire_at.replace(tzinfo=UTC))
        name, value = self.action["functionName"], self.action.get("input")
        text = None if value is None else json.dumps(value)
        if self.kind == ActionType.CallActivity:
            known.check("activity", name)
            return helpers.new_schedule_task_action(number, name, text, None)
        known.check("orchestrator", name)
        instance_id = self.action.get("instanceId") or f"{uuid.uuid4()}:{number}"
        version = self.action.get("version") or known.default_version
        return helpers.new_create_sub_orchestration_action(number, name, instance_id, text, version)


def _check_replay(kind: ActionType, event: pb.HistoryEvent, call: _Call | None) -> None:
    """Raise NonDeterministicError where this replay schedules something else under a number than the history has."""
    number, name = event.eventId, None
    if kind == ActionType.CallActivity:
        name = event.taskScheduled.name
    elif kind == ActionType.CallSubOrchestrator:
        name = event.subOrchestrationInstanceCreated.name
    if call is not None and call.schedules(kind, name):
        return
    what = {
        ActionType.CallActivity: f"an activity task with sequence ID {number} and name '{name}' (version '')",
        ActionType.CallSubOrchestrator: f"a sub-orchestration task with sequence ID {number} and name '{name}'",
        ActionType.CreateTimer: f"a timer task with sequence number {number}",
    }[kind]
    instead = "hasn't (yet?) scheduled this task" if call is None else "scheduled something else with this number"
    raise NonDeterministicError(
        f"A previous execution of this orchestration scheduled {what}, but the current replay execution {instead}."
    )


def _scheduling(actions: Iterable[Mapping[str, Any]]) -> list[_Call]:
    """Return the actions that schedule something."""
    for action in actions:
        kind = action["actionType"]
        if kind not in _SUPPORTED:
            name = ActionType(kind).name if kind in ActionType else f"number {kind}"
            raise OrchestratorFailedError(f"The action {name} is not supported by the sandbox's host")
    return [_Call(action) for action in actions if action["actionType"] in _SCHEDULING]


def number_calls(  # noqa: C901 - one pass over the history, with what it has found so far
    actions: Sequence[Mapping[str, Any]], history: Sequence[pb.HistoryEvent], known: KnownFunctions
) -> tuple[list[pb.OrchestratorAction], bool]:
    """Return what is new, in the engine's form, and whether anything that was ever scheduled is still open.

    Raises:
        OrchestratorFailedError: an action is not supported, or names no function of the app.
        NonDeterministicError: the history has something else under a number, or more numbers than this replay.
    """
    kinds = [event.WhichOneof("eventType") for event in history]
    scheduled = {event.eventId: (kind, event) for kind, event in zip(kinds, history, strict=True) if kind in _SCHEDULED}
    calls = _scheduling(actions)
    waiting = iter(calls)
    numbered: list[_Call] = []
    new: list[pb.OrchestratorAction] = []
    due: _Call | None = None
    now = datetime.min.replace(tzinfo=UTC)

    def take_number() -> bool:
        nonlocal due
        number, call = len(numbered), due or next(waiting, None)
        due = None
        if number in scheduled:
            kind, event = scheduled[number]
            _check_replay(_SCHEDULED[kind], event, call)
        elif call is not None:
            new.append(call.engine_action(number, known))
        if call is None:
            return False
        numbered.append(call)
        return True

    for kind, event in zip(kinds, history, strict=True):
        if kind in _SCHEDULED:
            # In a rewound history the numbers of what had failed come later, or are still missing.
            while len(numbered) <= event.eventId:
                if not take_number():
                    _check_replay(_SCHEDULED[kind], event, None)
        elif kind == "orchestratorStarted":
            now = event.timestamp.ToDatetime(tzinfo=UTC)
        elif (number := ended_number(event)) is not None and number < len(numbered):
            due = numbered[number] if numbered[number].finish(has_failed=kind in _FAILURES, now=now) else due
    while take_number():
        pass
    return new, any(call.is_open for call in calls)
