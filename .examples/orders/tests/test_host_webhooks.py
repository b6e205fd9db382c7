"""What the management webhooks do beside what the recorded answers show."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.host_apps.host_process import APPS, WEBHOOKS, HostProcess, running_host, until

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = pytest.mark.long

INSTANCES = f"{WEBHOOKS}/instances"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Generator[HostProcess]:
    with running_host(APPS / "durable", tmp_path_factory.mktemp("host")) as running:
        yield running


@pytest.fixture
def prefix() -> str:
    """A prefix of instance ids that no other test has."""
    return uuid.uuid4().hex


def waiting(host: HostProcess, instance_id: str) -> str:
    """Start an instance that waits for an event, and wait until it does."""
    host.start("events", 1, instance_id=instance_id)
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Running", "the start")
    return instance_id


@pytest.mark.parametrize("name", ["plain", "a b%\u20ac"])
def test_the_links_of_an_instance_lead_to_it(host: HostProcess, prefix: str, name: str) -> None:
    instance_id = f"{prefix}{name}"
    links = host.http.post(f"{WEBHOOKS}/orchestrators/events/{quote(instance_id)}", json="1").json()
    shown = host.http.get(links["statusQueryGetUri"])
    assert shown.json()["instanceId"] == links["id"] == instance_id
    assert host.http.get(shown.headers["location"]).json()["instanceId"] == instance_id
    assert host.http.post(links["sendEventPostUri"].replace("{eventName}", "go"), json=5).status_code == 202
    until(lambda: host.http.get(links["statusQueryGetUri"]).json()["output"] == [5], "the end")
    assert host.http.delete(links["purgeHistoryDeleteUri"]).json() == {"instancesDeleted": 1}


def test_start_refuses_an_instance_id_that_the_platform_does_not_allow(host: HostProcess) -> None:
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/events/@entity@x")
    assert (answer.status_code, "must not start with" in answer.json()["ExceptionMessage"]) == (400, True)


def test_start_replaces_a_finished_instance_of_the_same_id(host: HostProcess, prefix: str) -> None:
    assert host.finished(host.start("chain", "a", instance_id=prefix))["name"] == "chain"
    assert host.finished(host.start("echo", "b", instance_id=prefix))["output"] == "b"


def test_a_lone_surrogate_in_a_payload_does_not_break_the_status(host: HostProcess) -> None:
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/not_a_generator", content=rb'["\ud83d\ude00", "\ud800"]')
    assert host.finished(answer.json()["id"])["input"] == ["\U0001f600", "\ufffd"]


def test_status_can_leave_out_the_input(host: HostProcess) -> None:
    instance_id = host.run("echo", "x")["instanceId"]
    assert host.status(instance_id)["input"] == '"x"'
    assert host.status(instance_id, showInput="false")["input"] is None


def test_lists_instances_page_by_page(host: HostProcess, prefix: str) -> None:
    ids = [f"{prefix}-{number}" for number in range(5)]
    for instance_id in reversed(ids):
        host.start("events", 1, instance_id=instance_id)
    seen: list[list[str]] = []
    headers: dict[str, str] = {}
    for _ in range(3):
        answer = host.http.get(INSTANCES, params={"instanceIdPrefix": prefix, "top": 2}, headers=headers)
        seen.append([each["instanceId"] for each in answer.json()])
        headers = {"x-ms-continuation-token": answer.headers.get("x-ms-continuation-token", "")}
    assert seen == [ids[:2], ids[2:4], ids[4:]]
    assert headers == {"x-ms-continuation-token": ""}
    odd = host.http.get(INSTANCES, headers={"x-ms-continuation-token": "odd"})
    assert odd.status_code == 400


def test_restarts_an_instance_under_its_own_id_when_it_is_finished(host: HostProcess, prefix: str) -> None:
    host.raise_event(waiting(host, prefix), 1)
    host.finished(prefix)
    answer = host.http.post(f"{INSTANCES}/{prefix}/restart", params={"restartWithNewInstanceId": "false"})
    assert answer.json()["id"] == prefix
    assert host.raise_event(prefix, 2) == 202
    assert host.finished(prefix)["output"] == [2]


def test_purges_finished_instances_by_status_and_time(host: HostProcess) -> None:
    host.run("failing", "x")
    query = {"createdTimeFrom": "2000-01-01T00:00:00Z", "createdTimeTo": "2999-01-01", "runtimeStatus": "Failed"}
    assert host.http.delete(INSTANCES, params=query).json()["instancesDeleted"] >= 1
    assert host.http.delete(f"{INSTANCES}/", params=query).status_code == 404


def test_runs_activities_and_orchestrators_on_request_of_a_tool(host: HostProcess, prefix: str) -> None:
    assert host.http.post("/admin/functions/note_run", json={"input": f'"{prefix}"'}).status_code == 202
    until((host.folder / prefix).exists, "the activity")
    assert host.http.post("/admin/functions/fail", json={"input": '"on request"'}).status_code == 202
    until(lambda: "RuntimeError: cannot on request" in host.log, "the log")
    assert host.http.post("/admin/functions/echo", json={"input": '"by a tool"'}).status_code == 202
    until(lambda: "by a tool" in [each["output"] for each in host.http.get(INSTANCES).json()], "the orchestration")
    for content in (b"{", b"[]", b'{"input": 1}'):
        assert host.http.post("/admin/functions/greet", content=content).status_code == 400


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf{"a": 1}', b"[" * 100_000, b"\xff"])
def test_a_body_that_is_no_json_starts_nothing_and_raises_nothing(host: HostProcess, prefix: str, body: bytes) -> None:
    waiting(host, prefix)
    headers = {"content-type": "application/json"}
    started = host.http.post(f"{WEBHOOKS}/orchestrators/events/{prefix}-x", content=body)
    raised = host.http.post(f"{INSTANCES}/{prefix}/raiseEvent/go", content=body, headers=headers)
    assert (started.status_code, raised.status_code) == (500, 400)
    assert host.http.get(f"{INSTANCES}?instanceIdPrefix={prefix}-x").json() == []
