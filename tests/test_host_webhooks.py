"""The management webhooks of Durable Functions, over HTTP."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

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


def test_start_answers_with_the_links_of_the_instance(host: HostProcess, prefix: str) -> None:
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/events/{prefix}", json="1")
    assert answer.status_code == 202
    links = answer.json()
    assert links["id"] == prefix
    assert answer.headers["location"] == links["statusQueryGetUri"]
    assert answer.headers["retry-after"] == "10"
    assert set(links) == {
        "id",
        "statusQueryGetUri",
        "sendEventPostUri",
        "terminatePostUri",
        "rewindPostUri",
        "purgeHistoryDeleteUri",
        "restartPostUri",
        "suspendPostUri",
        "resumePostUri",
    }
    assert host.http.get(links["statusQueryGetUri"]).json()["instanceId"] == prefix
    event = links["sendEventPostUri"].replace("{eventName}", "go")
    assert host.http.post(event, json=5).status_code == 202
    assert host.finished(prefix)["output"] == [5]
    assert host.http.delete(links["purgeHistoryDeleteUri"]).json() == {"instancesDeleted": 1}


def test_start_takes_a_json_object_as_it_is(host: HostProcess) -> None:
    instance_id = host.http.post(f"{WEBHOOKS}/orchestrators/not_a_generator", json={"a": 1}).json()["id"]
    status = host.finished(instance_id)
    assert status["input"] == {"a": 1}
    assert status["output"]["input"] == {"a": 1}


def test_status_of_payloads_that_json_cannot_have_is_json(host: HostProcess) -> None:
    given = rb'[NaN, -Infinity, 1e999, -1e999, 1.5, "\ud83d\ude00", "\ud800"]'
    expected = ["NaN", "-Infinity", "Infinity", "-Infinity", 1.5, "\U0001f600", "\ufffd"]
    path = f"{WEBHOOKS}/orchestrators/not_a_generator"
    instance_id = host.http.post(path, content=given).json()["id"]
    status = host.finished(instance_id)
    assert status["input"] == expected
    assert status["output"]["input"] == expected
    shown = host.http.get(f"{INSTANCES}/{instance_id}", params={"showHistory": "true", "showHistoryOutput": "true"})
    history = shown.json()["historyEvents"]
    assert history[0]["Input"] == expected
    assert history[-1]["Result"]["input"] == expected
    assert expected in [each["input"] for each in host.http.get(INSTANCES).json()]
    # Whoever waits for the end is answered with the output.
    assert host.http.post(f"{path}?timeout=10", content=given).json()["input"] == expected


def test_start_without_a_body_has_no_input(host: HostProcess) -> None:
    instance_id = host.http.post(f"{WEBHOOKS}/orchestrators/not_a_generator").json()["id"]
    assert host.finished(instance_id)["output"]["input"] is None


def test_start_refuses_a_body_that_is_not_json(host: HostProcess) -> None:
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/events", content=b"{")
    assert answer.status_code == 400


def test_start_refuses_an_unknown_orchestrator_with_the_text_that_the_client_library_raises(host: HostProcess) -> None:
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/nobody")
    assert answer.status_code == 400
    assert "The function 'nobody' doesn't exist" in answer.json()["ExceptionMessage"]


@pytest.mark.parametrize("instance_id", ["@entity@x", "x" * 101, "a%5Cb", "a%23b", "a%01b"])
def test_start_refuses_an_instance_id_that_the_platform_does_not_allow(host: HostProcess, instance_id: str) -> None:
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/events/{instance_id}")
    assert answer.status_code == 400
    assert "An instance id must" in answer.json()["Message"]


def test_start_refuses_the_id_of_an_instance_that_is_not_finished(host: HostProcess, prefix: str) -> None:
    waiting(host, prefix)
    answer = host.http.post(f"{WEBHOOKS}/orchestrators/chain/{prefix}", json="x")
    assert answer.status_code == 409
    assert "already exists" in answer.json()["Message"]
    host.change(prefix, "suspend")
    until(lambda: host.status(prefix)["runtimeStatus"] == "Suspended", "the suspension")
    assert host.http.post(f"{WEBHOOKS}/orchestrators/chain/{prefix}").status_code == 409


def test_start_replaces_a_finished_instance_of_the_same_id(host: HostProcess, prefix: str) -> None:
    assert host.finished(host.start("chain", "a", instance_id=prefix))["name"] == "chain"
    assert host.finished(host.start("echo", "b", instance_id=prefix))["output"] == "b"


def test_start_can_wait_for_the_output(host: HostProcess) -> None:
    url = f"{WEBHOOKS}/orchestrators"
    answer = host.http.post(f"{url}/echo?timeout=20", json='{"a": 1}')
    assert (answer.status_code, answer.json()) == (200, {"a": 1})
    failed = host.http.post(f"{url}/failing?timeout=20", json='"luck"')
    assert (failed.status_code, failed.json()["runtimeStatus"]) == (500, "Failed")
    assert host.http.post(f"{url}/timer?timeout=0.01", json="3600").status_code == 202
    assert host.http.post(f"{url}/timer?timeout=soon", json="1").status_code == 400


def test_status_is_202_with_its_location_until_the_instance_is_finished(host: HostProcess, prefix: str) -> None:
    waiting(host, prefix)
    answer = host.http.get(f"{INSTANCES}/{prefix}")
    assert answer.status_code == 202
    assert answer.headers["location"].startswith(f"{host.base}{INSTANCES}/{prefix}?")
    assert answer.headers["retry-after"] == "5"
    host.raise_event(prefix, 1)
    host.finished(prefix)
    finished = host.http.get(f"{INSTANCES}/{prefix}")
    assert finished.status_code == 200
    assert "location" not in finished.headers


def test_status_of_an_unknown_instance_is_not_found(host: HostProcess, prefix: str) -> None:
    assert host.http.get(f"{INSTANCES}/{prefix}").status_code == 404


def test_status_of_a_failed_instance_is_500_only_on_request(host: HostProcess) -> None:
    instance_id = host.run("failing", "x")["instanceId"]
    assert host.http.get(f"{INSTANCES}/{instance_id}").status_code == 200
    query = {"returnInternalServerErrorOnFailure": "true"}
    assert host.http.get(f"{INSTANCES}/{instance_id}", params=query).status_code == 500


def test_status_can_leave_out_the_input(host: HostProcess) -> None:
    instance_id = host.run("echo", "x")["instanceId"]
    assert host.status(instance_id)["input"] == '"x"'
    assert host.status(instance_id, showInput="false")["input"] is None


def test_lists_instances_by_prefix_and_status(host: HostProcess, prefix: str) -> None:
    waiting(host, f"{prefix}-waiting")
    host.finished(host.start("chain", "x", instance_id=f"{prefix}-done"))

    def listed(**query: str) -> list[str]:
        answer = host.http.get(INSTANCES, params={"instanceIdPrefix": prefix, **query})
        assert answer.status_code == 200
        return [each["instanceId"] for each in answer.json()]

    assert listed() == [f"{prefix}-waiting", f"{prefix}-done"]
    assert listed(runtimeStatus="Completed") == [f"{prefix}-done"]
    assert listed(runtimeStatus="running,Failed") == [f"{prefix}-waiting"]
    assert listed(createdTimeFrom="2999-01-01T00:00:00Z") == []
    assert listed(createdTimeTo="2000-01-01T00:00:00+01:00") == []
    assert len(listed(createdTimeFrom="2000-01-01T00:00:00Z", createdTimeTo="2999-01-01")) == 2


def test_lists_instances_page_by_page(host: HostProcess, prefix: str) -> None:
    ids = [f"{prefix}-{number}" for number in range(5)]
    for instance_id in ids:
        host.start("events", 1, instance_id=instance_id)
    seen: list[list[str]] = []
    headers: dict[str, str] = {}
    for _ in range(3):
        answer = host.http.get(INSTANCES, params={"instanceIdPrefix": prefix, "top": 2}, headers=headers)
        seen.append([each["instanceId"] for each in answer.json()])
        headers = {"x-ms-continuation-token": answer.headers.get("x-ms-continuation-token", "")}
    assert seen == [ids[:2], ids[2:4], ids[4:]]
    assert headers == {"x-ms-continuation-token": ""}


@pytest.mark.parametrize("query", ["runtimeStatus=Odd", "createdTimeFrom=yesterday", "top=0", "top=many"])
def test_refuses_a_list_that_makes_no_sense(host: HostProcess, query: str) -> None:
    assert host.http.get(f"{INSTANCES}?{query}").status_code == 400


def test_an_event_must_be_json(host: HostProcess, prefix: str) -> None:
    waiting(host, prefix)
    url = f"{INSTANCES}/{prefix}/raiseEvent/go"
    plain = host.http.post(url, content=b"1", headers={"content-type": "text/plain"})
    assert (plain.status_code, plain.json()["Message"]) == (400, "Only application/json request content is supported")
    broken = host.http.post(url, content=b"{", headers={"content-type": "application/json; charset=utf-8"})
    assert broken.status_code == 400
    assert "Invalid JSON content" in broken.json()["Message"]
    assert host.raise_event(prefix, {"a": [1]}) == 202
    assert host.finished(prefix)["output"] == [{"a": [1]}]


def test_an_event_without_a_body_is_null(host: HostProcess, prefix: str) -> None:
    waiting(host, prefix)
    headers = {"content-type": "application/json"}
    assert host.http.post(f"{INSTANCES}/{prefix}/raiseEvent/go", headers=headers).status_code == 202
    assert host.finished(prefix)["output"] == [None]


@pytest.mark.parametrize("operation", ["terminate", "suspend", "resume", "raiseEvent/go"])
def test_what_changes_an_instance_is_404_without_it_and_410_when_it_is_finished(
    host: HostProcess, prefix: str, operation: str
) -> None:
    assert host.http.post(f"{INSTANCES}/{prefix}/{operation}", json=1).status_code == 404
    host.finished(host.start("chain", "x", instance_id=prefix))
    assert host.http.post(f"{INSTANCES}/{prefix}/{operation}", json=1).status_code == 410


def test_restarts_an_instance_under_a_new_id(host: HostProcess, prefix: str) -> None:
    host.finished(host.start("echo", {"a": 1}, instance_id=prefix))
    answer = host.http.post(f"{INSTANCES}/{prefix}/restart")
    assert answer.status_code == 202
    assert answer.json()["id"] != prefix
    assert host.finished(answer.json()["id"])["output"] == {"a": 1}


def test_restarts_an_instance_under_its_own_id_when_it_is_finished(host: HostProcess, prefix: str) -> None:
    waiting(host, prefix)
    url, query = f"{INSTANCES}/{prefix}/restart", {"restartWithNewInstanceId": "false"}
    assert host.http.post(url, params=query).status_code == 409
    host.raise_event(prefix, 1)
    host.finished(prefix)
    assert host.http.post(url, params=query).json()["id"] == prefix
    assert host.raise_event(prefix, 2) == 202
    assert host.finished(prefix)["output"] == [2]


def test_restart_of_an_unknown_instance_is_a_bad_request(host: HostProcess, prefix: str) -> None:
    assert host.http.post(f"{INSTANCES}/{prefix}/restart").status_code == 400


def test_refuses_to_rewind_and_says_what_to_do_instead(host: HostProcess, prefix: str) -> None:
    answer = host.http.post(f"{INSTANCES}/{prefix}/rewind")
    assert answer.status_code == 501
    assert "restart the instance instead" in answer.json()["Message"]


def test_purges_only_a_finished_instance(host: HostProcess, prefix: str) -> None:
    assert host.http.delete(f"{INSTANCES}/{prefix}").status_code == 404
    waiting(host, prefix)
    assert host.http.delete(f"{INSTANCES}/{prefix}").status_code == 412
    host.raise_event(prefix, 1)
    host.finished(prefix)
    assert host.http.delete(f"{INSTANCES}/{prefix}").json() == {"instancesDeleted": 1}
    assert host.http.get(f"{INSTANCES}/{prefix}").status_code == 404


def test_purges_finished_instances_by_status_and_time(host: HostProcess) -> None:
    host.run("failing", "x")
    host.run("failing", "y")
    query = {"createdTimeFrom": "2000-01-01T00:00:00Z", "createdTimeTo": "2999-01-01", "runtimeStatus": "Failed"}
    assert host.http.delete(INSTANCES, params=query).json()["instancesDeleted"] >= 2
    again = host.http.delete(f"{INSTANCES}/", params=query)
    assert (again.status_code, again.json()) == (404, {"instancesDeleted": 0})
    assert host.http.delete(INSTANCES, params={"runtimeStatus": "Odd"}).status_code == 400


def test_runs_an_activity_on_request_of_a_tool(host: HostProcess, prefix: str) -> None:
    assert host.http.post("/admin/functions/note_run", json={"input": f'"{prefix}"'}).status_code == 202
    until((host.folder / prefix).exists, "the activity")
    assert host.http.post("/admin/functions/fail", json={"input": '"on request"'}).status_code == 202
    until(lambda: "RuntimeError: cannot on request" in host.log, "the log")


def test_starts_an_orchestration_on_request_of_a_tool(host: HostProcess) -> None:
    assert host.http.post("/admin/functions/echo", json={"input": '"by a tool"'}).status_code == 202

    def outputs() -> list[object]:
        return [each["output"] for each in host.http.get(INSTANCES).json()]

    until(lambda: "by a tool" in outputs(), "the orchestration")


def test_refuses_what_a_tool_cannot_run(host: HostProcess) -> None:
    assert host.http.post("/admin/functions/start", json={"input": ""}).status_code == 400
    assert host.http.post("/admin/functions/nobody", json={"input": ""}).status_code == 404
    for content in (b"{", b"[]", b'{"input": 1}'):
        assert host.http.post("/admin/functions/greet", content=content).status_code == 400


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf{"a": 1}', b"[" * 100_000, b"\xff", b"{"])
def test_a_body_that_is_no_json_starts_nothing_and_raises_nothing(host: HostProcess, prefix: str, body: bytes) -> None:
    waiting(host, prefix)

    started = host.http.post(f"{WEBHOOKS}/orchestrators/events/{prefix}-x", content=body)
    headers = {"content-type": "application/json"}
    raised = host.http.post(f"{INSTANCES}/{prefix}/raiseEvent/go", content=body, headers=headers)

    assert (started.status_code, raised.status_code) == (400, 400)
    assert host.http.get(f"{INSTANCES}?instanceIdPrefix={prefix}-x").json() == []
