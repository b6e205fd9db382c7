from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.decisions import Decision, activity_failure, decide, failure
from sandbox.host.durable.numbering import KnownFunctions
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
    text = output(decided(state(action), [event]))
    assert text.startswith("Non-Deterministic workflow detected: A previous execution of this orchestration scheduled")


def test_a_timer_may_have_another_time_in_its_replay() -> None:
    history = [helpers.new_timer_created_event(0, datetime(2030, 1, 1, tzinfo=UTC))]
    assert summary(decided(state(TIMER), history)) == []


def test_reads_the_state_of_an_orchestrator_that_raised() -> None:
    document = {"isDone": False, "actions": [[activity()]], "error": "boom", "customStatus": 1}
    message = f"Exception: boom\n\n$OutOfProcData$:{json.dumps(document)}"
    answer = Answer(invocation_id="1", exception=RpcException(message=message, stack_trace=f"where {message}"))
    found = state_from_answer(answer)
    assert (found.error, found.custom_status, found.is_done, len(found.actions)) == ("boom", 1, False, 1)
    assert found.details == "where Exception: boom"


@pytest.mark.parametrize("value", [None, TypedData(), TypedData(json="[]"), TypedData(json="null")])
def test_an_answer_without_a_state_is_a_failure(value: TypedData | None) -> None:
    with pytest.raises(OrchestratorFailedError, match="without the state"):
        state_from_answer(Answer(invocation_id="1", return_value=value))


@pytest.mark.parametrize("letter", ["x", "\u00fc", "\\", "\u2028", "\N{ROCKET}"])
def test_a_custom_status_is_json_and_at_most_16_kb_as_dotnet_writes_it(letter: str) -> None:
    assert decided(state(activity())).custom_status is None
    most = 8190 // {"\\": 2, "\u2028": 6, "\N{ROCKET}": 2}.get(letter, 1)
    assert decided(state(activity(), customStatus=letter * most)).custom_status == json.dumps(letter * most)
    assert "must not exceed 16 KB" in output(decided(state(activity(), customStatus=letter * (most + 1))))


def test_an_orchestrator_whose_worker_ended_fails_with_how_it_ended_if_it_had_scheduled_nothing() -> None:
    lost = state_from_answer(Answer(invocation_id="1", exception=RpcException(message="python exited with code 137")))
    assert output(decided(lost)) == "Orchestrator function 'O' failed: python exited with code 137"
    assert output(decided(lost, [scheduled(0)])).startswith("Non-Deterministic workflow detected: ")


def test_failures_carry_the_details_that_orchestrators_see() -> None:
    orchestrator = failure("O", OrchestratorFailedError("x", "where")).actions[0].completeOrchestration
    assert orchestrator.failureDetails.stackTrace.value == "Message: x, StackTrace: where"
    details = json.loads(activity_failure("A", "ValueError: x", "where").stackTrace.value)
    assert (details["Message"], details["StackTraceString"]) == ("ValueError: x", "where")


def failed(number: int) -> pb.HistoryEvent:
    return helpers.new_task_failed_event(number, Exception("x"))


def paused(number: int) -> list[pb.HistoryEvent]:
    return [helpers.new_timer_created_event(number, FIRE_TIME), helpers.new_timer_fired_event(number, FIRE_TIME)]


RETRY = {
    "actionType": 1,
    "functionName": "A",
    "input": "1",
    "retryOptions": {"firstRetryIntervalInMilliseconds": 1500, "maxNumberOfAttempts": 2},
}
STARTED_AT = helpers.new_orchestrator_started_event(datetime(2026, 1, 1, tzinfo=UTC))


def test_a_failed_attempt_is_followed_by_a_pause_and_the_next_attempt() -> None:
    first = [scheduled(0), STARTED_AT, failed(0)]
    assert summary(decided(state(RETRY))) == [(0, "scheduleTask")]
    pause = decided(state(RETRY), first)
    assert summary(pause) == [(1, "createTimer")]
    assert pause.actions[0].createTimer.fireAt.ToDatetime(tzinfo=UTC) == datetime(2026, 1, 1, 0, 0, 1, 500000, UTC)
    assert summary(decided(state(RETRY), [*first, *paused(1)])) == [(2, "scheduleTask")]


def test_the_last_failure_is_followed_by_a_pause_as_well_and_then_the_call_is_over() -> None:
    history = [scheduled(0), STARTED_AT, failed(0), *paused(1), scheduled(2), failed(2)]
    assert summary(decided(state(RETRY), history)) == [(3, "createTimer")]
    assert summary(decided(state(RETRY, isDone=True), [*history, *paused(3)])) == [(-1, "completeOrchestration")]


def test_a_call_with_retry_leaves_the_numbers_of_other_actions_in_their_order() -> None:
    history = [scheduled(0), scheduled(1, "B"), STARTED_AT, failed(0), paused(2)[0], completed(1)]
    decision = decided(state(RETRY, activity("B"), activity("B")), history)
    assert summary(decision) == [(3, "scheduleTask")]


def test_a_sub_orchestration_can_be_called_with_retry() -> None:
    call = {**RETRY, "actionType": 3, "functionName": "O", "instanceId": "child"}
    created = helpers.new_sub_orchestration_created_event(0, "O", "child")
    lost = helpers.new_sub_orchestration_failed_event(0, Exception("x"))
    assert summary(decided(state(call), [created, STARTED_AT, lost])) == [(1, "createTimer")]


def test_a_rewound_history_schedules_again_under_the_number_that_is_gone() -> None:
    gone = pb.HistoryEvent(eventId=0, genericEvent=pb.GenericEvent())
    both, before = state(activity(), activity("B"), isDone=True, output=1), [gone, scheduled(1, "B"), completed(1)]
    assert summary(decided(both, before)) == [(0, "scheduleTask")]
    assert summary(decided(both, [*before, scheduled(0)])) == []
    assert summary(decided(both, [*before, scheduled(0), completed(0)])) == [(-1, "completeOrchestration")]
    assert output(decided(state(error="lost"), before)).startswith("Non-Deterministic workflow detected: ")
