"""The functions that the host finds, whatever record types `shared/partner.py` describes."""

from __future__ import annotations

import inspect
from typing import Any

import azure.functions as func
import pytest

from shared.partner import RESOURCES
from shared.resource import RESERVED_NAMES, RESERVED_ROUTES
from tests.fakes.registered_functions import BINDINGS, FUNCTIONS

TRIGGERS: dict[str, dict[str, Any]] = {
    name: next(binding for binding in bindings if binding["type"].lower().endswith("trigger"))
    for name, bindings in BINDINGS.items()
}
ROUTES = {name: trigger["route"] for name, trigger in TRIGGERS.items() if trigger["type"] == "httpTrigger"}


def test_each_record_type_has_its_functions() -> None:
    for resource in RESOURCES:
        kinds = {name: TRIGGERS[name]["type"] for name in (resource.deliver, resource.deliver_batch)}
        assert set(kinds.values()) == {"orchestrationTrigger"}
        assert {TRIGGERS[name]["type"] for name in (resource.post_one, resource.post_batch)} == {"activityTrigger"}
        assert ROUTES[f"Accept{resource.name}"] == resource.route
        assert ROUTES[f"Accept{resource.name}Batch"] == f"{resource.route}/batch"
        assert ROUTES[f"Get{resource.name}"] == f"{resource.route}/{{id}}"


def test_the_host_tries_a_literal_route_before_a_parameter_and_the_catch_all_last() -> None:
    """The Functions host tries routes in the order of the functions' names, without precedence."""
    order = sorted(ROUTES, key=str.lower)

    assert order[-1] == "UnknownRoute"
    for position, name in enumerate(order):
        for earlier in order[:position]:
            is_shadowed = _fits(ROUTES[earlier], ROUTES[name]) and set(_methods(earlier)) & set(_methods(name))
            assert not is_shadowed, f"{earlier} ({ROUTES[earlier]}) takes the requests of {name} ({ROUTES[name]})"


def test_only_health_and_the_pages_are_open_to_all() -> None:
    levels = {
        name: str(trigger["authLevel"]).upper().rpartition(".")[2]
        for name, trigger in TRIGGERS.items()
        if name in ROUTES
    }

    assert {name for name, level in levels.items() if level == "ANONYMOUS"} == {"GetHealth", "GetDocs", "GetConsole"}
    assert set(levels.values()) == {"ANONYMOUS", "FUNCTION"}


def test_the_apps_own_routes_are_reserved() -> None:
    own = {route.partition("/")[0] for name, route in ROUTES.items() if name != "UnknownRoute"}

    assert own - {resource.route.partition("/")[0] for resource in RESOURCES} == set(RESERVED_ROUTES)


def test_the_names_of_the_apps_own_functions_are_reserved() -> None:
    # What a record type's functions begin with.
    verbs = ("Accept", "Deliver", "Get", "Post")
    own = {name.removeprefix(verb) for name in FUNCTIONS for verb in verbs if name.startswith(verb)}

    assert own - {f"{resource.name}{end}" for resource in RESOURCES for end in ("", "Batch")} == set(RESERVED_NAMES)


def test_what_uses_durable_functions_has_its_client() -> None:
    with_client = {
        name for name, bindings in BINDINGS.items() if any(each["type"] == "durableClient" for each in bindings)
    }

    for resource in RESOURCES:
        assert {resource.post_one, resource.post_batch, f"Accept{resource.name}"} <= with_client
    assert {"ListDeliveries", "RedeliverDelivery", "RecoverDeliveries", "PurgeHistory"} <= with_client


@pytest.mark.parametrize("name", ["GetHealth", "GetDocs", "GetConsole", "GetOpenApi", "UnknownRoute"])
async def test_a_function_answers_a_request_of_the_host(name: str) -> None:
    function = FUNCTIONS[name].get_user_function()
    request = func.HttpRequest("GET", "http://app/api/nothing", body=b"", route_params={"path": "nothing"})

    response = await inspect.unwrap(function)(request)

    expected = {"GetHealth": {200, 503}, "UnknownRoute": {404}}
    assert response.status_code in expected.get(name, {200})
    assert response.get_body()


def _fits(template: str, route: str) -> bool:
    """Tell whether a template takes each request for another route."""
    parts, others = template.lower().split("/"), route.lower().split("/")
    if parts[-1].startswith("{*"):
        return True
    return len(parts) == len(others) and all(
        part.startswith("{") or part == other for part, other in zip(parts, others, strict=True)
    )


def _methods(name: str) -> list[str]:
    return [str(method).upper().rpartition(".")[2] for method in TRIGGERS[name].get("methods", [])]
