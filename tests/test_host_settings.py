from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sandbox.host.errors import StartError
from sandbox.host.settings import UNLIMITED, app_settings, host_configuration

if TYPE_CHECKING:
    from pathlib import Path


def write_host_json(folder: Path, extensions: object) -> None:
    (folder / "host.json").write_text(json.dumps({"version": "2.0", "extensions": extensions}))


def test_the_environment_alone_is_enough(tmp_path: Path) -> None:
    assert app_settings(tmp_path, {"A": "1"}) == {"A": "1"}


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "local.settings.json").write_text('\ufeff{"Values": {"A": "file", "B": "file"}}', encoding="utf-8")
    assert app_settings(tmp_path, {"A": "environment"}) == {"A": "environment", "B": "file"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"Values": {', "is not JSON: .* at line 1 column 13"),
        ('{\n "Values": oops}', "is not JSON: Expecting value at line 2 column 12"),
        ("[]", "Expected `object`"),
        ('{"Values": []}', r"Expected `object`, got `array` - at `\$.Values`"),
        ('{"Values": {"A": 1, "B": "2", "C": {}}}', "Values must be texts, in quotation marks: mend A, C"),
        ('{"A": "1", "Values": {}}', "app settings stand inside Values: move A"),
        ('{"IsEncrypted": true, "Values": {}}', "is encrypted"),
    ],
)
def test_refuses_a_broken_settings_file(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "local.settings.json").write_text(text)
    with pytest.raises(StartError, match=problem):
        app_settings(tmp_path, {})


def test_never_shows_a_value_of_the_settings_file(tmp_path: Path) -> None:
    (tmp_path / "local.settings.json").write_text('{"Values": {"KEY": ["s3cr3t"]}}')
    with pytest.raises(StartError) as raised:
        app_settings(tmp_path, {})
    assert "s3cr3t" not in str(raised.value)


def test_refuses_a_settings_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "local.settings.json").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(StartError, match="cannot be read"):
        app_settings(tmp_path, {})


def test_refuses_a_folder_without_host_json(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"there is no host\.json"):
        host_configuration(tmp_path, {})


def test_reads_what_the_host_honours(tmp_path: Path) -> None:
    http = {"routePrefix": "v2", "customHeaders": {"A": "b"}, "maxConcurrentRequests": 1, "maxOutstandingRequests": 2}
    durable = {"hubName": "Hub", "defaultVersion": "1.0", "maxConcurrentActivityFunctions": 3}
    write_host_json(tmp_path, {"http": http, "durableTask": durable, "else": 1})
    extensions = host_configuration(tmp_path, {}).extensions
    assert (extensions.http.route_prefix, extensions.http.custom_headers) == ("v2", {"A": "b"})
    assert (extensions.http.max_concurrent_requests, extensions.http.max_outstanding_requests) == (1, 2)
    section = extensions.durable_task
    assert (section.hub_name, section.default_version, section.max_concurrent_activity_functions) == ("Hub", "1.0", 3)


def test_has_the_platforms_defaults(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    configuration = host_configuration(tmp_path, {})
    assert configuration.function_timeout == "00:30:00"
    assert configuration.extensions.http.route_prefix == "api"
    assert configuration.extensions.http.max_outstanding_requests == UNLIMITED
    assert configuration.extensions.durable_task.default_version is None


def test_knows_the_lowest_version_of_the_extension_bundle(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"version": "2.0", "extensionBundle": {"id": "B", "version": "[4.32.0, 5)"}}')
    bundle = host_configuration(tmp_path, {}).extension_bundle
    assert bundle is not None
    assert bundle.lowest_version == "4.32.0"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "Expected `object`"),
        ("{}", "missing required field `version`"),
        ('{"version": "1.0"}', "Invalid enum value '1.0'"),
        ('{"version": "2.0", "functionTimeout": "soon"}', "functionTimeout is 'soon', not a time as hh:mm:ss"),
        (
            '{"version":"2.0","extensions":{"durableTask":{"storageProvider":{"workItemQueueVisibilityTimeout":""}}}}',
            "workItemQueueVisibilityTimeout is '', not a time as hh:mm:ss",
        ),
        ('{"version": "2.0", "extensions": {"http": "x"}}', r"\$.extensions.http"),
        ('{"version": "2.0", "extensions": {"http": {"maxConcurrentRequests": "x"}}}', "maxConcurrentRequests"),
        ('{"version": "2.0", "extensions": {"durableTask": {"maxConcurrentActivityFunctions": 0}}}', ">= 1"),
    ],
)
def test_refuses_a_broken_host_json(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "host.json").write_text(text)
    with pytest.raises(StartError, match=problem):
        host_configuration(tmp_path, {})


def test_app_settings_override_host_json_whatever_their_case(tmp_path: Path) -> None:
    write_host_json(tmp_path, {"http": {"routePrefix": "api"}, "durableTask": {"hubName": "Hub"}})
    settings = {
        "AzureFunctionsJobHost__extensions__http__routePrefix": "v2",
        "AzureFunctionsJobHost__Extensions__DurableTask__HubName": "Other",
        "AZUREFUNCTIONSJOBHOST__extensions__durableTask__maxConcurrentActivityFunctions": "7",
        "AzureFunctionsJobHost__version__odd": "no section",
        "AzureFunctionsJobHost__": "no name",
        "OTHER__extensions__http__routePrefix": "not for the host",
    }
    extensions = host_configuration(tmp_path, settings).extensions
    assert (extensions.http.route_prefix, extensions.durable_task.hub_name) == ("v2", "Other")
    assert extensions.durable_task.max_concurrent_activity_functions == 7
