"""azure.yaml fits the templates, and its hooks make the package wherever azd runs them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from deployment.package import Package

PROJECT = Path(__file__).parent.parent
TEMPLATE = (PROJECT / "infra" / "app" / "function-app.bicep").read_text()
AZURE_YAML: dict[str, Any] = YAML(typ="safe").load(PROJECT / "azure.yaml")
HOOKS: dict[str, Any] = AZURE_YAML["hooks"]


def environment(**parameters: str) -> dict[str, str]:
    """Give the environment in which azd runs a hook: uv can be found, and this test's Python is not the active one."""
    chosen = {"VIRTUAL_ENV", "WORKER_TELEMETRY", "DURABLE_BACKEND", "TOKEN_STORE_URL", "MAKEFLAGS", "MAKELEVEL"}
    chosen |= {"PACKAGE_IS_BUILT"}
    path = os.pathsep.join([str(PROJECT / ".tools" / "bin"), os.environ["PATH"]])
    return {name: value for name, value in os.environ.items() if name not in chosen} | {"PATH": path, **parameters}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What is committed of the project, or would be: no environment, nothing that was built."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split("\0")  # noqa: S603, a command of this test
    for name in filter(None, names):
        if (PROJECT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, tmp_path / name)
    return tmp_path


def test_azd_finds_the_function_app_of_its_service() -> None:
    (service,) = AZURE_YAML["services"]
    assert f"{{ 'azd-service-name': '{service}' }}" in TEMPLATE


def test_the_template_has_the_version_of_the_project() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert AZURE_YAML["metadata"]["template"] == f"{project['name']}@{project['version']}"


def test_azd_deploys_the_folder_that_is_packaged_before_it_is_deployed() -> None:
    service = AZURE_YAML["services"]["relay"]
    assert service == {"project": "./dist/app", "language": "python", "host": "function"}
    assert set(HOOKS) == {"prepackage", "predeploy"}
    assert {shell: hook["shell"] for shell, hook in HOOKS["prepackage"].items()} == {"posix": "sh", "windows": "pwsh"}
    assert HOOKS["prepackage"] == HOOKS["predeploy"]


def test_the_hook_without_make_takes_the_pathspec_that_is_tested() -> None:
    pinned = re.search(r"^pathspec==.*$", (PROJECT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert f" --with {pinned[0]} " in HOOKS["predeploy"]["windows"]["run"]


def test_the_hook_builds_nothing_where_the_package_is_built(tmp_path: Path) -> None:
    make = tmp_path / "make"
    make.write_text("#!/bin/sh\necho make $*\nexit 3\n")
    make.chmod(0o755)
    for is_built, outcome in [("true", (0, "")), ("", (3, "make package\n")), ("false", (3, "make package\n"))]:
        environ = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PACKAGE_IS_BUILT": is_built}
        command = ["sh", "-c", HOOKS["predeploy"]["posix"]["run"]]
        finished = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603, a command of azure.yaml
        assert (finished.returncode, finished.stdout) == outcome


def test_packaging_needs_none_of_the_packages_that_a_trial_needs() -> None:
    script = "import sys; sys.modules['httpx'] = None; import deployment.__main__"
    finished = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, check=False)  # noqa: S603, a command of this test
    assert finished.returncode == 0, finished.stderr


@pytest.mark.long
@pytest.mark.parametrize("shell", ["posix", "windows"])
@pytest.mark.parametrize(
    ("parameters", "backend", "extras"),
    [({}, "storage", ["azure-monitor"]), ({"DURABLE_BACKEND": "dts", "WORKER_TELEMETRY": "false"}, "dts", [])],
)
def test_a_hook_makes_the_same_package_from_a_fresh_clone(
    clone: Path, shell: str, parameters: dict[str, str], backend: str, extras: list[str]
) -> None:
    run = HOOKS["predeploy"][shell]["run"]
    # PowerShell is not here, and nothing in the command is its own.
    command = ["sh", "-c", run] if shell == "posix" else shlex.split(run)
    before = {path.name for path in clone.iterdir()}

    finished = subprocess.run(  # noqa: S603, a command of azure.yaml
        command, cwd=clone, env=environment(**parameters), capture_output=True, text=True, check=False
    )

    assert finished.returncode == 0, finished.stderr
    Package.of_project(PROJECT, backend, extras).write_zip(clone / "expected.zip")
    assert (clone / "dist" / "app.zip").read_bytes() == (clone / "expected.zip").read_bytes()
    made = {path.name for path in clone.iterdir()} - before - {"expected.zip"}
    assert made - {".venv", ".pytest_cache"} == {"dist"}
