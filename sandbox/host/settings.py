"""The files that configure a function app on one machine: local.settings.json and host.json."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sandbox.host.errors import StartError
from sandbox.host.schedule import parse_time_span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What the platform does per processor: https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-bindings
CONCURRENT_FUNCTIONS_PER_PROCESSOR = 10
# https://learn.microsoft.com/azure/azure-functions/functions-host-json#override-hostjson-values
OVERRIDE = "azurefunctionsjobhost"

# https://learn.microsoft.com/azure/azure-functions/functions-host-json#functiontimeout
DEFAULT_FUNCTION_TIMEOUT = timedelta(minutes=30)
UNLIMITED = -1


@dataclass(frozen=True, slots=True)
class HostConfiguration:
    """What the host honours of host.json; the defaults are those of the platform on a dedicated plan.

    `function_timeout` and the two limits of requests are None where nothing is limited. `extension_bundle` is the id
    and the lowest version of the bundle.
    """

    route_prefix: str = "api"
    custom_headers: Mapping[str, str] = field(default_factory=dict)
    hub_name: str = "TestHubName"
    default_version: str | None = None
    max_concurrent_activities: int = 10
    max_concurrent_orchestrators: int = 10
    function_timeout: timedelta | None = DEFAULT_FUNCTION_TIMEOUT
    max_concurrent_requests: int | None = None
    max_outstanding_requests: int | None = None
    extension_bundle: tuple[str, str] | None = None


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
    """Return the app settings: `Values` of local.settings.json, and over them the environment.

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
    """Return an object inside host.json, an empty one where it is absent."""
    for name in names:
        document = document.get(name) or {}
        if not isinstance(document, dict):
            raise StartError(f"host.json: {name} is not a JSON object")
    return dict(document)


def _positive(section: Mapping[str, Any], name: str, default: int) -> int:
    """Return a positive whole number out of a section of host.json."""
    value = section.get(name, default)
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise StartError(f"host.json: {name} is {value!r}, not a positive whole number")
    return value


def _limit(section: Mapping[str, Any], name: str) -> int | None:
    """Read a limit of requests, None where -1 lifts it."""
    return None if str(section.get(name, UNLIMITED)) == str(UNLIMITED) else _positive(section, name, UNLIMITED)


def _function_timeout(document: Mapping[str, Any]) -> timedelta | None:
    """Read how long a function may run, None where -1 lifts the limit."""
    value = document.get("functionTimeout")
    if value is None:
        return DEFAULT_FUNCTION_TIMEOUT
    length = parse_time_span(str(value))
    if length is None and str(value) != str(UNLIMITED):
        raise StartError(f"host.json: functionTimeout is {value!r}, not a time as hh:mm:ss")
    return length


def _extension_bundle(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Read the id of the extension bundle and the lowest version of its range, "[4.32.0, 5.0.0)" for one."""
    bundle = _section(document, "extensionBundle")
    version = _text(bundle, "version", "").strip("[(").partition(",")[0].strip()
    return (_text(bundle, "id", ""), version) if bundle else None


def _text(section: Mapping[str, Any], name: str, default: str) -> str:
    """Return a string out of a section of host.json."""
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
        StartError: the file is missing or broken, or its version is not "2.0".
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
    per_host = CONCURRENT_FUNCTIONS_PER_PROCESSOR * (processors or os.process_cpu_count() or 1)
    return HostConfiguration(
        route_prefix=_text(http, "routePrefix", "api").strip("/"),
        custom_headers={name: _text(headers, name, "") for name in headers},
        hub_name=_text(durable, "hubName", "TestHubName"),
        default_version=_text(durable, "defaultVersion", "") or None,
        max_concurrent_activities=_positive(durable, "maxConcurrentActivityFunctions", per_host),
        max_concurrent_orchestrators=_positive(durable, "maxConcurrentOrchestratorFunctions", per_host),
        function_timeout=_function_timeout(document),
        max_concurrent_requests=_limit(http, "maxConcurrentRequests"),
        max_outstanding_requests=_limit(http, "maxOutstandingRequests"),
        extension_bundle=_extension_bundle(document),
    )
