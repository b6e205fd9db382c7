"""What the documentation names exists: the targets of its links, problem types, metrics and settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shared import telemetry as names
from shared.http.messages import TYPES
from shared.settings import app_settings

PROJECT = Path(__file__).parent.parent
FOLDERS = ("docs", "examples", "infra")
PAGES = sorted([*PROJECT.glob("*.md"), *(page for name in FOLDERS for page in (PROJECT / name).rglob("*.md"))])
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = set()
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.add(f"{target}#{anchor}")
    assert broken == set()


def test_every_problem_type_has_a_section() -> None:
    assert anchors(PROJECT / "docs/problems.md") - {"reference-problem-types"} == set(TYPES)


def test_the_documented_metrics_are_those_that_exist() -> None:
    page = (PROJECT / "docs/reference/telemetry.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(business_relay\.\S+)` \|", page, re.MULTILINE))
    metrics = [value for value in vars(names).values() if isinstance(value, names.Metric)]
    assert documented == {metric.name for metric in (*metrics, *names.TOKEN_COUNTERS.values())}


def test_every_setting_is_documented() -> None:
    page = (PROJECT / "docs/reference/settings.md").read_text(encoding="utf-8")
    settings = {f"NAME_{key}" for key in app_settings.KEYS} | set(app_settings.NAMES)
    assert {name for name in settings if f"`{name}`" not in page} == set()
