"""Timer functions under the host, in processes of their own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.host_apps.host_process import APPS, HostProcess, running_host, until

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.long


def ticks(host: HostProcess) -> list[dict[str, Any]]:
    diary = host.folder / "ticks"
    return [json.loads(line) for line in diary.read_text().splitlines()] if diary.exists() else []


def test_a_timer_function_runs_at_startup_and_then_by_its_schedule(tmp_path: Path) -> None:
    with running_host(APPS / "timer", tmp_path, {"TICK_SCHEDULE": "* * * * * *"}) as host:
        until(lambda: len(ticks(host)) >= 3, "three ticks")
        first, second = ticks(host)[:2]
        assert "  timerTrigger  tick" in host.output
    assert first["past_due"] is False
    assert first["schedule"] == {"AdjustForDST": True}
    assert first["status"]["Last"].startswith("0001-01-01T00:00:00")
    assert second["status"]["Last"] < second["status"]["Next"]
    assert "ERROR" not in host.log


def test_a_timer_function_can_be_run_on_request(tmp_path: Path) -> None:
    with running_host(APPS / "timer", tmp_path, {"TICK_SCHEDULE": "0 0 0 1 1 *"}) as host:
        until(lambda: len(ticks(host)) == 1, "the run at startup")
        answer = host.http.post("/admin/functions/tick", json={"input": ""})
        assert answer.status_code == 202
        until(lambda: len(ticks(host)) == 2, "the run on request")


def test_a_timer_function_that_fails_is_logged_and_runs_again(tmp_path: Path) -> None:
    (tmp_path / "fail").touch()
    with running_host(APPS / "timer", tmp_path, {"TICK_SCHEDULE": "00:00:01"}) as host:
        until(lambda: len(ticks(host)) >= 2, "two ticks")
        until(lambda: host.log.count("ValueError: the timer is told to fail") >= 2, "the log")
    assert "Timer function tick failed" in host.log
