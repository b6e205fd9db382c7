"""Orchestrations under the host, in processes of their own."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.host_apps.host_process import APPS, WEBHOOKS, HostProcess, running_host, until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Generator[HostProcess]:
    with running_host(APPS / "durable", tmp_path_factory.mktemp("host")) as running:
        yield running


def test_runs_activities_one_after_the_other(host: HostProcess) -> None:
    status = host.run("chain", "Ada")
    assert status["runtimeStatus"] == "Completed"
    assert status["output"] == ["Hello Ada", "Hi Hello Ada"]
    assert status["name"] == "chain"


@pytest.mark.parametrize(
    "value", [None, 0, 1.5, "", "text", '{"a": 1}', [], [1, [2]], {"a": {"b": None}}, "ä€😀", False]
)
def test_carries_every_json_value_through_input_activity_and_output(host: HostProcess, value: object) -> None:
    assert host.run("echo", value)["output"] == value


def test_shows_the_input_of_the_client_library_as_escaped_text(host: HostProcess) -> None:
    assert host.run("echo", {"a": 1})["input"] == '{"a": 1}'


def test_gives_an_orchestrator_without_activities_its_input_id_and_version(host: HostProcess) -> None:
    instance_id = host.start("not_a_generator", {"a": [1]}, instance_id="plain")
    output = host.finished(instance_id)["output"]
    assert output == {"input": {"a": [1]}, "id": "plain", "version": "1.5"}


def test_takes_the_version_that_the_caller_names(host: HostProcess) -> None:
    url = f"{WEBHOOKS}/orchestrators/not_a_generator"
    instance_id = host.http.post(url, params={"version": "7"}, json={}).json()["id"]
    assert host.finished(instance_id)["output"]["version"] == "7"


def test_fans_out_and_in(host: HostProcess) -> None:
    assert host.run("fan_out", 100)["output"] == 9900


def test_bounds_the_activities_that_run_at_once(host: HostProcess) -> None:
    names = [f"bounded-{number}" for number in range(6)]
    instance_id = host.start("first_of", names)
    until(lambda: len(list(host.folder.glob("bounded-*.started"))) == 4, "four activities")
    # The fifth starts when one of the four is done.
    running = next(iter(host.folder.glob("bounded-*.started"))).name.removesuffix(".started")
    (host.folder / running).touch()
    until(lambda: len(list(host.folder.glob("bounded-*.started"))) == 5, "the fifth activity")
    # The winner is known, but the instance ends only when nothing is open any more, as on the platform.
    assert host.status(instance_id)["runtimeStatus"] == "Running"
    for name in names:
        (host.folder / name).touch()
    assert host.finished(instance_id)["output"] == running


def test_fires_a_durable_timer_not_before_its_time(host: HostProcess) -> None:
    assert 0.3 <= host.run("timer", 0.3)["output"] < 5


def test_a_timer_in_the_past_fires_at_once(host: HostProcess) -> None:
    assert host.run("timer", -5)["output"] < 5


def test_an_event_beats_the_timer_and_cancelling_the_timer_ends_the_instance(host: HostProcess) -> None:
    instance_id = host.start("approval", 3600)
    until(lambda: host.status(instance_id)["customStatus"] == {"waiting": True}, "the custom status")
    assert host.raise_event(instance_id, {"by": "Ada"}) == 202
    status = host.finished(instance_id)
    assert status["output"] == {"approved": {"by": "Ada"}}
    assert status["customStatus"] == {"waiting": True}


def test_the_timer_beats_an_event_that_never_comes(host: HostProcess) -> None:
    assert host.run("approval", 0.1)["output"] == "too late"


def test_an_instance_runs_until_its_uncancelled_timer_fires(host: HostProcess) -> None:
    before = time.monotonic()
    instance_id = host.start("uncancelled", 1.0)
    assert host.raise_event(instance_id, None) == 202
    assert host.finished(instance_id)["output"] == "done"
    assert time.monotonic() - before >= 1


def test_takes_events_in_the_order_in_which_they_came(host: HostProcess) -> None:
    instance_id = host.start("events", 20)
    for number in range(20):
        assert host.raise_event(instance_id, number) == 202
    assert host.finished(instance_id)["output"] == list(range(20))


def test_keeps_events_that_come_before_they_are_waited_for(host: HostProcess) -> None:
    instance_id = host.start("events", 2)
    assert [host.raise_event(instance_id, number) for number in (1, 2)] == [202, 202]
    assert host.finished(instance_id)["output"] == [1, 2]


def test_runs_a_sub_orchestration(host: HostProcess) -> None:
    output = host.run("parent", {"name": "chain", "input": "Bob"})["output"]
    assert output == ["Hello Bob", "Hi Hello Bob"]


def test_a_sub_orchestration_knows_its_parent_and_has_the_id_it_is_given(host: HostProcess) -> None:
    parent_id = host.start("parent", {"name": "who_is_my_parent", "input": 1, "id": "the-child"})
    assert host.finished(parent_id)["output"] == [parent_id, "1.5"]
    assert host.status("the-child")["runtimeStatus"] == "Completed"


def test_the_failure_of_a_sub_orchestration_reaches_its_parent(host: HostProcess) -> None:
    status = host.run("parent", {"name": "failing", "input": "luck"})
    assert status["runtimeStatus"] == "Failed"
    expected = "Orchestrator function 'parent' failed: Orchestrator function 'failing' failed: no luck"
    assert status["output"].startswith(expected)


def test_a_terminated_sub_orchestration_fails_its_parent(host: HostProcess) -> None:
    parent_id = host.start("parent", {"name": "events", "input": 1, "id": "doomed"})
    until(lambda: host.status("doomed").get("runtimeStatus") == "Running", "the child")
    assert host.change("doomed", "terminate", reason="enough") == 202
    assert "'doomed' was terminated" in host.finished(parent_id)["output"]


def test_a_sub_orchestration_with_an_id_that_cannot_be_kept_fails_the_instance(host: HostProcess) -> None:
    output = host.run("parent", {"name": "chain", "input": 1, "id": "\ud800"})["output"]
    assert output.startswith("Orchestrator function 'parent' failed: the host cannot take its answer: ")


def test_an_unknown_sub_orchestrator_fails_the_instance(host: HostProcess) -> None:
    output = host.run("parent", {"name": "nobody", "input": 1})["output"]
    assert "The function 'nobody' doesn't exist, is disabled, or is not an orchestrator function." in output


def test_continues_as_new_until_it_is_done(host: HostProcess) -> None:
    status = host.finished(host.start("count_down", 3), showHistory="true")
    assert status["output"] == "zero"
    assert len((host.folder / "count_down").read_text().splitlines()) == 4
    # Only the last execution is kept.
    assert [event["EventType"] for event in status["historyEvents"]] == [
        "ExecutionStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]


def test_a_failing_orchestrator_fails_its_instance_with_its_message(host: HostProcess) -> None:
    status = host.run("failing", "luck")
    assert (status["runtimeStatus"], status["output"]) == ("Failed", "Orchestrator function 'failing' failed: no luck")
    assert "ValueError: no luck" in host.log


def test_an_orchestrator_that_fails_before_its_first_yield_fails_its_instance(host: HostProcess) -> None:
    output = host.run("failing_at_once", "you")["output"]
    assert output == "Orchestrator function 'failing_at_once' failed: LookupError: nothing for you"


def test_an_orchestrator_sees_why_its_activity_failed(host: HostProcess) -> None:
    output = host.run("calls_failing_activity", "fly")["output"]
    assert output.startswith("Activity function 'fail' failed:  RuntimeError: cannot fly \n ")
    assert "function_app.py" in output


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("exit", "SystemExit: 3"),
        ("cancelled", "CancelledError"),
        ("not JSON", "must be json serializable"),
    ],
)
def test_an_activity_that_ends_in_an_odd_way_fails_and_its_worker_goes_on(
    host: HostProcess, what: str, text: str
) -> None:
    before = host.worker()
    output = host.run("calls_failing_activity", what)["output"]
    assert text in output
    assert host.worker() == before


def test_a_failed_activity_fails_the_instance_that_does_not_catch_it(host: HostProcess) -> None:
    status = host.run("fails_with_the_activity")
    assert status["runtimeStatus"] == "Failed"
    expected = "Orchestrator function 'fails_with_the_activity' failed: Activity function 'fail' failed:  RuntimeError"
    assert status["output"].startswith(expected)


def test_an_unknown_activity_fails_the_instance_and_names_those_there_are(host: HostProcess) -> None:
    output = host.run("calls_unknown_activity")["output"]
    assert "The function 'no_such_activity' doesn't exist, is disabled, or is not an activity function." in output
    assert "'greet_sync'" in output


def test_an_action_that_is_not_supported_fails_the_instance_by_its_name(host: HostProcess) -> None:
    output = host.run("retries")["output"]
    assert output.startswith(
        "Orchestrator function 'retries' failed: The action CallActivityWithRetry is not supported"
    )


def test_refuses_a_custom_status_of_more_than_16_kb(host: HostProcess) -> None:
    assert host.run("big_status", 8000)["customStatus"] == "x" * 8000
    status = host.run("big_status", 8200)
    assert "The custom status is larger than 16 KB" in status["output"]


def test_keeps_a_custom_status_that_a_later_run_does_not_set(host: HostProcess) -> None:
    assert host.run("status_once")["customStatus"] == "set in the first run only"


def test_fails_an_orchestrator_that_does_something_else_in_its_replay(host: HostProcess) -> None:
    instance_id = host.start("not_deterministic")
    until((host.folder / "second_run.started").exists, "the activity")
    (host.folder / "second_run").touch()
    output = host.finished(instance_id)["output"]
    assert "its action 0 was CallActivity wait_for_file, in this replay it is CallActivity note_run" in output


def test_terminates_an_instance_with_the_reason_as_its_output(host: HostProcess) -> None:
    instance_id = host.start("events", 1)
    assert host.change(instance_id, "terminate", reason="no longer needed") == 202
    status = host.finished(instance_id)
    assert (status["runtimeStatus"], status["output"]) == ("Terminated", "no longer needed")


def test_a_suspended_instance_acts_on_nothing_until_it_is_resumed(host: HostProcess) -> None:
    instance_id = host.start("events", 2)
    host.raise_event(instance_id, "before")
    until(lambda: host.status(instance_id)["customStatus"] == 1, "the first event")
    assert host.change(instance_id, "suspend", reason="lunch") == 202
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Suspended", "the suspension")
    assert host.raise_event(instance_id, "while suspended") == 202
    assert host.status(instance_id)["runtimeStatus"] == "Suspended"
    assert host.change(instance_id, "resume", reason="back") == 202
    assert host.finished(instance_id)["output"] == ["before", "while suspended"]


def test_an_activity_that_ends_while_its_instance_is_suspended_counts_when_it_is_resumed(host: HostProcess) -> None:
    instance_id = host.start("interrupted")
    until((host.folder / "first.started").exists, "the activity")
    host.change(instance_id, "suspend")
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Suspended", "the suspension")
    (host.folder / "first").touch()
    (host.folder / "second").touch()
    assert host.run("chain", "another")["runtimeStatus"] == "Completed"
    assert host.status(instance_id)["runtimeStatus"] == "Suspended"
    host.change(instance_id, "resume")
    assert host.finished(instance_id)["output"] == ["first", "second"]


def test_a_suspended_instance_can_be_terminated(host: HostProcess) -> None:
    instance_id = host.start("events", 1)
    host.change(instance_id, "suspend")
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Suspended", "the suspension")
    host.change(instance_id, "terminate", reason="enough")
    assert host.finished(instance_id)["runtimeStatus"] == "Terminated"


def test_the_activity_of_a_terminated_instance_does_not_reach_the_next_one_of_the_same_id(host: HostProcess) -> None:
    instance_id = host.start("first_of", ["stale"], instance_id="reused")
    until((host.folder / "stale.started").exists, "the activity")
    host.change(instance_id, "terminate", reason="replaced")
    host.finished(instance_id)
    # Its first action has the number of the old instance's activity.
    host.start("first_of", ["fresh"], instance_id="reused")
    until((host.folder / "fresh.started").exists, "the new activity")
    (host.folder / "stale").touch()
    assert host.run("chain", "meanwhile")["runtimeStatus"] == "Completed"
    assert host.status("reused")["runtimeStatus"] == "Running"
    (host.folder / "fresh").touch()
    assert host.finished("reused")["output"] == "fresh"


def test_the_timer_of_a_terminated_instance_does_not_reach_the_next_one_of_the_same_id(host: HostProcess) -> None:
    instance_id = host.start("timer", 0.3, instance_id="timed")
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Running", "the timer")
    host.change(instance_id, "terminate")
    host.finished(instance_id)
    host.start("timer", 1.0, instance_id="timed")
    assert host.finished("timed")["output"] >= 1.0


def test_serves_every_operation_of_the_client_library(host: HostProcess) -> None:
    def client(operation: str, instance_id: str, body: object = None) -> Any:  # noqa: ANN401 - any JSON value
        answer = host.http.post(f"/api/client/{operation}/{instance_id}", json=body)
        assert answer.status_code == 200, f"{operation}: {answer.text} {host.log}"
        return answer.json()

    started = host.http.post("/api/start/events", params={"id": "by-client"}, json=1)
    assert started.status_code == 202
    assert started.headers["location"] == started.json()["statusQueryGetUri"]
    assert started.json()["id"] == "by-client"
    until(lambda: client("status", "by-client").get("runtimeStatus") == "Running", "the start")
    assert [each["instanceId"] for each in client("list", "by-cli")] == ["by-client"]
    assert client("all", "x") >= 1
    client("suspend", "by-client")
    until(lambda: client("status", "by-client").get("runtimeStatus") == "Suspended", "the suspension")
    client("resume", "by-client")
    client("raise", "by-client", {"a": 1})
    # The library encodes the event's data twice: the orchestrator gets text, as on the platform.
    assert client("wait", "by-client") == ['{"a": 1}']
    assert client("purge", "by-client") == 1
    assert client("purge", "by-client") == 0
    assert client("status", "by-client") == {"found": False}
    host.start("events", 1, instance_id="by-client")
    client("terminate", "by-client")
    assert host.finished("by-client")["output"] == "no longer needed & done"


def test_starting_a_live_instance_again_is_an_error_in_the_client_library(host: HostProcess) -> None:
    url = "/api/start/events"
    assert host.http.post(url, params={"id": "twice"}, json=1).status_code == 202
    assert host.http.post(url, params={"id": "twice"}, json=1).status_code == 500
    assert "already exists" in host.log


def test_starting_an_unknown_orchestrator_is_an_error_in_the_client_library(host: HostProcess) -> None:
    assert host.http.post("/api/start/nobody", json=1).status_code == 500
    assert "The function 'nobody' doesn't exist" in host.log


def test_one_trace_leads_from_the_start_to_activities_and_sub_orchestrations(host: HostProcess) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    url = f"{WEBHOOKS}/orchestrators/traced"
    instance_id = host.http.post(url, headers={"traceparent": trace}).json()["id"]
    assert host.finished(instance_id)["output"] == [trace, trace]


def test_the_trace_leads_from_the_http_function_that_starts_the_orchestration(host: HostProcess) -> None:
    trace = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    instance_id = host.http.post("/api/start/traced", headers={"traceparent": trace}).json()["id"]
    assert host.finished(instance_id)["output"] == [trace, trace]


def test_the_trace_leads_through_the_client_library_where_open_telemetry_is_on(tmp_path: Path) -> None:
    trace = "00-2af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with running_host(APPS / "durable", tmp_path, {"PYTHON_ENABLE_OPENTELEMETRY": "true"}) as host:
        instance_id = host.http.post("/api/start/traced", headers={"traceparent": trace}).json()["id"]
        assert host.finished(instance_id)["output"] == [trace, trace]


def test_a_start_without_a_trace_begins_one(host: HostProcess) -> None:
    own, child = host.run("traced")["output"]
    assert own == child
    assert len(own) == 55


def test_shows_a_history_that_people_can_read(host: HostProcess) -> None:
    instance_id = host.start("chain", "Ada")
    status = host.finished(instance_id, showHistory="true", showHistoryOutput="true", showInput="false")
    history = status["historyEvents"]
    assert [event["EventType"] for event in history] == [
        "ExecutionStarted",
        "TaskCompleted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    assert history[0]["FunctionName"] == "chain"
    assert [event["FunctionName"] for event in history[1:3]] == ["greet", "greet_sync"]
    assert [event["Result"] for event in history[1:3]] == ["Hello Ada", "Hi Hello Ada"]
    assert all(event["ScheduledTime"] <= event["Timestamp"] for event in history[1:3])
    assert history[3]["OrchestrationStatus"] == "Completed"
    assert "Ada" not in json.dumps(host.status(instance_id, showHistory="true", showInput="false")["historyEvents"])


def test_shows_a_history_as_the_orchestrator_is_given_it(host: HostProcess) -> None:
    instance_id = host.start("chain", "Ada")
    host.finished(instance_id)

    history = host.http.get(f"/sandbox/histories/{instance_id}").json()
    assert [event["EventType"] for event in history[:3]] == [12, 0, 4]
    assert history[1]["Input"] == json.dumps(json.dumps("Ada"))
    assert all(event.keys() >= {"EventId", "IsPlayed", "Timestamp"} for event in history)
    assert host.http.get("/sandbox/histories/none").status_code == 404
