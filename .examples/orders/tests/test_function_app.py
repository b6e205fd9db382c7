from __future__ import annotations

import inspect
import json
from typing import Any

import azure.functions as func
import pytest

import function_app
from tests.fakes.durable_client import BINDING
from tests.fakes.registered_functions import BINDINGS, FUNCTIONS
from tests.fakes.replay import START

# The bindings that the sandbox's host and the documentation know.
TYPES = {"httpTrigger", "http", "durableClient", "orchestrationTrigger", "activityTrigger", "timerTrigger"}


def trigger(name: str) -> dict[str, Any]:
    [found] = [binding for binding in BINDINGS[name] if binding["type"].endswith("Trigger")]
    return dict(found)


def routes() -> dict[tuple[str, str], str]:
    """The authorization level of each method and route."""
    triggers = [trigger(name) for name in FUNCTIONS if trigger(name)["type"] == "httpTrigger"]
    return {(method, each["route"]): each["authLevel"] for each in triggers for method in each["methods"]}


def test_only_health_is_for_anybody() -> None:
    assert {route for route, level in routes().items() if level != "FUNCTION"} == {("GET", "health")}
    assert routes()["GET", "health"] == "ANONYMOUS"


def test_the_routes_are_those_of_the_interface() -> None:
    assert routes().keys() >= {
        ("POST", "businesses"),
        ("POST", "businesses/batch"),
        ("GET", "businesses/{externalId}"),
        ("GET", "health"),
        ("GET", "health/deep"),
        ("GET", "openapi.json"),
    }


def test_no_route_is_one_of_the_hosts_own() -> None:
    # The host answers /admin and /runtime itself: a route of the app there would take its place.
    assert all(route.split("/")[0] not in {"admin", "runtime", ""} for _, route in routes())


def test_nothing_but_functions_is_registered() -> None:
    # A host authentication, or a middleware, would be an extension or a wrapper of the whole app.
    assert type(function_app.app).__module__.startswith("azure.durable_functions")
    assert {binding["type"] for bindings in BINDINGS.values() for binding in bindings} <= TYPES
    assert not any(
        isinstance(value, func.WsgiMiddleware | func.AsgiMiddleware) for value in vars(function_app).values()
    )


@pytest.mark.parametrize(
    ("name", "type_", "argument"),
    [
        ("DeliverBusiness", "orchestrationTrigger", "context"),
        ("DeliverBatch", "orchestrationTrigger", "context"),
        ("PostBusiness", "activityTrigger", "attempt"),
        ("PostBusinesses", "activityTrigger", "order"),
        ("PurgeHistory", "timerTrigger", "timer"),
    ],
)
def test_orchestrators_activities_and_timers_have_the_names_that_histories_know(
    name: str, type_: str, argument: str
) -> None:
    assert (trigger(name)["type"], trigger(name)["name"]) == (type_, argument)


def test_orchestrators_have_no_binding_but_their_trigger() -> None:
    for name in ("DeliverBusiness", "DeliverBatch"):
        assert len(BINDINGS[name]) == 1


def test_only_functions_that_start_or_read_orchestrations_have_a_durable_client() -> None:
    with_client = {name for name, all_ in BINDINGS.items() if any(each["type"] == "durableClient" for each in all_)}

    assert with_client == {
        "PostBusinessRoute",
        "PostBatchRoute",
        "RedeliverBatchRoute",
        "PostBusinesses",
        "PurgeHistory",
    }


def test_every_binding_is_a_parameter_of_its_function() -> None:
    for name, function in FUNCTIONS.items():
        parameters = set(inspect.signature(function.get_user_function()).parameters)
        assert {each["name"] for each in BINDINGS[name]} - {"$return"} <= parameters


@pytest.mark.parametrize(
    ("name", "params", "status"),
    [("PostBusinessRoute", {}, 415), ("PostBatchRoute", {}, 415), ("RedeliverBatchRoute", {"id": ".."}, 404)],
)
async def test_a_route_turns_the_hosts_request_into_a_reply_and_back(
    name: str, params: dict[str, str], status: int
) -> None:
    url, headers = "https://app.example/api/businesses", {"Content-Type": "text/plain"}
    request = func.HttpRequest("POST", url, headers=headers, route_params=params, body=b"{}")

    response = await FUNCTIONS[name].get_user_function()(req=request, client=json.dumps(BINDING), context=None)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.get_body())["status"] == status


async def test_the_redirect_of_health_reaches_the_caller() -> None:
    request = func.HttpRequest("GET", "https://app.example/api/health?deep=1", params={"deep": "1"}, body=b"")

    response = await FUNCTIONS["HealthRoute"].get_user_function()(request)
    assert (response.status_code, response.headers["location"]) == (307, "health/deep")


@pytest.mark.parametrize(
    ("name", "input_", "activity"),
    [
        ("DeliverBusiness", {"business": {"externalId": "b-1", "name": "Ada"}}, "PostBusiness"),
        ("DeliverBatch", {"businesses": [{"externalId": "b-1", "name": "Ada"}], "digest": "d"}, "PostBusinesses"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*df_loads was called without expected_type:DeprecationWarning")
def test_an_orchestrator_schedules_the_activity_that_is_registered(
    name: str, input_: dict[str, Any], activity: str
) -> None:
    stamp = START.strftime("%Y-%m-%dT%H:%M:%SZ")
    event = {"EventId": -1, "IsPlayed": False, "Timestamp": stamp}
    context = {
        "history": [{"EventType": 12, **event}, {"EventType": 0, "Name": name, "Version": "", **event}],
        "input": json.dumps(input_),
        "instanceId": "0f5c2d",
        "isReplaying": False,
        "parentInstanceId": None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 2,
    }

    state = json.loads(FUNCTIONS[name].get_user_function()(json.dumps(context)))
    actions = [each for action in state["actions"][0] for each in action.get("compoundActions", [action])]
    assert [action["functionName"] for action in actions] == [activity]
    assert activity in FUNCTIONS
