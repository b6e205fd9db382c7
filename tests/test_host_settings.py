from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from sandbox.host.errors import StartError
from sandbox.host.settings import app_settings, host_configuration

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
        ("[]", "is not a JSON object"),
        ('{"Values": []}', "Values is not a JSON object"),
        ('{"Values": {"A": 1}}', "the value of A is not a string"),
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


def test_reads_what_the_host_honours(tmp_path: Path) -> None:
    write_host_json(
        tmp_path,
        {
            "http": {"routePrefix": "/v2/", "customHeaders": {"A": "b"}},
            "durableTask": {
                "hubName": "Hub",
                "defaultVersion": "1.0",
                "maxConcurrentActivityFunctions": 3,
                "maxConcurrentOrchestratorFunctions": 4,
            },
        },
    )
    configuration = host_configuration(tmp_path, {})
    assert configuration.route_prefix == "v2"
    assert configuration.custom_headers == {"A": "b"}
    assert (configuration.hub_name, configuration.default_version) == ("Hub", "1.0")
    assert (configuration.max_concurrent_activities, configuration.max_concurrent_orchestrators) == (3, 4)


def test_has_the_platforms_defaults(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"version": "2.0"}')
    configuration = host_configuration(tmp_path, {}, processors=4)
    assert configuration.route_prefix == "api"
    assert configuration.default_version is None
    assert (configuration.max_concurrent_activities, configuration.max_concurrent_orchestrators) == (40, 40)


@pytest.mark.parametrize(("text", "fail"), [(None, False), ("", False), ("run-again", False), ("fail", True)])
def test_reads_what_becomes_of_lost_activities(tmp_path: Path, text: str | None, *, fail: bool) -> None:
    write_host_json(tmp_path, {})
    settings = {} if text is None else {"SANDBOX_LOST_ACTIVITIES": text}
    assert host_configuration(tmp_path, settings).lost_activities_fail is fail


def test_refuses_anything_else_to_become_of_them(tmp_path: Path) -> None:
    write_host_json(tmp_path, {})
    with pytest.raises(StartError, match="SANDBOX_LOST_ACTIVITIES is 'Fail', neither run-again nor fail"):
        host_configuration(tmp_path, {"SANDBOX_LOST_ACTIVITIES": "Fail"})


def test_an_app_can_do_without_a_route_prefix(tmp_path: Path) -> None:
    write_host_json(tmp_path, {"http": {"routePrefix": ""}})
    assert host_configuration(tmp_path, {}).route_prefix == ""


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "is not JSON"),
        ("[]", "version is"),
        ("{}", "version is None"),
        ('{"version": "1.0"}', 'version is .1.0., not "2.0"'),
        ('{"version": 2.0}', "version is 2.0"),
        ('{"version": "2.0", "extensions": []}', None),
        ('{"version": "2.0", "extensions": [1]}', "extensions is not a JSON object"),
        ('{"version": "2.0", "extensions": {"http": "x"}}', "http is not a JSON object"),
        ('{"version": "2.0", "extensions": {"http": {"routePrefix": 1}}}', "routePrefix is 1, not a string"),
        ('{"version": "2.0", "extensions": {"http": {"customHeaders": {"A": 1}}}}', "A is 1, not a string"),
        (
            '{"version": "2.0", "extensions": {"durableTask": {"maxConcurrentActivityFunctions": 0}}}',
            "maxConcurrentActivityFunctions is 0, not a positive whole number",
        ),
        (
            '{"version": "2.0", "extensions": {"durableTask": {"maxConcurrentOrchestratorFunctions": true}}}',
            "maxConcurrentOrchestratorFunctions is True",
        ),
    ],
)
def test_refuses_a_broken_host_json(tmp_path: Path, text: str, problem: str | None) -> None:
    (tmp_path / "host.json").write_text(text)
    if problem is None:
        assert host_configuration(tmp_path, {}).route_prefix == "api"
        return
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
        "AzureFunctionsJobHost": "no name either",
        "OTHER__extensions__http__routePrefix": "not for the host",
    }
    configuration = host_configuration(tmp_path, settings)
    assert (configuration.route_prefix, configuration.hub_name) == ("v2", "Other")
    assert configuration.max_concurrent_activities == 7


def test_refuses_a_folder_without_host_json(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"there is no host\.json"):
        host_configuration(tmp_path, {})
