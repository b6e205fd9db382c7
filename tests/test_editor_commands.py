"""What the files for editors run exists: tasks, launch configurations, and what a new devcontainer does first."""

from __future__ import annotations

import json
import shlex
from typing import Any

from tests.documented_commands import PROJECT, PYTHON, problem_of


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((PROJECT / name).read_text())
    return content


def commands_of_the_editor() -> list[str]:
    """Give what the tasks, the launch configurations and the container run, each as one types it."""
    # The type of a task of the Core Tools is their command.
    tasks = [
        f"{'func ' if task['type'] == 'func' else ''}{task['command']}" for task in read(".vscode/tasks.json")["tasks"]
    ]
    launched = [each for each in read(".vscode/launch.json")["configurations"] if each["request"] == "launch"]
    modules = [shlex.join([PYTHON, "-m", each["module"], *each["args"]]) for each in launched]
    return [*tasks, *modules, read(".devcontainer/devcontainer.json")["postCreateCommand"]]


def test_everything_that_the_editor_runs_exists() -> None:
    commands = commands_of_the_editor()
    assert {"make setup", "make local.settings.json", f"{PYTHON} -m sandbox up", "func host start"} <= set(commands)
    assert {each: problem for each in commands if (problem := problem_of(each, is_marked=True))} == {}
