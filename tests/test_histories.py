"""Deliveries that are under way during an upgrade replay their history through the new code."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from azure.durable_functions import Orchestrator

from shared.http.openapi import VERSION
from tests.histories.record import ORCHESTRATORS
from tests.histories.recording import FOLDER, Recording, recordings

if TYPE_CHECKING:
    from collections.abc import Generator

ALL = {f"{path.parent.name}/{path.stem}": Recording.load(path) for path in recordings()}


@pytest.mark.parametrize("name", ALL)
def test_a_delivery_of_a_released_version_goes_on(name: str) -> None:
    recording = ALL[name]
    handle = Orchestrator.create(ORCHESTRATORS[recording.orchestrator])

    assert list(recording.differences(handle)) == []


def test_the_present_version_is_recorded() -> None:
    assert (FOLDER / f"v{VERSION}").is_dir(), f"run .venv/bin/python -m tests.histories.record v{VERSION}"


@pytest.mark.parametrize("name", [name for name in ALL if name.endswith("deferred")])
def test_a_change_of_the_steps_is_found(name: str) -> None:
    recording = ALL[name]

    def changed(context: Any) -> Generator[Any, Any, Any]:  # noqa: ANN401, the Durable SDK has no types
        yield context.call_activity("CheckParcel", {})
        return (yield from partial(ORCHESTRATORS[recording.orchestrator])(context))

    assert any("CheckParcel" in difference for difference in recording.differences(Orchestrator.create(changed)))


@pytest.mark.parametrize("name", ALL)
def test_a_recording_names_no_machine_and_no_secret(name: str) -> None:
    version, _, scenario = name.partition("/")
    text = (FOLDER / version / f"{scenario}.json").read_text(encoding="utf-8")

    assert not [word for word in ("127.0.0.1", "localhost", "/home/", "access-token", "secret") if word in text]
