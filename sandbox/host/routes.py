"""Route templates of HTTP functions, and which function a request's path leads to.

The templates are those of ASP.NET Core routing, which the Functions host uses: `{name}`, `{name?}`, `{name=default}`,
`{*name}` and constraints such as `{name:int}`. Matching ignores case. The host tries routes in the order of the
functions' names, without precedence: a literal segment does not win over a parameter.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.host.errors import StartError
from sandbox.host.functions import HTTP, Function

if TYPE_CHECKING:
    from collections.abc import Iterable

# Each constraint as a regular expression of the whole value; "{0}" stands for its arguments, as in "length(1,5)".
_CONSTRAINTS = {
    "alpha": "[A-Za-z]*",
    "bool": "true|false",
    "decimal": r"[+-]?\d+(?:\.\d+)?",
    "double": r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "float": r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?",
    "guid": r"\{?[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}\}?",
    "int": r"[+-]?\d+",
    "long": r"[+-]?\d+",
    "length": ".{{{0}}}",
    "minlength": ".{{{0},}}",
    "maxlength": ".{{0,{0}}}",
    "required": ".+",
}
_PARAMETER = re.compile(
    r"\{(?P<catch_all>\*{0,2})(?P<name>[^{}:?=*]+)(?P<constraints>(?::(?:[^{}?=]|\{\d+\})+)*)(?P<rest>\?|=[^{}]*)?\}"
)
_CONSTRAINT = re.compile(r"(?P<name>[a-z]+)(?:\((?P<arguments>[^()]*)\))?")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a route template; `default` is its value where the path has none."""

    name: str
    pattern: re.Pattern[str] | None
    default: str | None


@dataclass(frozen=True, slots=True)
class Route:
    """A template, ready to match paths."""

    function: Function
    template: str
    methods: frozenset[str]
    pattern: re.Pattern[str]
    parameters: tuple[Parameter, ...]

    def match(self, path: str) -> dict[str, str] | None:
        """Return the values of the parameters where `path` (with a leading slash) matches, None where it does not."""
        found = self.pattern.fullmatch(path)
        if found is None:
            return None
        values: dict[str, str] = {}
        for index, parameter in enumerate(self.parameters):
            value = found[f"p{index}"] or parameter.default
            if value is None:
                continue
            if parameter.pattern is not None and parameter.pattern.fullmatch(value) is None:
                return None
            values[parameter.name] = value
        return values


def _constraint_pattern(text: str, where: str) -> re.Pattern[str]:
    """Compile the constraints of one parameter, ":int:minlength(3)" for one, to a pattern of its value."""
    lookaheads = []
    for constraint in text.split(":")[1:]:
        found = _CONSTRAINT.fullmatch(constraint)
        if found is None or found["name"] not in _CONSTRAINTS:
            raise StartError(f"{where} has the constraint {constraint!r}, which the sandbox's host does not support")
        expression = _CONSTRAINTS[found["name"]]
        if found["arguments"]:
            expression = expression.format(found["arguments"])
        lookaheads.append(rf"(?=(?:{expression})\Z)")
    return re.compile("".join(lookaheads) + ".*", re.IGNORECASE)


class _Compiler:
    """Turns one template into a regular expression, segment by segment."""

    def __init__(self, where: str) -> None:
        self._where = where
        self.parameters: list[Parameter] = []

    def segment(self, text: str) -> str:
        """Return the expression of a segment, with the slash before it."""
        expression, position, optional = "", 0, False
        for found in _PARAMETER.finditer(text):
            expression += re.escape(text[position : found.start()])
            position = found.end()
            index, rest, catch_all = len(self.parameters), found["rest"], bool(found["catch_all"])
            pattern = _constraint_pattern(found["constraints"], self._where) if found["constraints"] else None
            self.parameters.append(Parameter(found["name"], pattern, rest[1:] if rest and rest != "?" else None))
            expression += f"(?P<p{index}>{'.*' if catch_all else '[^/]+?'})"
            optional = rest is not None or catch_all
        literal = text[position:]
        if "{" in literal or "}" in literal:
            raise StartError(f"{self._where} is not a route template that the sandbox's host understands")
        expression = f"/{expression}{re.escape(literal)}"
        return f"(?:{expression})?" if optional else expression


def compile_route(function: Function, prefix: str) -> Route:
    """Compile the route of an HTTP function below the app's route prefix.

    Raises:
        StartError: the template is malformed, or has a constraint that is not supported.
    """
    own = str(function.trigger.get("route") or function.name).strip("/")
    template = "/".join(part for part in (prefix, own) if part)
    compiler = _Compiler(f"function {function.name!r}: the route {own!r}")
    expression = "".join(compiler.segment(segment) for segment in template.split("/"))
    return Route(
        function=function,
        template=template,
        methods=frozenset(str(method).upper() for method in function.trigger.get("methods") or ()),
        pattern=re.compile(f"{expression}/?", re.IGNORECASE | re.DOTALL),
        parameters=tuple(compiler.parameters),
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
            if route.methods and method not in route.methods:
                continue
            values = route.match(path)
            if values is not None:
                return route, values
        return None
