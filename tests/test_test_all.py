"""`make test-all`: what scripts/test-all makes of the Pythons that are here, for which a command stands in."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
# Has the Pythons that are named in the file `here`; the tests of one fail that is named in `broken`.
UV = """#!/bin/sh
echo "uv $*" >>log
for last; do :; done
case "$1 $2" in
  "python find") grep --quiet --line-regexp "$last" here && echo "/pythons/$last" ;;
  "venv "*)
    mkdir -p "$last/bin"
    printf '#!/bin/sh\\necho "pytest $*" >>log\\n! grep --quiet --line-regexp "%s" broken\\n' "${last##*/}" \\
      >"$last/bin/python"
    chmod +x "$last/bin/python"
    ;;
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(PROJECT / "scripts" / "test-all", tmp_path / "scripts" / "test-all")
    (tmp_path / "requirements-dev.txt").write_text("azure-functions==2\nmsgspec==1\n")
    (tmp_path / "uv").write_text(UV)
    (tmp_path / "uv").chmod(0o755)
    return tmp_path


def run(project: Path, here: str, broken: str = "") -> subprocess.CompletedProcess[str]:
    (project / "here").write_text(here.replace(" ", "\n"))
    (project / "broken").write_text(broken.replace(" ", "\n"))
    command = [str(project / "scripts" / "test-all"), str(project / "uv"), "3.11", "3.12", "3.13"]
    environ = {"PATH": os.environ["PATH"], "HOME": str(project)}
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)  # noqa: S603, the project's own script


def test_each_python_that_is_here_runs_the_tests_and_the_others_are_named(project: Path) -> None:
    outcome = run(project, "3.11 3.13")
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines() == ["Python 3.11", "Python 3.12 is not here: skipped", "Python 3.13"]
    ran = [line for line in (project / "log").read_text().splitlines() if line.startswith("pytest ")]
    assert ran == ["pytest -m pytest -q -n auto -p no:cacheprovider -m not long"] * 2
    # Each Python has the azure-functions that requirements.txt names for it.
    assert (project / ".venvs" / "constraints.txt").read_text() == "msgspec==1\n"


def test_a_python_on_which_tests_fail_is_named_after_all_have_run(project: Path) -> None:
    outcome = run(project, "3.11 3.12 3.13", broken="3.11 3.12")
    assert outcome.returncode == 1
    assert outcome.stderr == "test-all: tests failed on Python 3.11 3.12\n"
    assert "Python 3.13\n" in outcome.stdout


def test_no_python_at_all_is_an_error(project: Path) -> None:
    outcome = run(project, "")
    assert outcome.returncode == 1
    assert outcome.stderr == "test-all: none of these Pythons is here: 3.11 3.12 3.13\n"
