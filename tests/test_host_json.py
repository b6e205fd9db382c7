"""host.json fits the app, and its twin for the Durable Task Scheduler."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from shared.durable.attempt import WORK

PROJECT = Path(__file__).parent.parent


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / name).read_text(encoding="utf-8"))
    return content


def test_the_two_files_differ_in_the_backend_only() -> None:
    storage, scheduler = read("host.json"), read("host.dts.json")
    backends = [file["extensions"]["durableTask"].pop("storageProvider")["type"] for file in (storage, scheduler)]

    assert storage == scheduler
    assert backends == ["AzureStorage", "azureManaged"]


def test_an_activity_ends_long_before_the_host_would_end_its_process() -> None:
    hours, minutes, seconds = map(int, read("host.json")["functionTimeout"].split(":"))
    longest_call = 600

    assert timedelta(hours=hours, minutes=minutes, seconds=seconds).total_seconds() >= longest_call
    assert longest_call > WORK


def test_inputs_and_outputs_are_not_traced() -> None:
    tracing = read("host.json")["extensions"]["durableTask"]["tracing"]
    assert (tracing["traceInputsAndOutputs"], tracing["traceReplayEvents"]) == (False, False)
