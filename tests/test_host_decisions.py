from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.decisions import Decision, KnownFunctions, decide, failure, termination
from sandbox.host.durable.orchestrator_state import OrchestratorFailedError, OrchestratorState, state_from_answer
from sandbox.host.messages import Answer, RpcException, TypedData

if TYPE_CHECKING:
    from collections.abc import Sequence

KNOWN = KnownFunctions(activities={"A", "B"}, orchestrators={"O"}, default_version="2")
FIRE_AT = "2026-01-02T03:04:05.000000Z"
FIRE_TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

ACTIVITY = {"actionType": 0, "functionName": "A", "input": '{"a": 1}'}
TIMER = {"actionType": 5, "fireAt": FIRE_AT, "isCanceled": False}
CHILD = {"actionType": 2, "functionName": "O", "input": "1", "instanceId": "child"}
EVENT = {"actionType": 6, "externalEventName": "go", "reason": "ExternalEvent"}
AGAIN = {"actionType": 4, "input": "5"}


def activity(name: str = "A") -> dict[str, Any]:
    return {**ACTIVITY, "functionName": name}


def state(*actions: dict[str, Any], **fields: Any) -> OrchestratorState:  # noqa: ANN401 - any field of the state
    document = {"isDone": False, "actions": [list(actions)], **fields}
    return state_from_answer(Answer(invocation_id="1", return_value=TypedData(json=json.dumps(document))))


def scheduled(number: int, name: str = "A") -> pb.HistoryEvent:
    return helpers.new_task_scheduled_event(number, name, None)


def completed(number: int) -> pb.HistoryEvent:
    return helpers.new_task_completed_event(number, "1")


def decided(answered: OrchestratorState, history: Sequence[pb.HistoryEvent] = ()) -> Decision:
    return decide(answered, history, name="O", known=KNOWN)


def summary(decision: Decision) -> list[tuple[int, str]]:
    """Give the number and the kind of each action."""
    return [
        (action.id, next(field.name for field, _ in action.ListFields() if field.name != "id"))
        for action in decision.actions
    ]


def output(decision: Decision) -> Any:  # noqa: ANN401 - any JSON value
    return json.loads(decision.actions[-1].completeOrchestration.result.value)


def test_numbers_what_schedules_something_and_nothing_else() -> None:
    decision = decided(state(EVENT, activity(), EVENT, TIMER, CHILD))
    assert summary(decision) == [(0, "scheduleTask"), (1, "createTimer"), (2, "createSubOrchestration")]


def test_flattens_what_waits_for_all_or_any() -> None:
    inner = {"actionType": 11, "compoundActions": [TIMER, EVENT]}
    outer = {"actionType": 12, "compoundActions": [activity(), inner, activity("B")]}
    decision = decided(state(activity("B"), outer))
    assert summary(decision) == [(0, "scheduleTask"), (1, "scheduleTask"), (2, "createTimer"), (3, "scheduleTask")]


def test_an_activity_keeps_its_name_and_its_encoded_input() -> None:
    task = decided(state(activity())).actions[0].scheduleTask
    assert (task.name, json.loads(task.input.value)) == ("A", '{"a": 1}')


def test_a_timer_keeps_its_time_with_and_without_an_offset() -> None:
    for text in (FIRE_AT, "2026-01-02T03:04:05", "2026-01-02T05:04:05+02:00"):
        action = decided(state({**TIMER, "fireAt": text})).actions[0]
        assert action.createTimer.fireAt.ToDatetime(tzinfo=UTC) == FIRE_TIME


def test_a_sub_orchestration_keeps_its_id_and_version_or_gets_them() -> None:
    named = decided(state({**CHILD, "version": "9"})).actions[0].createSubOrchestration
    assert (named.instanceId, named.version.value) == ("child", "9")
    made = [decided(state({**CHILD, "instanceId": None})).actions[0].createSubOrchestration for _ in range(2)]
    assert made[0].instanceId != made[1].instanceId
    assert made[0].version.value == "2"


def test_schedules_only_what_the_history_lacks() -> None:
    history = [scheduled(0), completed(0), scheduled(1, "B")]
    decision = decided(state(activity(), activity("B"), activity()), history)
    assert summary(decision) == [(2, "scheduleTask")]


def test_ends_with_the_output_when_nothing_is_open() -> None:
    decision = decided(state(activity(), isDone=True, output={"x": 1}), [scheduled(0), completed(0)])
    assert decision.actions[0].completeOrchestration.orchestrationStatus == pb.ORCHESTRATION_STATUS_COMPLETED
    assert output(decision) == {"x": 1}


def test_ends_without_an_output() -> None:
    assert decided(state(isDone=True)).actions[0].completeOrchestration.result.value == ""


@pytest.mark.parametrize(
    ("action", "opening", "closing"),
    [
        (activity(), scheduled(0), helpers.new_task_failed_event(0, Exception("x"))),
        (TIMER, helpers.new_timer_created_event(0, FIRE_TIME), helpers.new_timer_fired_event(0, FIRE_TIME)),
        (
            CHILD,
            helpers.new_sub_orchestration_created_event(0, "O", "child"),
            helpers.new_sub_orchestration_completed_event(0, "1"),
        ),
        (
            CHILD,
            helpers.new_sub_orchestration_created_event(0, "O", "child"),
            helpers.new_sub_orchestration_failed_event(0, Exception("x")),
        ),
    ],
)
def test_does_not_end_while_something_is_open(
    action: dict[str, Any], opening: pb.HistoryEvent, closing: pb.HistoryEvent
) -> None:
    done, failed = state(action, isDone=True, output=1), state(action, error="broken")
    assert summary(decided(done, [opening])) == summary(decided(failed, [opening])) == []
    assert summary(decided(done, [opening, closing])) == [(-1, "completeOrchestration")]
    assert output(decided(failed, [opening, closing])) == "Orchestrator function 'O' failed: broken"


def test_a_cancelled_timer_is_not_open_but_has_its_number() -> None:
    cancelled = {**TIMER, "isCanceled": True}
    history = [helpers.new_timer_created_event(0, FIRE_TIME), scheduled(1), completed(1)]
    decision = decided(state(cancelled, activity(), isDone=True, output=1), history)
    assert summary(decision) == [(-1, "completeOrchestration")]


def test_what_is_scheduled_in_the_last_run_still_goes_out() -> None:
    assert summary(decided(state(activity(), isDone=True, output=1))) == [(0, "scheduleTask")]


def test_continues_as_new_with_the_new_input() -> None:
    decision = decided(state(AGAIN, isDone=True))
    action = decision.actions[0].completeOrchestration
    assert action.orchestrationStatus == pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW
    assert output(decision) == "5"


def test_fails_with_the_functions_error() -> None:
    decision = decided(state(error="no luck", isDone=False))
    action = decision.actions[0].completeOrchestration
    assert action.orchestrationStatus == pb.ORCHESTRATION_STATUS_FAILED
    assert action.failureDetails.errorMessage == output(decision) == "Orchestrator function 'O' failed: no luck"


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (1, "CallActivityWithRetry"),
        (3, "CallSubOrchestratorWithRetry"),
        (7, "CallEntity"),
        (8, "CallHttp"),
        (9, "SignalEntity"),
        (77, "number 77"),
    ],
)
def test_refuses_an_action_that_it_does_not_support(number: int, name: str) -> None:
    decision = decided(state(activity(), {"actionType": number}))
    assert summary(decision) == [(-1, "completeOrchestration")]
    assert f"The action {name} is not supported" in output(decision)


@pytest.mark.parametrize(
    ("action", "kind"), [(activity("X"), "activity"), ({**CHILD, "functionName": "X"}, "orchestrator")]
)
def test_refuses_a_function_that_the_app_does_not_have(action: dict[str, Any], kind: str) -> None:
    decision = decided(state(action))
    assert f"The function 'X' doesn't exist, is disabled, or is not an {kind} function" in output(decision)


def test_says_that_there_are_no_functions_to_call() -> None:
    none = KnownFunctions(activities=set(), orchestrators=set())
    decision = decide(state(activity()), (), name="O", known=none)
    assert output(decision).endswith("The app's activity functions are: none")


@pytest.mark.parametrize(
    ("action", "event"),
    [
        (activity("B"), scheduled(0, "A")),
        (TIMER, scheduled(0, "A")),
        (activity(), helpers.new_timer_created_event(0, FIRE_TIME)),
        (CHILD, helpers.new_sub_orchestration_created_event(0, "P", "child")),
    ],
)
def test_fails_where_the_replay_does_something_else(action: dict[str, Any], event: pb.HistoryEvent) -> None:
    assert "Non-deterministic orchestrator: its action 0 was" in output(decided(state(action), [event]))


def test_a_timer_may_have_another_time_in_its_replay() -> None:
    history = [helpers.new_timer_created_event(0, datetime(2030, 1, 1, tzinfo=UTC))]
    assert summary(decided(state(TIMER), history)) == []


def test_a_custom_status_is_json_and_at_most_16_kb() -> None:
    assert decided(state(activity())).custom_status is None
    assert decided(state(activity(), customStatus={"a": 1})).custom_status == '{"a": 1}'
    assert "larger than 16 KB" in output(decided(state(activity(), customStatus="x" * 8191)))
    assert decided(state(activity(), customStatus="x" * 8190)).custom_status == json.dumps("x" * 8190)
    for letter, most in (("ü", 8190), ("\N{ROCKET}", 4095)):
        assert decided(state(activity(), customStatus=letter * most)).custom_status == json.dumps(letter * most)
        assert "larger than 16 KB" in output(decided(state(activity(), customStatus=letter * (most + 1))))


def test_reads_the_state_of_an_orchestrator_that_raised() -> None:
    document = {"isDone": False, "actions": [[activity()]], "error": "boom", "customStatus": 1}
    message = f"Exception: boom\n\n$OutOfProcData$:{json.dumps(document)}"
    answer = Answer(invocation_id="1", exception=RpcException(message=message, stack_trace=f"where {message}"))
    found = state_from_answer(answer)
    assert (found.error, found.custom_status, found.is_done, len(found.actions)) == ("boom", 1, False, 1)
    assert found.details == "where Exception: boom"


def test_an_exception_without_a_state_is_a_failure() -> None:
    answer = Answer(invocation_id="1", exception=RpcException(message="TypeError: odd", stack_trace="where"))
    with pytest.raises(OrchestratorFailedError, match="TypeError: odd") as raised:
        state_from_answer(answer)
    assert raised.value.details == "where"


@pytest.mark.parametrize("value", [None, TypedData(), TypedData(json="[]"), TypedData(json="null")])
def test_an_answer_without_a_state_is_a_failure(value: TypedData | None) -> None:
    with pytest.raises(OrchestratorFailedError, match="without the state"):
        state_from_answer(Answer(invocation_id="1", return_value=value))


def test_a_termination_has_the_reason_as_its_output() -> None:
    action = termination('"enough"').actions[0].completeOrchestration
    assert action.orchestrationStatus == pb.ORCHESTRATION_STATUS_TERMINATED
    assert action.result.value == '"enough"'


def test_a_failure_keeps_its_details() -> None:
    action = failure("O", OrchestratorFailedError("x", "where")).actions[0].completeOrchestration
    assert action.failureDetails.stackTrace.value == "where"
