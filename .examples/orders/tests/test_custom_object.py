from __future__ import annotations

import json
import warnings

import pytest
from azure.durable_functions import DurableOrchestrationContext

from shared.delivery.custom_object import MARKS, custom_object_fault

CUSTOM = {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        (CUSTOM, ""),
        (CUSTOM | {"more": 1}, ""),
        ({"a": CUSTOM}, "/a"),
        ({"a": [1, {}, {"b/~c": CUSTOM}]}, "/a/2/b~1~0c"),
        ([[], [CUSTOM]], "/1/0"),
    ],
)
def test_names_the_first_object_that_the_durable_sdk_would_take_for_its_own(value: object, pointer: str) -> None:
    fault = custom_object_fault(value)

    assert fault is not None
    assert fault.pointer == pointer
    assert all(mark in fault.detail for mark in MARKS)


@pytest.mark.parametrize(
    "value",
    [None, 1, "__class__", [], {}, {"__class__": 1, "__module__": 2}, {"a": {"__class__": 1}, "__module__": 2}],
)
def test_finds_nothing_in_other_json(value: object) -> None:
    assert custom_object_fault(value) is None


@pytest.mark.parametrize("value", [CUSTOM, {"a": [CUSTOM]}])
def test_the_durable_sdk_does_not_hand_such_an_object_on(value: object) -> None:
    # The day this fails, the SDK has changed, and the rule can go.
    history = [{"EventType": 12, "EventId": -1, "IsPlayed": False, "Timestamp": "2026-01-01T00:00:00Z"}]
    context = DurableOrchestrationContext(history, "id", False, "", json.dumps(value))  # noqa: FBT003, the SDK's order

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, AttributeError, TypeError)):
            context.get_input()
