"""What a target of the Makefile would run."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def recipe(target: str, *variables: str) -> list[str]:
    """Give the commands of a target, each as one line, for which the environment is there and uv is `uv`."""
    command = ["make", "--dry-run", "--no-print-directory", "--old-file=setup", "UV=uv", target, *variables]
    outcome = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)  # noqa: S603, a command of this module
    return [" ".join(line.split()) for line in outcome.stdout.replace("\\\n", " ").splitlines()]
