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
    """Give the actions in their order, those inside `WhenAll` and `WhenAny` in the place of these."""
    for action in actions:
        if action["actionType"] in (ActionType.WhenAll, ActionType.WhenAny):
            yield from _flat(action["compoundActions"])
        else:
            yield action


def state_from_answer(answer: Answer) -> OrchestratorState:
    """Read the answer of an orchestrator function.

    Raises:
        OrchestratorFailedError: the function failed before the SDK could take down its state.
    """
    if answer.exception is not None:
        message, separator, text = answer.exception.message.partition(OUT_OF_PROCESS_DATA)
        if not separator:
            raise OrchestratorFailedError(message, answer.exception.stack_trace)
        details = answer.exception.stack_trace.partition(OUT_OF_PROCESS_DATA)[0]
    else:
        text, details = (answer.return_value.json if answer.return_value is not None else None) or "null", ""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise OrchestratorFailedError("the function answered without the state of an orchestration")
    return OrchestratorState(
        is_done=bool(document.get("isDone")),
        actions=[action for batch in document.get("actions", ()) for action in _flat(batch)],
        output=document.get("output"),
        custom_status=document.get("customStatus"),
        error=document.get("error"),
        details=details,
    )
