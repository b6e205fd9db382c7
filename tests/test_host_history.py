from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.durable_functions.models.DurableOrchestrationContext import DurableOrchestrationContext
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.functions import activity_input, split_at_suspension
from sandbox.host.durable.history import (
    orchestrator_context,
    orchestrator_input,
    protocol_event,
)
from sandbox.host.durable.instance_status import history_json, status_json
from sandbox.host.durable.instances import Instance

AT = datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC)
FIRE_AT = datetime(2026, 2, 3, tzinfo=UTC)
DETAILS = pb.TaskFailureDetails(errorMessage="why", stackTrace=helpers.get_string_value("where"))
TASK_FAILED = pb.HistoryEvent(eventId=-1, taskFailed=pb.TaskFailedEvent(taskScheduledId=3, failureDetails=DETAILS))
STARTED = helpers.new_execution_started_event("O", "one", '"{\\"a\\": 1}"', version="1.0")


def at(event: pb.HistoryEvent) -> pb.HistoryEvent:
    event.timestamp.FromDatetime(AT)
    return event


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (helpers.new_orchestrator_started_event(AT), {"EventType": 12, "EventId": -1}),
        (helpers.new_orchestrator_completed_event(), {"EventType": 13}),
        (
            STARTED,
            {
                "EventType": 0,
                "Name": "O",
                "Version": "1.0",
                "Input": '"{\\"a\\": 1}"',
                "OrchestrationInstance": {"InstanceId": "one", "ExecutionId": None},
            },
        ),
        (
            helpers.new_execution_completed_event(pb.ORCHESTRATION_STATUS_FAILED, '"x"'),
            {"EventType": 1, "OrchestrationStatus": pb.ORCHESTRATION_STATUS_FAILED, "Result": '"x"'},
        ),
        (helpers.new_terminated_event(encoded_output='"x"'), {"EventType": 3, "Input": '"x"'}),
        (helpers.new_task_scheduled_event(3, "A", "1"), {"EventType": 4, "EventId": 3, "Name": "A", "Input": "1"}),
        (
            helpers.new_task_completed_event(3, "2"),
            {"EventType": 5, "EventId": -1, "TaskScheduledId": 3, "Result": "2"},
        ),
        (TASK_FAILED, {"EventType": 6, "TaskScheduledId": 3, "Reason": "why", "Details": "where"}),
        (
            helpers.new_sub_orchestration_created_event(4, "O", "child", "1"),
            {"EventType": 7, "EventId": 4, "Name": "O", "InstanceId": "child"},
        ),
        (helpers.new_sub_orchestration_completed_event(4, "5"), {"EventType": 8, "TaskScheduledId": 4, "Result": "5"}),
        (
            helpers.new_sub_orchestration_failed_event(4, ValueError("odd")),
            {"EventType": 9, "TaskScheduledId": 4, "Reason": "odd"},
        ),
        (
            helpers.new_timer_created_event(5, FIRE_AT),
            {"EventType": 10, "EventId": 5, "FireAt": "2026-02-03T00:00:00.000000Z"},
        ),
        (
            helpers.new_timer_fired_event(5, FIRE_AT),
            {"EventType": 11, "TimerId": 5, "FireAt": "2026-02-03T00:00:00.000000Z"},
        ),
        (helpers.new_event_raised_event("go", "1"), {"EventType": 15, "Name": "go", "Input": "1"}),
        (helpers.new_suspend_event(encoded_input='"x"'), {"EventType": 19, "Input": '"x"'}),
        (helpers.new_resume_event(), {"EventType": 20, "Input": None}),
    ],
)
def test_gives_every_event_in_the_protocols_form(event: pb.HistoryEvent, expected: dict[str, Any]) -> None:
    found = protocol_event(at(event), is_played=True)
    assert found["IsPlayed"] is True
    assert found["Timestamp"] == "2026-01-02T03:04:05.006000Z"
    assert expected.items() <= found.items()


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ("[1]", "[1]"),
        ("null", "null"),
        ('"text"', "text"),
        (None, None),
    ],
)
def test_gives_an_orchestrator_the_text_that_it_decodes(payload: str | None, expected: str | None) -> None:
    event = helpers.new_execution_started_event("O", "one", payload)
    assert orchestrator_input([helpers.new_orchestrator_started_event(AT), event]) == expected


def test_a_history_without_a_start_has_no_input() -> None:
    assert orchestrator_input([]) is None


def test_the_client_library_understands_the_context() -> None:
    past = [helpers.new_orchestrator_started_event(AT), at(STARTED)]
    new = [helpers.new_orchestrator_started_event(AT), at(helpers.new_event_raised_event("go", "1"))]
    text = orchestrator_context(past, new, instance_id="one", parent_instance_id="parent")
    context = DurableOrchestrationContext.from_json(text)
    assert (context.instance_id, context.parent_instance_id, context.version) == ("one", "parent", "1.0")
    assert context.is_replaying
    assert context.get_input(expected_type=dict) == {"a": 1}
    assert context.current_utc_datetime == AT
    assert [event.is_played for event in context.histories] == [True, True, False, False]


def test_the_first_run_is_no_replay() -> None:
    new = [helpers.new_orchestrator_started_event(AT), at(STARTED)]
    context = json.loads(orchestrator_context([], new, instance_id="one", parent_instance_id=None))
    assert context["isReplaying"] is False
    assert context["parentInstanceId"] is None


def test_an_activity_gets_the_json_that_the_client_library_encoded() -> None:
    assert activity_input('"{\\"a\\": 1}"').json == '{"a": 1}'
    assert activity_input('"null"').json == "null"
    assert activity_input(None).json == "null"
    assert activity_input("[1]").json == "[1]"


def names(events: list[pb.HistoryEvent]) -> list[str]:
    return [event.eventRaised.name for event in events if event.HasField("eventRaised")]


def test_only_events_before_a_suspension_are_due() -> None:
    a, b = helpers.new_event_raised_event("a"), helpers.new_event_raised_event("b")
    suspend, resume = helpers.new_suspend_event(), helpers.new_resume_event()
    due, postponed = split_at_suspension([a, suspend, b])
    assert (names(due), names(postponed)) == (["a"], ["b"])
    assert split_at_suspension([a, suspend, b, resume]) == ([a, suspend, b, resume], [])
    assert split_at_suspension([a, suspend, resume, suspend, b])[1] == [b]
    assert split_at_suspension([]) == ([], [])


HISTORY = [
    helpers.new_orchestrator_started_event(AT),
    STARTED,
    helpers.new_task_scheduled_event(0, "A", '"{\\"in\\": 1}"'),
    helpers.new_task_scheduled_event(1, "B", None),
    helpers.new_timer_created_event(2, FIRE_AT),
    helpers.new_sub_orchestration_created_event(3, "Child", "child", None),
    helpers.new_orchestrator_completed_event(),
    helpers.new_orchestrator_started_event(AT),
    helpers.new_task_completed_event(0, '{"out": 1}'),
    helpers.new_event_raised_event("go", "5"),
    helpers.new_timer_fired_event(2, FIRE_AT),
    helpers.new_sub_orchestration_failed_event(3, ValueError("odd")),
    helpers.new_execution_completed_event(pb.ORCHESTRATION_STATUS_COMPLETED, '"done"'),
]


def test_shows_a_history_without_bookkeeping_and_with_what_is_still_open() -> None:
    shown = history_json(HISTORY, show_output=True, show_input=True)
    assert [event["EventType"] for event in shown] == [
        "ExecutionStarted",
        "TaskScheduled",
        "TimerCreated",
        "TaskCompleted",
        "EventRaised",
        "TimerFired",
        "SubOrchestrationInstanceFailed",
        "ExecutionCompleted",
    ]
    started, scheduled, _, task, event, _, child, end = shown
    assert (started["FunctionName"], started["Input"]) == ("O", '{"a": 1}')
    assert scheduled["FunctionName"] == "B"
    assert (task["FunctionName"], task["Result"], task["Input"]) == ("A", {"out": 1}, '{"in": 1}')
    assert "ScheduledTime" in task
    assert (event["Name"], event["Input"]) == ("go", 5)
    assert (child["FunctionName"], child["Reason"]) == ("Child", "odd")
    assert (end["OrchestrationStatus"], end["Result"]) == ("Completed", "done")
    assert not {"EventId", "IsPlayed", "TaskScheduledId", "TimerId"} & {key for event in shown for key in event}


def test_hides_inputs_and_outputs_of_a_history() -> None:
    shown = history_json(HISTORY, show_output=False, show_input=False)
    assert not {"Input", "Result"} & {key for event in shown for key in event}


def test_gives_a_status_with_its_payloads_as_json() -> None:
    instance = Instance(
        instance_id="one",
        name="O",
        status="Running",
        is_finished=False,
        created_at=AT,
        last_updated_at=AT,
        input='{"a": 1}',
        output=None,
        custom_status="[1]",
    )
    assert status_json(instance) == {
        "name": "O",
        "instanceId": "one",
        "runtimeStatus": "Running",
        "input": {"a": 1},
        "customStatus": [1],
        "output": None,
        "createdTime": "2026-01-02T03:04:05Z",
        "lastUpdatedTime": "2026-01-02T03:04:05Z",
    }
    assert status_json(instance, show_input=False)["input"] is None
