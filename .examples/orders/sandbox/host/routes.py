"""Route templates of HTTP functions, and which function a request's path leads to.

The templates are those of ASP.NET Core routing, which the Functions host uses: `{name}`, `{name?}`, `{*name}` and
constraints such as `{name:int}`. Matching ignores case. The host tries routes in the order of the functions' names,
without precedence: a literal segment does not win over a parameter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.host.errors import StartError
from sandbox.host.functions import HTTP, Function

if TYPE_CHECKING:
    from collections.abc import Iterable

_ANYTHING = "[^/]+?"
_CONSTRAINTS = {
    None: _ANYTHING,
    "alpha": "[A-Za-z]+",
    "bool": "true|false",
    "decimal": r"[+-]?\d+(?:\.\d+)?",
    "double": r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "float": r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "guid": r"\{?[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\}?",
    "int": r"[+-]?\d+",
    "long": r"[+-]?\d+",
    "required": _ANYTHING,
}
_PARAMETER = re.compile(r"\{(?P<star>\*{0,2})(?P<name>\w+)(?::(?P<constraint>[^{}?]+))?(?P<optional>\?)?\}")


@dataclass(frozen=True, slots=True)
class Route:
    """A template, ready to match paths; an empty `methods` allows all."""

    function: Function
    template: str
    methods: frozenset[str]
    pattern: re.Pattern[str]
    parameters: tuple[str, ...]

    def match(self, path: str) -> dict[str, str] | None:
        """Return the values of the parameters where `path` (with a leading slash) matches, None where it does not."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        return {name: value for name, value in zip(self.parameters, found.groups(), strict=True) if value}


def _segment(text: str, where: str, parameters: list[str]) -> str:
    """Return the expression of a segment with the slash before it; its parameters are added to `parameters`."""
    expression, position, is_optional = "/", 0, False
    for found in _PARAMETER.finditer(text):
        expression += re.escape(text[position : found.start()])
        position = found.end()
        constraint = found["constraint"]
        if constraint not in _CONSTRAINTS:
            raise StartError(f"{where} has the constraint {constraint!r}, which the sandbox's host does not support")
        parameters.append(found["name"])
        expression += f"({'.*' if found['star'] else _CONSTRAINTS[constraint]})"
        is_optional = bool(found["optional"] or found["star"])
    rest = text[position:]
    if "{" in rest or "}" in rest:
        raise StartError(f"{where} is not a route template that the sandbox's host understands")
    expression += re.escape(rest)
    return f"(?:{expression})?" if is_optional else expression


def compile_route(function: Function, prefix: str) -> Route:
    """Compile the route of an HTTP function below the app's route prefix.

    Raises:
        StartError: the template is malformed, or has a constraint that is not supported.
    """
    own = str(function.trigger.get("route") or function.name).strip("/")
    template = "/".join(part for part in (prefix, own) if part)
    parameters: list[str] = []
    where = f"function {function.name!r}: the route {own!r}"
    expression = "".join(_segment(segment, where, parameters) for segment in template.split("/"))
    return Route(
        function=function,
        template=template,
        methods=frozenset(str(method).upper() for method in function.trigger.get("methods") or ()),
        pattern=re.compile(f"{expression}/?", re.IGNORECASE | re.DOTALL),
        parameters=tuple(parameters),
    )


class RouteTable:
    """The routes of an app, in the order of `functions`."""

    def __init__(self, functions: Iterable[Function], prefix: str) -> None:
        self.routes = [compile_route(each, prefix) for each in functions if each.kind == HTTP]

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """Return the first route that a request matches, and the values of its parameters.

        None where no route has this path and method: the platform answers 404 for either.
        """
        for route in self.routes:
            if not route.methods or method in route.methods:
                values = route.match(path)
                if values is not None:
                    return route, values
        return None
