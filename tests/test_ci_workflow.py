"""CI runs all that a change must pass, at every change, and a warning of Bicep's is an error."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.workflow_files import CI, PROJECT, jobs, read, run_of, step

if TYPE_CHECKING:
    from pathlib import Path

CHECKOUT, UV, UPLOAD = "actions/checkout", "astral-sh/setup-uv", "actions/upload-artifact"
BUILD = "az bicep build --file infra/main.bicep --stdout 2>&1 >compiled.json | tee diagnostics.txt"
JOBS = {
    "test": [
        CHECKOUT,
        UV,
        "sudo apt-get update -qq && sudo apt-get install -y -qq redis-server",
        "make check",
        "make test-long",
        "make test",
    ],
    "python": [CHECKOUT, UV, 'uv python install "$PYTHON"', 'make test-all VERSIONS="$PYTHON"'],
    "package": [CHECKOUT, UV, "make test-package", UPLOAD],
    "templates": [CHECKOUT, "az bicep install", BUILD, "test -s compiled.json", "test ! -s diagnostics.txt"],
    "audit": [CHECKOUT, UV, "make audit"],
}


def test_every_change_is_looked_at_and_the_dependencies_once_a_week() -> None:
    assert read(CI)["on"] == {
        "push": {"branches": ["main"]},
        "pull_request": None,
        "schedule": [{"cron": "30 4 * * 1"}],
    }


def test_every_job_does_what_it_is_to_do() -> None:
    assert {name: run_of(job) for name, job in jobs(CI).items()} == JOBS


def test_no_job_waits_for_another_or_for_an_environment() -> None:
    assert [name for name, job in jobs(CI).items() if {"needs", "environment", "permissions"} & set(job)] == []


def test_the_tests_run_on_every_python_that_the_project_names() -> None:
    strategy = jobs(CI)["python"]["strategy"]
    assert strategy["fail-fast"] is False
    versions = strategy["matrix"]["python"]
    assert (PROJECT / ".python-version").read_text().strip() in versions
    lowest = re.search(r'requires-python = ">=([\d.]+)"', (PROJECT / "pyproject.toml").read_text())
    assert lowest is not None
    assert versions[0] == lowest[1]
    here = re.search(r"^VERSIONS := (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert here is not None
    assert versions == here[1].split()


@pytest.mark.parametrize(
    ("az", "is_good"),
    [
        ("echo '{}'", True),
        ("echo '{}'; echo 'WARNING: main.bicep(1,1) : Warning BCP037: no such property' >&2", False),
        ("echo 'ERROR: main.bicep(1,1) : Error BCP018' >&2; exit 1", False),
        ("exit 1", False),
        ("exit 0", False),
    ],
)
def test_the_templates_compile_without_a_word_or_not_at_all(tmp_path: Path, az: str, *, is_good: bool) -> None:
    compile_step = step(jobs(CI)["templates"], "Compile the templates without a warning")
    assert (compile_step["shell"], compile_step["env"]) == ("bash", {"AZURE_BICEP_CHECK_VERSION": "False"})
    command = tmp_path / "az"
    command.write_text(f"#!/bin/sh\n{az}\n")
    command.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    # How GitHub runs what says `shell: bash`.
    finished = subprocess.run(  # noqa: S603, a script of the workflow
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", compile_step["run"]],  # noqa: S607, the shell
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (finished.returncode == 0) is is_good
