from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sandbox.host.errors import StartError
from sandbox.host.functions import functions_from_metadata
from sandbox.host.messages import FunctionMetadata

if TYPE_CHECKING:
    from collections.abc import Mapping


def metadata(name: str, *bindings: Mapping[str, object]) -> FunctionMetadata:
    return FunctionMetadata(
        name=name, function_id=name, script_file="function_app.py", raw_bindings=[json.dumps(each) for each in bindings]
    )


HTTP = {"type": "httpTrigger", "name": "req", "direction": "IN"}
RESPONSE = {"type": "http", "name": "$return", "direction": "OUT"}
CLIENT = {"type": "durableClient", "name": "client", "direction": "IN"}


def test_reads_the_trigger_and_the_clients_of_a_function() -> None:
    (function,) = functions_from_metadata([metadata("f", CLIENT, HTTP, RESPONSE)], {})
    assert function.kind == "httpTrigger"
    assert function.trigger_parameter == "req"
    assert function.clients == ("client",)
    assert len(function.bindings) == 3


def test_an_activity_and_an_orchestrator_may_have_a_name_of_their_own_in_the_hub() -> None:
    listing = [
        metadata("a", {"type": "activityTrigger", "name": "x", "activity": "Named"}),
        metadata("b", {"type": "orchestrationTrigger", "name": "x", "orchestration": "AlsoNamed"}),
        metadata("c", {"type": "activityTrigger", "name": "x"}),
    ]
    assert [each.durable_name for each in functions_from_metadata(listing, {})] == ["Named", "AlsoNamed", "c"]


def test_puts_app_settings_into_bindings() -> None:
    timer = {"type": "timerTrigger", "name": "t", "schedule": "%WHEN%", "runOnStartup": True}
    (function,) = functions_from_metadata([metadata("f", timer)], {"WHEN": "* * * * *"})
    assert function.trigger["schedule"] == "* * * * *"
    assert function.trigger["runOnStartup"] is True


def test_names_an_app_setting_that_is_not_set() -> None:
    timer = {"type": "timerTrigger", "name": "t", "schedule": "%WHEN%"}
    with pytest.raises(StartError, match="function 'f': the app setting WHEN is not set"):
        functions_from_metadata([metadata("f", timer)], {})


@pytest.mark.parametrize(
    ("bindings", "problem"),
    [
        ([{"type": "queueTrigger", "name": "q"}], "function 'f' uses the binding queueTrigger"),
        ([HTTP, {"type": "table", "name": "t"}], "function 'f' uses the binding table"),
        ([HTTP, {"type": "http", "name": "out"}], r"uses the binding http \(out\)"),
        ([CLIENT], "function 'f' has 0 triggers"),
        ([HTTP, {"type": "timerTrigger", "name": "t"}], "function 'f' has 2 triggers"),
    ],
)
def test_refuses_a_function_that_it_cannot_run(bindings: list[dict[str, object]], problem: str) -> None:
    with pytest.raises(StartError, match=problem):
        functions_from_metadata([metadata("f", *bindings)], {})


def test_refuses_two_functions_of_one_name() -> None:
    with pytest.raises(StartError, match="two functions are named"):
        functions_from_metadata([metadata("Same", HTTP), metadata("same", HTTP)], {})
