"""The functions of an app, from their metadata: which trigger, which bindings, and whether this host can run them."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.host.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sandbox.host.messages import FunctionMetadata

HTTP = "httpTrigger"
ORCHESTRATOR = "orchestrationTrigger"
ACTIVITY = "activityTrigger"
TIMER = "timerTrigger"
TRIGGERS = frozenset({HTTP, ORCHESTRATOR, ACTIVITY, TIMER})
DURABLE_CLIENT = "durableClient"
HTTP_RESPONSE = "http"

_APP_SETTING = re.compile(r"%([^%]+)%")


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the host can run.

    `trigger` is the binding that starts it.
    """

    name: str
    function_id: str
    script_file: str
    trigger: Mapping[str, Any]
    bindings: tuple[Mapping[str, Any], ...]

    @property
    def kind(self) -> str:
        """The trigger's type, "httpTrigger" for one."""
        return str(self.trigger["type"])

    @property
    def level(self) -> str:
        """The `authLevel` of an HTTP function."""
        return str(self.trigger.get("authLevel") or "function")

    @property
    def trigger_parameter(self) -> str:
        """The parameter that takes what triggered the function."""
        return str(self.trigger["name"])

    @property
    def clients(self) -> tuple[str, ...]:
        """The parameters that take a durable client."""
        return tuple(str(each["name"]) for each in self.bindings if each["type"] == DURABLE_CLIENT)

    @property
    def durable_name(self) -> str:
        """The name of an activity or orchestrator in the task hub."""
        return str(self.trigger.get("activity") or self.trigger.get("orchestration") or self.name)


def _resolve(value: object, settings: Mapping[str, str], function: str) -> object:
    """Put app settings in the place of `%NAME%` in a binding's texts."""
    if not isinstance(value, str):
        return value
    try:
        return _APP_SETTING.sub(lambda found: settings[found[1]], value)
    except KeyError as error:
        problem = f"the app setting {error.args[0]} is not set, but a binding names it ({value})"
        raise StartError(f"function {function!r}: {problem}") from error


def function_from_metadata(metadata: FunctionMetadata, settings: Mapping[str, str]) -> Function:
    """Read a function's bindings.

    Raises:
        StartError: it has a binding that the host does not support, or names an app setting that is not set.
    """
    bindings = tuple(
        {key: _resolve(value, settings, metadata.name) for key, value in json.loads(raw).items()}
        for raw in metadata.raw_bindings
    )
    for each in bindings:
        kind, name = each["type"], each["name"]
        if kind not in {*TRIGGERS, DURABLE_CLIENT} and (kind, name) != (HTTP_RESPONSE, "$return"):
            problem = f"function {metadata.name!r} uses the binding {kind} ({name})"
            raise StartError(f"{problem}, which the sandbox's host does not support")
    triggers = [each for each in bindings if each["type"] in TRIGGERS]
    if len(triggers) != 1:
        raise StartError(f"function {metadata.name!r} has {len(triggers)} triggers, not one")
    return Function(metadata.name, metadata.function_id, metadata.script_file, triggers[0], bindings)


def functions_from_metadata(listing: Iterable[FunctionMetadata], settings: Mapping[str, str]) -> list[Function]:
    """Read all functions of an app, in the order of their names.

    Raises:
        StartError: the host cannot run one of them, or two have the same name.
    """
    functions = sorted((function_from_metadata(each, settings) for each in listing), key=lambda each: each.name.lower())
    for first, second in itertools.pairwise(functions):
        if first.name.lower() == second.name.lower():
            raise StartError(f"two functions are named {second.name!r}")
    return functions
