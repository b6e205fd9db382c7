from __future__ import annotations

import pytest

from sandbox.host.errors import StartError
from sandbox.host.functions import Function
from sandbox.host.routes import RouteTable, compile_route


def http_function(name: str, route: str | None = None, methods: tuple[str, ...] = ("GET",)) -> Function:
    trigger = {"type": "httpTrigger", "name": "req", "methods": list(methods)}
    if route is not None:
        trigger["route"] = route
    return Function(name=name, function_id=name, script_file="function_app.py", trigger=trigger, bindings=(trigger,))


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("a/{id}", "/api/a/1", {"id": "1"}),
        ("a/{id}", "/API/A/Xy", {"id": "Xy"}),
        ("a/{id}", "/api/a/1/", {"id": "1"}),
        ("a/{id}", "/api/a", None),
        ("a/{id}", "/api/a/", None),
        ("a/{id}", "/api/a/1/2", None),
        ("a/{id}", "/a/1", None),
        ("a/{id?}", "/api/a", {}),
        ("a/{id?}", "/api/a/1", {"id": "1"}),
        ("a/{*rest}", "/api/a/b/c", {"rest": "b/c"}),
        ("a/{*rest}", "/api/a", {}),
        ("a/{**rest}", "/api/a/b/c", {"rest": "b/c"}),
        ("{file}.{ending}", "/api/x.y.txt", {"file": "x", "ending": "y.txt"}),
        ("v{major}-x", "/api/v12-x", {"major": "12"}),
        ("a.b", "/api/aXb", None),
        ("{id:int}", "/api/-12", {"id": "-12"}),
        ("{id:int}", "/api/1a", None),
        ("{id:int?}", "/api", {}),
        ("{id:guid}", "/api/0f8fad5b-d9cb-469f-a165-70867728950e", {"id": "0f8fad5b-d9cb-469f-a165-70867728950e"}),
        ("{id:guid}", "/api/0f8fad5b", None),
        ("{id:bool}", "/api/True", {"id": "True"}),
        ("{id:alpha}", "/api/abc", {"id": "abc"}),
        ("{id:alpha}", "/api/ab1", None),
        ("{id:decimal}", "/api/1.5", {"id": "1.5"}),
        ("{id:required}", "/api/x", {"id": "x"}),
    ],
)
def test_matches_as_asp_net_does(template: str, path: str, values: dict[str, str] | None) -> None:
    assert compile_route(http_function("f", template), "api").match(path) == values


def test_a_function_without_a_route_is_found_under_its_name() -> None:
    assert compile_route(http_function("Hello"), "api").template == "api/Hello"


def test_a_route_can_do_without_a_prefix() -> None:
    assert compile_route(http_function("f", "/a/{id}/"), "").match("/a/1") == {"id": "1"}


@pytest.mark.parametrize("template", ["{id", "a/{}", "{id:regex(x)}", "{id:odd}", "{id:min(1)}", "{a}{"])
def test_refuses_a_template_that_it_does_not_understand(template: str) -> None:
    with pytest.raises(StartError, match="function 'f': the route"):
        compile_route(http_function("f", template), "api")


def test_the_first_route_that_matches_wins() -> None:
    table = RouteTable([http_function("a", "a/{id}"), http_function("b", "a/b")], "api")
    found = table.find("GET", "/api/a/b")
    assert found is not None
    assert found[0].function.name == "a"


def test_a_route_is_only_found_by_its_methods() -> None:
    functions = [
        http_function("get", "a", ("GET",)),
        http_function("post", "a", ("POST",)),
        http_function("any", "b", ()),
    ]
    table = RouteTable(functions, "api")
    assert [
        match and match[0].function.name for match in (table.find(m, "/api/a") for m in ("GET", "POST", "PUT"))
    ] == [
        "get",
        "post",
        None,
    ]
    assert table.find("PATCH", "/api/b") is not None


def test_ignores_functions_that_http_does_not_trigger() -> None:
    trigger = {"type": "timerTrigger", "name": "t"}
    timer = Function(name="t", function_id="t", script_file="f.py", trigger=trigger, bindings=(trigger,))
    assert RouteTable([timer], "api").routes == []
