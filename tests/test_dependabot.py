"""Dependabot watches every folder that pins something of a kind that it knows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import PurePosixPath
from typing import Any

from tests.workflow_files import PROJECT, read

PATH = PROJECT / ".github" / "dependabot.yml"
UPDATES: list[dict[str, Any]] = read(PATH)["updates"]
# Where a file of this kind stands, there is something to watch.
PINS = {"pip": r"requirements[\w-]*\.txt|deployment/locks/[\w-]+\.txt", "docker": "Dockerfile"}


def folders(update: dict[str, Any]) -> list[str]:
    found: list[str] = update.get("directories") or [update["directory"]]
    return found


def folders_with(pattern: str) -> set[str]:
    """Give the folders of the repository with a file whose path, or name, is of this form."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()  # noqa: S603, a command of this test
    paths = [PurePosixPath("/", name) for name in names if re.fullmatch(rf"(.*/)?({pattern})", name)]
    return {str(path.parent) for path in paths}


def test_dependabot_watches_every_folder_that_pins_something() -> None:
    assert {update["package-ecosystem"]: set(folders(update)) for update in UPDATES} == {
        # It finds the workflows itself.
        "github-actions": {"/"},
        "pip": folders_with(PINS["pip"]),
        "docker": folders_with(PINS["docker"]),
    }


def test_there_are_such_folders() -> None:
    assert folders_with(PINS["pip"]) == {"/", "/benchmarks", "/deployment/locks"}
    assert folders_with(PINS["docker"]) == {"/.devcontainer"}


def test_the_file_follows_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.dependabot", str(PATH)]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, a command of this test
    assert outcome.returncode == 0, outcome.stdout
