"""What an orchestrator function answered, as actions of the durable engine. Pure: no engine, no worker.

The function answers with all its actions from the start, each time. Those that schedule something are numbered in their
order, and what the history lacks is new. An instance ends when its function has ended and nothing that it scheduled is
open any more (activities, timers, sub-orchestrations), as in the Durable Task Framework; a cancelled timer is not open.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.history import timestamp_text
from sandbox.host.durable.orchestrator_state import ActionType, OrchestratorFailedError, OrchestratorState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from collections.abc import Set as AbstractSet

# Set by the extension: https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-custom-orchestration-status
CUSTOM_STATUS_LIMIT_BYTES = 16 * 1024
_SCHEDULING = frozenset({ActionType.CallActivity, ActionType.CallSubOrchestrator, ActionType.CreateTimer})
_SUPPORTED = _SCHEDULING | {ActionType.ContinueAsNew, ActionType.WaitForExternalEvent}


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine shall do; `custom_status` is JSON, None leaves it as it was."""

    actions: list[pb.OrchestratorAction] = field(default_factory=list)
    custom_status: str | None = None


def _fire_at(action: Mapping[str, Any]) -> datetime:
    """Give the time at which a timer fires; one without an offset is in UTC."""
    fire_at = datetime.fromisoformat(action["fireAt"])
    return fire_at if fire_at.tzinfo is not None else fire_at.replace(tzinfo=UTC)


def payload_text(value: object) -> str | None:
    """Give the JSON in which the hub keeps a payload: a JSON string where the SDK has already encoded it."""
    return None if value is None else json.dumps(value)


@dataclass(frozen=True, slots=True)
class KnownFunctions:
    """The names that orchestrations can call, and the version of a sub-orchestration that names none."""

    activities: AbstractSet[str]
    orchestrators: AbstractSet[str]
    default_version: str | None = None

    def check(self, kind: str, name: str) -> None:
        """Raise OrchestratorFailedError where an orchestration calls a function that the app does not have."""
        known = self.activities if kind == "activity" else self.orchestrators
        if name not in known:
            names = ", ".join(repr(each) for each in sorted(known)) or "none"
            raise OrchestratorFailedError(
                f"The function {name!r} doesn't exist, is disabled, or is not an {kind} function. "
                f"The app's {kind} functions are: {names}"
            )


def _engine_action(number: int, action: Mapping[str, Any], known: KnownFunctions) -> pb.OrchestratorAction:
    """Turn an action that schedules something into the engine's form."""
    kind = action["actionType"]
    if kind == ActionType.CreateTimer:
        return helpers.new_create_timer_action(number, _fire_at(action))
    name, text = action["functionName"], payload_text(action.get("input"))
    if kind == ActionType.CallActivity:
        known.check("activity", name)
        return helpers.new_schedule_task_action(number, name, text, None)
    known.check("orchestrator", name)
    return helpers.new_create_sub_orchestration_action(
        number, name, action.get("instanceId") or uuid.uuid4().hex, text, action.get("version") or known.default_version
    )


def _scheduled_name(event: pb.HistoryEvent) -> tuple[ActionType, str] | None:
    """Say what an event scheduled, None for an event that schedules nothing."""
    if event.HasField("taskScheduled"):
        return ActionType.CallActivity, event.taskScheduled.name
    if event.HasField("subOrchestrationInstanceCreated"):
        return ActionType.CallSubOrchestrator, event.subOrchestrationInstanceCreated.name
    if event.HasField("timerCreated"):
        return ActionType.CreateTimer, timestamp_text(event.timerCreated.fireAt)
    return None


def _finished_number(event: pb.HistoryEvent) -> int | None:
    """Give the number of the action that an event finishes, None for other events."""
    for name in ("taskCompleted", "taskFailed", "subOrchestrationInstanceCompleted", "subOrchestrationInstanceFailed"):
        if event.HasField(name):
            return int(getattr(event, name).taskScheduledId)
    return event.timerFired.timerId if event.HasField("timerFired") else None


def _check_replay(number: int, action: Mapping[str, Any], scheduled: tuple[ActionType, str]) -> None:
    """Raise OrchestratorFailedError where the history has another action under this number."""
    kind, name = scheduled
    if action["actionType"] != kind or (kind != ActionType.CreateTimer and action["functionName"] != name):
        now = f"{ActionType(action['actionType']).name} {action.get('functionName', '')}".strip()
        raise OrchestratorFailedError(
            f"Non-deterministic orchestrator: its action {number} was {kind.name} {name}, in this replay it is {now}"
        )


def _schedule(
    state: OrchestratorState, history: Sequence[pb.HistoryEvent], known: KnownFunctions
) -> tuple[list[pb.OrchestratorAction], bool]:
    """Give the new actions, and whether anything that was ever scheduled is still open."""
    scheduled = {event.eventId: found for event in history if (found := _scheduled_name(event)) is not None}
    finished = {number for event in history if (number := _finished_number(event)) is not None}
    new: list[pb.OrchestratorAction] = []
    is_open = False
    number = -1
    for action in state.actions:
        kind = action["actionType"]
        if kind not in _SUPPORTED:
            name = ActionType(kind).name if kind in ActionType else f"number {kind}"
            raise OrchestratorFailedError(f"The action {name} is not supported by the sandbox's host")
        if kind not in _SCHEDULING:
            continue
        number += 1
        if number in scheduled:
            _check_replay(number, action, scheduled[number])
        else:
            new.append(_engine_action(number, action, known))
        is_open |= number not in finished and not action.get("isCanceled")
    return new, is_open


def _end(state: OrchestratorState) -> pb.OrchestratorAction | None:
    """Give the action that ends the execution, None where the function waits for something."""
    again = next((each for each in state.actions if each["actionType"] == ActionType.ContinueAsNew), None)
    if not state.is_done:
        return None
    if again is not None:
        text = payload_text(again.get("input"))
        return helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, text)
    return helpers.new_complete_orchestration_action(
        -1, pb.ORCHESTRATION_STATUS_COMPLETED, None if state.output is None else json.dumps(state.output)
    )


def decide(
    state: OrchestratorState, history: Sequence[pb.HistoryEvent], *, name: str, known: KnownFunctions
) -> Decision:
    """Compare what the orchestrator `name` answered with its history, and say what the engine shall do."""
    status = None if state.custom_status is None else json.dumps(state.custom_status)
    # The extension's JSON writer escapes no letters.
    written = json.dumps(state.custom_status, ensure_ascii=False)
    if len(written.encode("utf-16-le", "surrogatepass")) > CUSTOM_STATUS_LIMIT_BYTES:
        return failure(name, OrchestratorFailedError("The custom status is larger than 16 KB of UTF-16 text"))
    try:
        actions, is_open = _schedule(state, history, known)
    except OrchestratorFailedError as error:
        return failure(name, error)
    if is_open:
        return Decision(actions, status)
    if state.error is not None:
        failed = failure(name, OrchestratorFailedError(state.error, state.details))
        return Decision([*actions, *failed.actions], status)
    end = _end(state)
    return Decision(actions if end is None else [*actions, end], status)


def failure(name: str, error: OrchestratorFailedError) -> Decision:
    """End an instance as failed, with the extension's words."""
    message = f"Orchestrator function '{name}' failed: {error}"
    details = pb.TaskFailureDetails(
        errorType="OrchestratorFailed", errorMessage=message, stackTrace=helpers.get_string_value(error.details)
    )
    status = pb.ORCHESTRATION_STATUS_FAILED
    return Decision([helpers.new_complete_orchestration_action(-1, status, json.dumps(message), details)])


def termination(reason: str | None) -> Decision:
    """End an instance as terminated, with the reason as its output."""
    status = pb.ORCHESTRATION_STATUS_TERMINATED
    return Decision([helpers.new_complete_orchestration_action(-1, status, reason)])
