"""The worker process ends in the midst of work: what ran in it has failed, and the host starts another."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.host_apps.host_process import APPS, HostProcess, is_alive, running_host, until

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


pytestmark = pytest.mark.long


@pytest.fixture
def host(tmp_path: Path) -> Generator[HostProcess]:
    with running_host(APPS / "durable", tmp_path) as running:
        yield running


@pytest.fixture
def web(tmp_path: Path) -> Generator[HostProcess]:
    with running_host(APPS / "web", tmp_path) as running:
        yield running


def runs(host: HostProcess, name: str) -> int:
    """Count how often a function has said that it started."""
    started = host.folder / f"{name}.started"
    return len(started.read_text().splitlines()) if started.exists() else 0


def test_a_failed_orchestration_goes_on_when_it_is_rewound(host: HostProcess) -> None:
    instance_id = host.start("ends_its_worker_once")
    assert host.finished(instance_id)["runtimeStatus"] == "Failed"
    assert host.change(instance_id, "rewind", reason="again") == 202
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Completed", "the end")
    assert host.status(instance_id)["output"] == "Hello again"
    assert host.worker()["restarts"] == 1


def test_a_request_that_runs_too_long_is_500_and_takes_its_worker_process_along(tmp_path: Path) -> None:
    settings = {"AzureFunctionsJobHost__functionTimeout": "00:00:01"}
    with running_host(APPS / "web", tmp_path, settings) as host, ThreadPoolExecutor(1) as pool:
        beside = pool.submit(host.http.post, "/v1/wait/beside")
        answer = host.http.post("/v1/block")
        assert (answer.status_code, answer.content, beside.result().status_code) == (500, b"", 500)
        assert host.http.get("/v1/no_route").text == "by its name"
        assert "Timeout value of 00:00:01 was exceeded by function: Functions." in host.log
        assert host.worker()["restarts"] == 1


def test_a_function_that_lets_a_base_exception_out_is_answered_at_its_timeout(tmp_path: Path) -> None:
    settings = {"AzureFunctionsJobHost__functionTimeout": "00:00:01"}
    with running_host(APPS / "durable", tmp_path, settings) as host:
        output = host.run("calls_failing_activity", "cancelled")["output"]
        assert "Timeout value of 00:00:01 was exceeded by function: Functions.fail" in output
        assert "is never answered" in host.log


def test_a_durable_timer_outlives_the_worker_process(host: HostProcess) -> None:
    instance_id = host.start("timer", 0.5)
    until(lambda: host.status(instance_id)["runtimeStatus"] == "Running", "the timer")
    host.kill_worker()
    assert host.finished(instance_id)["runtimeStatus"] == "Completed"


def test_waiting_instances_and_the_status_of_finished_ones_outlive_the_worker_process(host: HostProcess) -> None:
    done, waiting = host.start("chain", "Ada"), host.start("events", 1)
    host.finished(done)
    until(lambda: host.status(waiting)["runtimeStatus"] == "Running", "the start")
    host.kill_worker()
    until(lambda: host.worker()["restarts"] == 1, "the next worker process")
    assert host.status(done)["output"] == ["Hello Ada", "Hi Hello Ada"]
    assert host.raise_event(waiting, "after") == 202
    assert host.finished(waiting)["output"] == ["after"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_host_and_worker_process_without_a_traceback(web: HostProcess, number: signal.Signals) -> None:
    worker = web.worker()["pid"]
    web.process.send_signal(number)
    assert web.exit_code() == 0
    assert not is_alive(worker)
    assert "Traceback" not in web.log
    assert web.log == ""


def test_ctrl_c_to_the_whole_process_group_ends_the_host_without_a_traceback(web: HostProcess) -> None:
    worker = web.worker()["pid"]
    os.killpg(web.process.pid, signal.SIGINT)
    assert web.exit_code() == 0
    assert not is_alive(worker)
    assert web.log == ""


def test_a_signal_ends_a_worker_process_that_reacts_to_nothing(web: HostProcess) -> None:
    worker = web.worker()["pid"]
    os.kill(worker, signal.SIGSTOP)
    web.process.terminate()
    assert web.exit_code() == 0
    assert not is_alive(worker)


def test_an_app_that_breaks_while_the_host_runs_ends_the_host_when_the_worker_process_is_started_again(
    tmp_path: Path,
) -> None:
    app = tmp_path / "app"
    shutil.copytree(APPS / "web", app)
    with running_host(app, tmp_path) as host:
        (app / "function_app.py").write_text("raise ValueError('edited')\n")
        host.kill_worker()
        assert host.exit_code() == 1
        assert "sandbox host: the app cannot be imported: ValueError: edited" in host.log.splitlines()[-1]


def test_a_signal_answers_requests_that_still_run(web: HostProcess) -> None:
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(web.http.get, "/v1/wait/never")
        until(lambda: runs(web, "never") == 1, "the function")
        web.process.terminate()
        response = answer.result()
    assert response.status_code == 500
    assert web.exit_code() == 0
    assert "Traceback" not in web.log


def test_a_signal_ends_the_host_in_the_midst_of_orchestrations(host: HostProcess) -> None:
    host.start("interrupted")
    host.start("timer", 3600)
    until(lambda: runs(host, "first") == 1, "the activity")
    host.process.send_signal(signal.SIGINT)
    assert host.exit_code() == 0
    assert "Traceback" not in host.log
    assert "ERROR" not in host.log


def test_a_signal_ends_a_worker_process_whose_event_loop_is_blocked(web: HostProcess) -> None:
    worker = web.worker()["pid"]
    thread = threading.Thread(target=lambda: web.http.post("/v1/block"))
    thread.start()
    until((web.folder / "block.started").exists, "the function")
    web.process.terminate()
    assert web.exit_code() == 0
    thread.join()
    assert not is_alive(worker)


@pytest.mark.parametrize("route", ["no_route", "block"])
def test_the_worker_process_ends_with_a_host_that_is_killed(web: HostProcess, route: str) -> None:
    worker = web.worker()["pid"]
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(web.http.get, f"/v1/{route}")
        if route == "block":
            until((web.folder / "block.started").exists, "the function")
        else:
            request.result()
        os.kill(web.process.pid, signal.SIGKILL)
        until(lambda: not is_alive(worker), "the worker's end")
        assert request.exception() is None or isinstance(request.exception(), httpx.TransportError)
    assert web.exit_code() == -signal.SIGKILL
