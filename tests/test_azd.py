"""The hook of azure.yaml for Windows, which has no make, builds the package from a fresh clone."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent


# Files that a fresh clone does not have.
MADE = shutil.ignore_patterns(".git", ".*_cache", ".venv*", ".tools", ".examples", ".hypothesis", "__pycache__", "dist")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a copy of the project without what its tools have made."""
    return Path(shutil.copytree(PROJECT, tmp_path / "clone", ignore=MADE))


def test_packaging_does_without_the_requirements_of_a_trial() -> None:
    script = "import sys; sys.modules['httpx'] = None; import deployment.__main__"
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True)  # noqa: S603, a command of this test


@pytest.mark.long
def test_the_hook_for_windows_builds_the_package(clone: Path) -> None:
    [command] = re.findall(r"shell: pwsh\n +run: (.*)", (PROJECT / "azure.yaml").read_text())
    path = os.pathsep.join([os.environ["PATH"], str(PROJECT / ".tools" / "bin")])
    # The active environment would satisfy what the command has to install.
    environ = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"} | {"PATH": path}
    subprocess.run(shlex.split(command), cwd=clone, env=environ, check=True)  # noqa: S603, a command of azure.yaml
    assert (clone / "dist" / "app.zip").is_file()
