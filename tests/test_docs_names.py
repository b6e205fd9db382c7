"""Every file, setting, route and function that the documentation names is there."""

from __future__ import annotations

import ast
import fnmatch
import inspect
import json
import re
import subprocess
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
from packaging.utils import canonicalize_name

from shared.container import container
from shared.delivery.openapi import document
from tests.documentation import PROJECT, blocks, each_page, inline_codes
from tests.foreign_commands import names_of
from tests.infra_files import settings_in_main, worker_settings
from tests.pinned import extra_pins, requirements
from tests.setting_names import setting_names
from tests.test_configuration import DOCUMENTED

# What a file is called that belongs to this project.
SUFFIXES = {".bicep", ".example", ".in", ".json", ".kql", ".md", ".py", ".toml", ".txt", ".yaml", ".yml", ".zip"}
# What commands make: it is not in git.
MADE = {"local.settings.json", "dist/app", "app.zip"}
# A word with a slash that is no path.
NO_PATHS = {"application/x-ndjson", "http/protobuf", "Microsoft.App/environments"}
# What a page may leave out of its paths.
ROOMS = {"sandbox-host.md": "sandbox/host", "README.md": "infra"}
# Of the reader's shell, of Azure, of Python, of OpenTelemetry and of the sandbox; and the second partner of README.md.
FOREIGN_NAMES = {
    "SANDBOX_LOST_ACTIVITIES",
    *("DURABLE_KEY", "FUNCTION_KEY", "RESOURCE_GROUP", "VERSION_ID"),
    *("APPLICATIONINSIGHTS_CONNECTION_STRING", "APPLICATIONINSIGHTS_AUTHENTICATION_STRING"),
    *("HTTPS_PROXY", "NO_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("OTEL_BSP_SCHEDULE_DELAY", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS"),
    *("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME", "PYTHON_ENABLE_OPENTELEMETRY"),
    *("DURABLE_TASK_SCHEDULER_CONNECTION_STRING", "BUSINESS_API", "CRM_API", "CRM_API_TOKEN_URL", "CRM_API_URL"),
}


@cache
def tracked() -> set[str]:
    """Give the files of the project, and their folders, by their paths."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    outcome = subprocess.run(listing, cwd=PROJECT, capture_output=True, text=True, check=True)  # noqa: S603, a command of this test
    files = [PurePosixPath(name) for name in outcome.stdout.split("\0") if name]
    return {str(path) for file in files for path in (file, *file.parents)}


def problem_of_path(code: str, page: Path) -> str | None:
    """Say that there is no such file; None where it is there, or where the code is no path."""
    name = code.rstrip("/")
    is_file = PurePosixPath(name).suffix in SUFFIXES
    if not re.fullmatch(r"[\w.*-]+(/[\w.*-]+)*/?", code) or code in NO_PATHS or not (is_file or "/" in code):
        return None
    room = ROOMS.get(page.name, "")
    candidates = {name, f"{room}/{name}", f"{room}/{name}.py"}
    is_there = any(fnmatch.fnmatchcase(path, each) for path in tracked() for each in candidates)
    # One that stands alone is in a folder that the sentence names.
    is_there |= "/" not in code and name in {PurePosixPath(path).name for path in tracked()}
    return None if is_there or name in MADE else f"there is no {code}"


@each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    assert [problem for code in inline_codes(page) if (problem := problem_of_path(code, page))] == []


@pytest.mark.parametrize("code", ["shared/contaner.py", "shard/container.py", "deployment/lockz/", "contaner.py"])
def test_a_file_that_is_not_there_is_found(code: str) -> None:
    assert problem_of_path(code, PROJECT / "docs" / "tokens.md") == f"there is no {code}"


def known_names() -> set[str]:
    names = names_of()
    parameters = names["PARAMETER"] | names["OUTPUT"] | names["VARIABLE"]
    return setting_names() | parameters | set(settings_in_main()) | set(worker_settings()) | FOREIGN_NAMES


@each_page
def test_every_setting_that_is_named_is_there(page: Path) -> None:
    named = set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b", page.read_text()))
    assert named - known_names() == set()


def test_the_readme_has_every_setting_with_its_default_and_no_other() -> None:
    section = (PROJECT / "README.md").read_text().partition("\n## Settings")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for names, defaults in re.findall(r"^\| (`[^|]*`) \|([^|]*)\|", section, re.MULTILINE):
        listed, given = re.findall(r"`(\w+)`", names), defaults.strip().split(", ")
        found |= dict(zip(listed, given if len(given) == len(listed) else given * len(listed), strict=True))
    assert found == DOCUMENTED


def test_the_example_has_the_documented_defaults() -> None:
    values: dict[str, str] = json.loads((PROJECT / "local.settings.json.example").read_text())["Values"]
    defaults = {name: default.strip("`") for name, default in DOCUMENTED.items() if default.startswith("`")}
    assert {name: values[name] for name in defaults} == defaults


PATHS: dict[str, dict[str, object]] = json.loads(document())["paths"]


@each_page
def test_every_route_that_is_named_is_there(page: Path) -> None:
    named = set(re.findall(r"(?<!shared)/api/[\w./{}-]*[\w}]", page.read_text()))
    routes = [re.sub(r"\\{\w+\\}", "[^/]+", re.escape(f"/api{path}")) for path in PATHS]
    assert {each for each in named if not any(re.fullmatch(route, each) for route in routes)} == set()


def test_the_readme_has_every_route() -> None:
    table = (PROJECT / "README.md").read_text().partition("\n## HTTP interface")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `([A-Z]+) /api(/\S*)` \|", table, re.MULTILINE))
    # Health checks share a line.
    routes = {(method.upper(), path) for path, methods in PATHS.items() for method in methods}
    assert listed | {("GET", "/health/deep")} == routes


def test_each_requirement_has_its_reason_and_versions_that_are_named_are_the_pinned_ones() -> None:
    page = (PROJECT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)
    assert set(requirements()) <= {canonicalize_name(word) for row in rows for word in re.findall(r"[\w-]+", row)}
    pinned = requirements() | extra_pins()
    named = re.findall(r"([\w-]+)(?: is pinned to)? (\d+\.\d+\.\d+)\b", page)
    versions = {name: version for name, version in named if name in pinned}
    assert versions == {name: pinned[name] for name in versions}
    assert "opentelemetry-api" in versions


@each_page
def test_every_block_of_python_can_be_read(page: Path) -> None:
    for language, text in blocks(page):
        if language == "python":
            compile(text, str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_readme_calls_what_the_container_has() -> None:
    [call] = [text for language, text in blocks(PROJECT / "README.md") if language == "python"]
    method = re.search(r"= await container\.(\w+)\(\"CRM_API\"\)$", call.strip())
    assert method is not None
    assert inspect.iscoroutinefunction(getattr(container, method[1]))
