"""The lists of app settings, in the documentation and in local.settings.json.example, are those of `Settings`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.settings import Settings
from tests.setting_names import setting_names

PROJECT = Path(__file__).parent.parent
CONFIGURATION = (PROJECT / "docs" / "configuration.md").read_text()
SECTION = CONFIGURATION.partition("## App settings")[2].partition("### Settings of the platform")[0]
DOCUMENTED: dict[str, str] = dict(re.findall(r"^\| `(\w+)` \| (\S*) ?\| \S", SECTION, re.MULTILINE))
# What the Core Tools and the host need to run the app at all.
LOCAL_PLATFORM_SETTINGS = {"FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage"}
LEAST = {
    "BUSINESS_API_URL": "https://partner.example",
    "BUSINESS_API_TOKEN_URL": "https://partner.example/token",
    "BUSINESS_API_CLIENT_ID": "id",
    "BUSINESS_API_CLIENT_SECRET": "secret",
}


def example() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / "local.settings.json.example").read_text())
    return content


def test_the_documentation_lists_every_setting_and_no_other() -> None:
    assert set(DOCUMENTED) == setting_names()


def test_the_example_lists_every_setting_and_no_other() -> None:
    assert set(example()["Values"]) == setting_names() | LOCAL_PLATFORM_SETTINGS


def test_the_example_is_usable_as_it_is() -> None:
    values: dict[str, str] = example()["Values"]
    assert example()["IsEncrypted"] is False
    assert Settings.from_environ(values).api_url == values["BUSINESS_API_URL"]


@pytest.mark.parametrize("name", [name for name, default in DOCUMENTED.items() if default.startswith("`")])
def test_a_documented_default_is_the_default(name: str) -> None:
    assert Settings.from_environ({**LEAST, name: DOCUMENTED[name].strip("`")}) == Settings.from_environ(LEAST)


def test_only_the_url_is_called_required() -> None:
    assert [name for name, default in DOCUMENTED.items() if default == "required"] == ["BUSINESS_API_URL"]
