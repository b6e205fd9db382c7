"""What an orchestrator function answered, as actions of the durable engine. Pure: no engine, no worker.

The function answers with all its actions from the start, each time. Those that schedule something are numbered in their
order, and what the history lacks is new. An instance ends when its function has ended and nothing that it scheduled is
open any more (activities, timers, sub-orchestrations), as in the Durable Task Framework; a cancelled timer is not open.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.numbering import KnownFunctions, number_calls
from sandbox.host.durable.orchestrator_state import (
    ActionType,
    NonDeterministicError,
    OrchestratorFailedError,
    OrchestratorState,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

# https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-custom-orchestration-status
CUSTOM_STATUS_LIMIT_BYTES = 16 * 1024
# .NET's JSON writes each of these as \uXXXX, five characters more.
_ESCAPED_BY_DOTNET = "\x85\u2028\u2029"


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine shall do; `custom_status` is JSON, None leaves it as it was."""

    actions: list[pb.OrchestratorAction] = field(default_factory=list)
    custom_status: str | None = None


def custom_status_bytes(value: object) -> int:
    """Return the size of a custom status as the platform measures it: JSON of .NET, in UTF-16."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    escaped = sum(text.count(character) for character in _ESCAPED_BY_DOTNET)
    return len(text.encode("utf-16-le", "surrogatepass")) + 2 * 5 * escaped


def _end(state: OrchestratorState) -> pb.OrchestratorAction | None:
    """Return the action that ends the execution, None where the function waits for something."""
    again = next((each for each in state.actions if each["actionType"] == ActionType.ContinueAsNew), None)
    if not state.is_done:
        return None
    if again is not None:
        text = None if again.get("input") is None else json.dumps(again["input"])
        return helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, text)
    return helpers.new_complete_orchestration_action(
        -1, pb.ORCHESTRATION_STATUS_COMPLETED, None if state.output is None else json.dumps(state.output)
    )


def decide(
    state: OrchestratorState, history: Sequence[pb.HistoryEvent], *, name: str, known: KnownFunctions
) -> Decision:
    """Compare what the orchestrator `name` answered with its history, and say what the engine shall do."""
    size = custom_status_bytes(state.custom_status)
    if size > CUSTOM_STATUS_LIMIT_BYTES:
        limit = "The UTF-16 size of the JSON-serialized payload must not exceed 16 KB."
        return failure(name, OrchestratorFailedError(f"{limit} The current payload size is {size // 1024} KB."))
    try:
        actions, is_open = number_calls(state.actions, history, known)
    except OrchestratorFailedError as error:
        return failure(name, error)
    status = None if state.custom_status is None else json.dumps(state.custom_status)
    if is_open:
        return Decision(actions, status)
    if state.error is not None:
        failed = failure(name, OrchestratorFailedError(state.error, state.details))
        return Decision([*actions, *failed.actions], status)
    end = _end(state)
    return Decision(actions if end is None else [*actions, end], status)


def failure(name: str, error: OrchestratorFailedError) -> Decision:
    """End an instance as failed, with the extension's words."""
    is_own_text = isinstance(error, NonDeterministicError)
    message = str(error) if is_own_text else f"Orchestrator function '{name}' failed: {error}"
    details = pb.TaskFailureDetails(
        errorType="OrchestratorFailed",
        errorMessage=message,
        stackTrace=helpers.get_string_value(f"Message: {error}, StackTrace: {error.details}"),
    )
    status = pb.ORCHESTRATION_STATUS_FAILED
    return Decision([helpers.new_complete_orchestration_action(-1, status, json.dumps(message), details)])


def termination(reason: str | None) -> Decision:
    """End an instance as terminated, with the reason as its output."""
    action = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_TERMINATED, reason)
    return Decision([action])


def activity_failure(name: str, message: str, stack: str) -> pb.TaskFailureDetails:
    """Return the failure of an activity; its details are the JSON of a .NET exception, as orchestrators get to see."""
    details: dict[str, Any] = {
        "$type": "System.Exception, System.Private.CoreLib",
        "ClassName": "System.Exception",
        "Message": message,
        "Data": None,
        "InnerException": None,
        "StackTraceString": stack,
    }
    return pb.TaskFailureDetails(
        errorType=message.partition(":")[0],
        errorMessage=f"Activity function '{name}' failed: {message}",
        stackTrace=helpers.get_string_value(json.dumps(details, ensure_ascii=False, separators=(",", ":"))),
    )
