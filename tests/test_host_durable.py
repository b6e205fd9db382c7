"""Orchestrations under the host, in processes of their own."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

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


def test_gives_an_orchestrator_without_activities_its_input_id_and_version(host: HostProcess) -> None:
    instance_id = host.start("not_a_generator", {"a": [1]}, instance_id="plain")
    output = host.finished(instance_id)["output"]
    assert output == {"input": {"a": [1]}, "id": "plain", "version": "1.5"}


def test_takes_the_version_that_the_caller_names(host: HostProcess) -> None:
    url = f"{WEBHOOKS}/orchestrators/not_a_generator"
    instance_id = host.http.post(url, params={"version": "7"}, json={}).json()["id"]
    assert host.finished(instance_id)["output"]["version"] == "7"


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


def test_an_event_beats_the_timer_and_cancelling_the_timer_ends_the_instance(host: HostProcess) -> None:
    instance_id = host.start("approval", 3600)
    until(lambda: host.status(instance_id)["customStatus"] == {"waiting": True}, "the custom status")
    assert host.raise_event(instance_id, {"by": "Ada"}) == 202
    status = host.finished(instance_id)
    assert status["output"] == {"approved": {"by": "Ada"}}
    assert status["customStatus"] == {"waiting": True}


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


def test_a_terminated_sub_orchestration_fails_its_parent(host: HostProcess) -> None:
    parent_id = host.start("parent", {"name": "events", "input": 1, "id": "doomed"})
    until(lambda: host.status("doomed").get("runtimeStatus") == "Running", "the child")
    assert host.change("doomed", "terminate", reason="enough") == 202
    assert "'doomed' was terminated" in host.finished(parent_id)["output"]


def test_a_sub_orchestration_with_an_id_that_cannot_be_kept_fails_the_instance(host: HostProcess) -> None:
    output = host.run("parent", {"name": "chain", "input": 1, "id": "\ud800"})["output"]
    assert output.startswith("Orchestrator function 'parent' failed: the host cannot take its answer: ")


def test_fails_an_orchestrator_that_does_something_else_in_its_replay(host: HostProcess) -> None:
    instance_id = host.start("not_deterministic")
    until((host.folder / "second_run.started").exists, "the activity")
    (host.folder / "second_run").touch()
    output = host.finished(instance_id)["output"]
    assert output.startswith("Non-Deterministic workflow detected: ")


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


def test_the_timer_of_a_terminated_instance_does_not_reach_the_next_one_of_the_same_id(host: HostProcess) -> None:
    instance_id = host.start("timer", 0.3, instance_id="timed")
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Running", "the timer")
    host.change(instance_id, "terminate")
    host.finished(instance_id)
    host.start("timer", 1.0, instance_id="timed")
    assert host.finished("timed")["output"] >= 1.0


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


def test_shows_a_history_as_the_orchestrator_is_given_it(host: HostProcess) -> None:
    instance_id = host.start("chain", "Ada")
    host.finished(instance_id)

    history = host.http.get(f"/sandbox/histories/{instance_id}").json()
    assert [event["EventType"] for event in history[:3]] == [12, 0, 4]
    assert history[1]["Input"] == json.dumps(json.dumps("Ada"))
    assert all(event.keys() >= {"EventId", "IsPlayed", "Timestamp"} for event in history)
    assert host.http.get("/sandbox/histories/none").status_code == 404
