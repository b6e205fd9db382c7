"""The files that configure a function app on one machine: local.settings.json and host.json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sandbox.host.errors import StartError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What the platform does per processor: https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-bindings
CONCURRENT_FUNCTIONS_PER_PROCESSOR = 10
# https://learn.microsoft.com/azure/azure-functions/functions-host-json#override-hostjson-values
OVERRIDE = "azurefunctionsjobhost"


# What becomes of activities whose worker process has ended. On the platform they have failed where the host goes on,
# and are run again where it is gone as well.
LOST_ACTIVITIES = "SANDBOX_LOST_ACTIVITIES"
RUN_AGAIN, FAIL = "run-again", "fail"


@dataclass(frozen=True, slots=True)
class HostConfiguration:
    """What the host honours of host.json; the defaults are the platform's.

    `lost_activities_fail` says that an activity whose worker process ends has failed, and is not run again.
    """

    route_prefix: str = "api"
    custom_headers: Mapping[str, str] = field(default_factory=dict)
    hub_name: str = "TestHubName"
    default_version: str | None = None
    max_concurrent_activities: int = 10
    max_concurrent_orchestrators: int = 10
    lost_activities_fail: bool = False


def _read_json(path: Path) -> object:
    """Read a JSON file, None where it does not exist."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise StartError(f"{path} is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"{path} cannot be read: {error}") from error


def app_settings(directory: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the app settings: `Values` of local.settings.json, and over them the environment.

    Raises:
        StartError: the file is broken, or encrypted.
    """
    path = directory / "local.settings.json"
    document = _read_json(path)
    if document is None:
        return dict(environ)
    if not isinstance(document, dict):
        raise StartError(f"{path} is not a JSON object")
    if document.get("IsEncrypted"):
        raise StartError(f"{path} is encrypted (IsEncrypted is true): decrypt it with `func settings decrypt`")
    values = document.get("Values", {})
    if not isinstance(values, dict):
        raise StartError(f"{path}: Values is not a JSON object")
    for name, value in values.items():
        if not isinstance(value, str):
            raise StartError(f"{path}: the value of {name} is not a string")
    return {**values, **environ}


def _section(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Give an object inside host.json, an empty one where it is absent."""
    for name in names:
        document = document.get(name) or {}
        if not isinstance(document, dict):
            raise StartError(f"host.json: {name} is not a JSON object")
    return dict(document)


def _positive(section: Mapping[str, Any], name: str, default: int) -> int:
    """Give a positive whole number out of a section of host.json."""
    value = section.get(name, default)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise StartError(f"host.json: {name} is {value!r}, not a positive whole number")
    return value


def _text(section: Mapping[str, Any], name: str, default: str) -> str:
    """Give a string out of a section of host.json."""
    value = section.get(name, default)
    if not isinstance(value, str):
        raise StartError(f"host.json: {name} is {value!r}, not a string")
    return value


def _override(document: dict[str, Any], settings: Mapping[str, str]) -> None:
    """Put app settings like `AzureFunctionsJobHost__extensions__http__routePrefix` in the place of values."""
    for name, value in settings.items():
        first, *names = name.split("__")
        if first.lower() != OVERRIDE or not all(names):
            continue
        section = document
        for position, each in enumerate(names, start=1):
            key = next((known for known in section if known.lower() == each.lower()), each)
            if position == len(names):
                section[key] = value
            else:
                inner = section.setdefault(key, {})
                section = inner if isinstance(inner, dict) else {}


def host_configuration(
    directory: Path, settings: Mapping[str, str], *, processors: int | None = None
) -> HostConfiguration:
    """Read host.json, and the app settings that override it.

    `processors` sets the default limits of concurrent durable functions: those of this machine unless it is given.

    Raises:
        StartError: the file is missing or broken, its version is not "2.0", or SANDBOX_LOST_ACTIVITIES is none of its
            two values.
    """
    path = directory / "host.json"
    document = _read_json(path)
    if document is None:
        raise StartError(f"there is no host.json in {directory}: this is not the folder of a function app")
    if not isinstance(document, dict) or document.get("version") != "2.0":
        found = document.get("version") if isinstance(document, dict) else document
        raise StartError(f'{path}: version is {found!r}, not "2.0"')
    _override(document, settings)
    http, durable = _section(document, "extensions", "http"), _section(document, "extensions", "durableTask")
    headers = _section(http, "customHeaders")
    lost = settings.get(LOST_ACTIVITIES) or RUN_AGAIN
    if lost not in {RUN_AGAIN, FAIL}:
        raise StartError(f"{LOST_ACTIVITIES} is {lost!r}, neither {RUN_AGAIN} nor {FAIL}")
    per_host = CONCURRENT_FUNCTIONS_PER_PROCESSOR * (processors or os.process_cpu_count() or 1)
    return HostConfiguration(
        route_prefix=_text(http, "routePrefix", "api").strip("/"),
        custom_headers={name: _text(headers, name, "") for name in headers},
        hub_name=_text(durable, "hubName", "TestHubName"),
        default_version=_text(durable, "defaultVersion", "") or None,
        max_concurrent_activities=_positive(durable, "maxConcurrentActivityFunctions", per_host),
        max_concurrent_orchestrators=_positive(durable, "maxConcurrentOrchestratorFunctions", per_host),
        lost_activities_fail=lost == FAIL,
    )
