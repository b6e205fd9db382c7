"""The example of local settings works as it is, and the documented defaults are the defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from shared.settings.app_settings import AppSettings, PartnerSettings, settings_problems

PROJECT = Path(__file__).parent.parent
REQUIRED = {
    "NAME_URL": "https://partner.example",
    "NAME_TOKEN_URL": "https://partner.example/token",
    "NAME_CLIENT_ID": "id",
    "NAME_CLIENT_SECRET": "secret",
}
ROW = re.compile(r"^\| (`(?:NAME|BUSINESS_API|DELIVERY)_[^|]*`) \| (`[^|]*`) \|", re.MULTILINE)


def documented_defaults() -> dict[str, str]:
    """Return the defaults in the tables of the documentation; several settings may share a row."""
    found: dict[str, str] = {}
    for page in [PROJECT / "README.md", *(PROJECT / "docs").rglob("*.md")]:
        for names, values in ROW.findall(page.read_text(encoding="utf-8")):
            settings = re.findall(r"`(\w+)`", names.replace("BUSINESS_API_", "NAME_"))
            found |= dict(zip(settings, re.findall(r"`([^`]*)`", values), strict=True))
    return found


DEFAULTS = documented_defaults()


def test_the_example_of_local_settings_works_as_it_is() -> None:
    values: dict[str, str] = json.loads((PROJECT / "local.settings.json.example").read_text())["Values"]
    assert settings_problems(values, ["BUSINESS_API"]) == []


def test_defaults_are_documented() -> None:
    assert DEFAULTS.keys() >= {"NAME_TIMEOUT", "NAME_MAX_CONNECTIONS", "DELIVERY_DEADLINE", "DELIVERY_SETTLE"}


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_documented_default_is_the_default(name: str) -> None:
    explicit = {**REQUIRED, name: DEFAULTS[name]}
    assert settings_problems(explicit, ["NAME"]) == []
    assert AppSettings.from_environ(explicit) == AppSettings.from_environ(REQUIRED)
    assert PartnerSettings.from_environ(explicit, "NAME") == PartnerSettings.from_environ(REQUIRED, "NAME")


@pytest.mark.parametrize("path", ["infra/main.parameters.json", ".github/workflows/deploy.yml"])
def test_azd_passes_on_every_setting(path: str) -> None:
    rows = re.findall(r"^\| (`.*?) \|", (PROJECT / "docs/reference/settings.md").read_text(), re.MULTILINE)
    names = re.findall(r"`((?:NAME|DELIVERY|TOKEN_STORE)_\w+)`", " ".join(rows))
    passed_on = set(re.findall(r"\w+", (PROJECT / path).read_text()))

    assert len(names) > 30
    assert {name.replace("NAME_", "BUSINESS_API_") for name in names} <= passed_on
