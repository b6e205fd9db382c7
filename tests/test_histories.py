"""Deliveries that an earlier version of the orchestrators has begun are brought to their end by this one.

docs/how-to/roll-back.md says what to do when one of these tests fails.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from azure.durable_functions import Orchestrator

from tests.histories.record import BATCHES, HANDLES, SINGLES
from tests.histories.recording import Recording, recordings

if TYPE_CHECKING:
    from collections.abc import Callable

ALL = {f"{path.parent.name}/{path.stem}": Recording.load(path) for path in recordings()}


def handle(recording: Recording) -> Callable[[str], str]:
    made: Callable[[str], str] = Orchestrator.create(HANDLES[recording.orchestrator])
    return made


@pytest.mark.parametrize("name", ALL)
def test_every_recorded_delivery_goes_on_from_every_point_as_it_did(name: str) -> None:
    assert list(ALL[name].differences(handle(ALL[name]))) == []


def test_every_scenario_is_recorded_of_the_latest_version() -> None:
    latest = max(name.partition("/")[0] for name in ALL)

    assert {name.removeprefix(f"{latest}/").rstrip("-12") for name in ALL if name.startswith(latest)} == {
        *SINGLES,
        *BATCHES,
    }


CHANGES: list[Callable[[dict[str, Any]], object]] = [
    lambda action: action.update(functionName="PostSomethingElse"),
    lambda action: action.update(input=json.dumps({"attempt": 2})),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_instances_in_flight_would_not_survive_is_found(
    change: Callable[[dict[str, Any]], object],
) -> None:
    recording = ALL["v1.0.0/created"]
    other = json.loads(json.dumps(recording.actions))
    change(other[0])

    assert list(replace(recording, actions=other).differences(handle(recording))) != []
