"""The files that configure a function app on one machine: local.settings.json and host.json."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from sandbox.host.errors import StartError
from sandbox.host.schedule import parse_time_span

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Ten per processor: https://learn.microsoft.com/azure/azure-functions/durable/durable-functions-bindings
CONCURRENT_FUNCTIONS = 10 * (os.process_cpu_count() or 1)
# https://learn.microsoft.com/azure/azure-functions/functions-host-json#override-hostjson-values
OVERRIDE = "azurefunctionsjobhost"
UNLIMITED = -1


class LocalSettings(msgspec.Struct, rename="pascal"):
    """What the host reads of local.settings.json."""

    is_encrypted: bool = False
    values: dict[str, Any] = {}


Positive = Annotated[int, msgspec.Meta(ge=1)]
# A limit of requests; -1 lifts it.
Limit = Annotated[int, msgspec.Meta(ge=-1)]


class HttpSection(msgspec.Struct, rename="camel"):
    """`extensions.http` of host.json; the limits are those of a dedicated plan, where there are none."""

    route_prefix: str = "api"
    custom_headers: dict[str, str] = {}
    max_concurrent_requests: Limit = UNLIMITED
    max_outstanding_requests: Limit = UNLIMITED


class StorageProvider(msgspec.Struct, rename="camel"):
    """`extensions.durableTask.storageProvider` of host.json; the defaults are those of Azure Storage."""

    control_queue_visibility_timeout: str = "00:05:00"
    work_item_queue_visibility_timeout: str = "00:05:00"


class DurableSection(msgspec.Struct, rename="camel"):
    """`extensions.durableTask` of host.json."""

    hub_name: str = "TestHubName"
    default_version: str | None = None
    max_concurrent_activity_functions: Positive = CONCURRENT_FUNCTIONS
    max_concurrent_orchestrator_functions: Positive = CONCURRENT_FUNCTIONS
    storage_provider: StorageProvider = msgspec.field(default_factory=StorageProvider)


class Extensions(msgspec.Struct, rename="camel"):
    """`extensions` of host.json."""

    http: HttpSection = msgspec.field(default_factory=HttpSection)
    durable_task: DurableSection = msgspec.field(default_factory=DurableSection)


class ExtensionBundle(msgspec.Struct):
    """`extensionBundle` of host.json; `version` is a range."""

    id: str
    version: str

    @property
    def lowest_version(self) -> str:
        """The lower end of the range, "4.32.0" of "[4.32.0, 5.0.0)"."""
        return self.version.strip("[(").partition(",")[0].strip()


class HostConfiguration(msgspec.Struct, rename="camel"):
    """What the host honours of host.json."""

    version: Literal["2.0"]
    function_timeout: str = "00:30:00"
    extensions: Extensions = msgspec.field(default_factory=Extensions)
    extension_bundle: ExtensionBundle | None = None


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
    try:
        local = msgspec.convert({} if document is None else document, LocalSettings)
    except msgspec.ValidationError as error:
        raise StartError(f"{path}: {error}") from error
    if local.is_encrypted:
        raise StartError(f"{path} is encrypted (IsEncrypted is true): decrypt it with `func settings decrypt`")
    if not_text := [name for name, value in local.values.items() if not isinstance(value, str)]:
        raise StartError(f"{path}: Values must be texts, in quotation marks: mend {', '.join(not_text)}")
    # A section of the Core Tools is no text.
    top = document if isinstance(document, dict) else {}
    if outside := [name for name, value in top.items() if isinstance(value, str) and not name.startswith("$")]:
        raise StartError(f"{path}: app settings stand inside Values: move {', '.join(outside)}")
    return {**local.values, **environ}


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


def host_configuration(directory: Path, settings: Mapping[str, str]) -> HostConfiguration:
    """Read host.json, and the app settings that override it.

    Raises:
        StartError: the file is missing, or has a value that makes no sense.
    """
    path = directory / "host.json"
    document = _read_json(path)
    if document is None:
        raise StartError(f"there is no host.json in {directory}: this is not the folder of a function app")
    if isinstance(document, dict):
        _override(document, settings)
    try:
        configuration = msgspec.convert(document, HostConfiguration, strict=False)
    except msgspec.ValidationError as error:
        raise StartError(f"{path}: {error}") from error
    provider = configuration.extensions.durable_task.storage_provider
    for name, text in {
        "functionTimeout": configuration.function_timeout,
        "controlQueueVisibilityTimeout": provider.control_queue_visibility_timeout,
        "workItemQueueVisibilityTimeout": provider.work_item_queue_visibility_timeout,
    }.items():
        if parse_time_span(text) is None and (name, text) != ("functionTimeout", str(UNLIMITED)):
            raise StartError(f"{path}: {name} is {text!r}, not a time as hh:mm:ss")
    return configuration
