"""The GitHub workflows, as the tests of them share them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

PROJECT = Path(__file__).parent.parent
FOLDER = PROJECT / ".github" / "workflows"
CI, DEPLOY = FOLDER / "ci.yml", FOLDER / "deploy.yml"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))
each_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: str(path.name))


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = YAML(typ="safe").load(path)
    return content


def jobs(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = read(path)["jobs"]
    return found


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in jobs(path).values() for step in job["steps"]]


def scripts(path: Path) -> str:
    return "\n".join(step["run"] for step in steps(path) if "run" in step)


def run_of(job: dict[str, Any]) -> list[str]:
    """Give what a job does: the lines of its scripts and the names of its actions, in order."""
    found: list[str] = []
    for step in job["steps"]:
        lines = step.get("run", "").replace("\\\n", " ").splitlines()
        found += [" ".join(line.split()) for line in lines] or [step["uses"].partition("@")[0]]
    return found


def step(job: dict[str, Any], name: str) -> dict[str, Any]:
    """Give the step of a job with this name, or with an action of this name."""
    [found] = [each for each in job["steps"] if name in {each.get("name"), each.get("uses", "").partition("@")[0]}]
    result: dict[str, Any] = found
    return result
