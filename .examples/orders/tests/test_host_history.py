from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from azure.durable_functions.models.DurableOrchestrationContext import DurableOrchestrationContext
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.functions import activity_input, split_at_retry, split_at_suspension
from sandbox.host.durable.history import orchestrator_context, orchestrator_input, protocol_event
from sandbox.host.durable.instance_status import history_json

AT = datetime(2026, 1, 2, 3, 4, 5, 6000, tzinfo=UTC)
STARTED = helpers.new_execution_started_event("O", "one", '"{\\"a\\": 1}"', version="1.0")
FAILED = helpers.new_task_failed_event(3, Exception("why"))
EVENTS = [
    STARTED,
    helpers.new_orchestrator_started_event(AT),
    helpers.new_orchestrator_completed_event(),
    helpers.new_task_scheduled_event(3, "A", "1"),
    helpers.new_task_completed_event(3, "2"),
    FAILED,
    helpers.new_timer_created_event(5, AT),
    helpers.new_timer_fired_event(5, AT),
    helpers.new_event_raised_event("go", "1"),
    pb.HistoryEvent(eventId=-1, genericEvent=pb.GenericEvent()),
    helpers.new_suspend_event(encoded_input="why"),
    helpers.new_resume_event(),
]


def recorded_members() -> dict[int, set[str]]:
    """Return the members of each type of event that the platform handed to orchestrators."""
    contexts = json.loads((Path(__file__).parent / "fidelity" / "contexts.json").read_text())
    events = [event for each in contexts for event in each["context"]["history"]]
    return {event["EventType"]: set(event) for event in events}


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.WhichOneof("eventType"))
def test_events_have_the_members_that_the_platform_hands_out(event: pb.HistoryEvent) -> None:
    found = protocol_event(event, is_played=True)
    assert set(found) == recorded_members()[found["EventType"]]


def test_the_context_has_the_members_that_the_platform_hands_out() -> None:
    recorded = json.loads((Path(__file__).parent / "fidelity" / "contexts.json").read_text())[0]["context"]
    found = json.loads(orchestrator_context([], [STARTED], instance_id="one", parent_instance_id=None))
    different = {"history", "input", "instanceId"}
    assert {name: found[name] for name in found if name not in different} == {
        name: recorded[name] for name in recorded if name not in different
    }


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('{"a": 1}', '{"a": 1}'),
        ("null", "null"),
        ('"text"', "text"),
        (None, None),
    ],
)
def test_gives_an_orchestrator_the_text_that_it_decodes(payload: str | None, expected: str | None) -> None:
    event = helpers.new_execution_started_event("O", "one", payload)
    assert orchestrator_input([helpers.new_orchestrator_started_event(AT), event]) == expected


def test_the_client_library_understands_the_context() -> None:
    past = [helpers.new_orchestrator_started_event(AT), STARTED]
    new = [helpers.new_orchestrator_started_event(AT), helpers.new_event_raised_event("go", "1")]
    text = orchestrator_context(past, new, instance_id="one", parent_instance_id="parent")
    context = DurableOrchestrationContext.from_json(text)
    assert (context.instance_id, context.parent_instance_id, context.version) == ("one", "parent", "1.0")
    assert context.is_replaying
    assert context.get_input(expected_type=dict) == {"a": 1}
    assert context.current_utc_datetime == AT
    assert [event.is_played for event in context.histories] == [True, True, False, False]


def test_an_activity_gets_the_json_that_the_client_library_encoded() -> None:
    assert activity_input('"{\\"a\\": 1}"').json == '{"a": 1}'
    assert activity_input('"null"').json == "null"
    assert activity_input(None).json == "null"


def test_only_events_before_a_suspension_are_due() -> None:
    a, b = helpers.new_event_raised_event("a"), helpers.new_event_raised_event("b")
    suspend, resume = helpers.new_suspend_event(), helpers.new_resume_event()
    assert split_at_suspension([a, suspend, b]) == ([a, suspend], [b])
    assert split_at_suspension([a, suspend, b, resume]) == ([a, suspend, b, resume], [])
    assert split_at_suspension([a, suspend, resume, suspend, b])[1] == [b]


def test_what_may_end_an_attempt_is_due_alone() -> None:
    started, event = helpers.new_orchestrator_started_event(AT), helpers.new_event_raised_event("a")
    assert split_at_retry([started, event, FAILED]) == ([started, event], [FAILED])
    assert split_at_retry([started, FAILED, event]) == ([started, FAILED], [event])
    assert split_at_retry([started, event]) == ([started, event], [])


def test_hides_inputs_and_outputs_of_a_history() -> None:
    done = helpers.new_execution_completed_event(pb.ORCHESTRATION_STATUS_COMPLETED, '"done"')
    history = [STARTED, *EVENTS, done]

    def members(*, shown: bool) -> set[str]:
        events: list[dict[str, Any]] = history_json(history, show_output=shown, show_input=shown)
        return {name for event in events for name in event}

    assert {"Input", "Result"} <= members(shown=True)
    assert not {"Input", "Result"} & members(shown=False)
