"""What an orchestrator function answers: its state, as the SDK takes it down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sandbox.host.messages import Answer

# Separates, in the text of a failed orchestrator's exception, the message from the state as JSON.
OUT_OF_PROCESS_DATA = "\n\n$OutOfProcData$:"


class ActionType(IntEnum):
    """The types of orchestrator actions, numbered as in the protocol."""

    CallActivity = 0
    CallActivityWithRetry = 1
    CallSubOrchestrator = 2
    CallSubOrchestratorWithRetry = 3
    ContinueAsNew = 4
    CreateTimer = 5
    WaitForExternalEvent = 6
    CallEntity = 7
    CallHttp = 8
    SignalEntity = 9
    WhenAny = 11
    WhenAll = 12


class OrchestratorFailedError(Exception):
    """The orchestrator function failed, or asked for what cannot be done; `details` may have its traceback."""

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


class NonDeterministicError(OrchestratorFailedError):
    """The function has not scheduled again what the history says it scheduled."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"Non-Deterministic workflow detected: {problem} Was a change made to the orchestrator code after this "
            "instance had already started running?"
        )


@dataclass(frozen=True, slots=True)
class OrchestratorState:
    """What an orchestrator function answered; `error` is set where it raised."""

    is_done: bool
    actions: Sequence[Mapping[str, Any]]
    output: Any = None
    custom_status: Any = None
    error: str | None = None
    details: str = ""


def _flat(actions: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield the actions in their order, those inside `WhenAll` and `WhenAny` in the place of these."""
    for action in actions:
        if action["actionType"] in (ActionType.WhenAll, ActionType.WhenAny):
            yield from _flat(action["compoundActions"])
        else:
            yield action


def state_from_answer(answer: Answer) -> OrchestratorState:
    """Read the answer of an orchestrator function; one that failed before the SDK took its state down has no actions.

    Raises:
        OrchestratorFailedError: the function answered something else than a state.
    """
    if answer.exception is not None:
        message, separator, text = answer.exception.message.partition(OUT_OF_PROCESS_DATA)
        details = answer.exception.stack_trace.partition(OUT_OF_PROCESS_DATA)[0]
        if not separator:
            return OrchestratorState(is_done=False, actions=(), error=message, details=details)
    else:
        text, details = (answer.return_value.json if answer.return_value is not None else None) or "null", ""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise OrchestratorFailedError("the function answered without the state of an orchestration")
    error, is_done = document.get("error"), bool(document.get("isDone"))
    if answer.exception is not None and is_done:
        # The result was no JSON. The platform shows the whole message of the worker.
        error = (
            f"One or more errors occurred. (Result: Failure\nException: {answer.exception.message}\nStack: {details})"
        )
    return OrchestratorState(
        is_done=is_done,
        actions=[action for batch in document.get("actions", ()) for action in _flat(batch)],
        output=document.get("output"),
        custom_status=document.get("customStatus"),
        error=error,
        details=details,
    )
