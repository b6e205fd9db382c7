"""What is wrong with a command that the documentation shows: a name, a subcommand or an option that does not exist."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

from tests.foreign_commands import NAMES, problem_of_foreign

PROJECT = Path(__file__).parent.parent
# What every shell has, and git, without which nobody has the project.
BASIC = {"cat", "cp", "export", "cd", "git", "read", "for", "done", "."}
# The environment of the project: a shell in which nothing is activated has no packages under another name.
PYTHON = ".venv/bin/python"
COMMANDS = {"make", "curl", "uv", "pip", "npx", "python", "python3", "sudo", PYTHON} | BASIC | NAMES
CURL_OPTIONS = {"-X", "-H", "-d", "--fail", "--location", "--remote-name"}
# Of the shell's own: what a command prints.
SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
# Options of uv and the Core Tools, whose help this module does not read.
FREE_ARGUMENTS = {"start", "pin"}
OPERATORS = {"|", "||", "&&", ";", "&"}
REDIRECTIONS = {">", ">>", "<"}


def problem_of(line: str, *, is_marked: bool = False) -> str | None:
    """Say what is wrong with a command line, None where nothing is; `is_marked` may need what is not here."""
    while found := SUBSTITUTION.search(line):
        if problem := problem_of(found[1], is_marked=is_marked):
            return problem
        line = line.replace(found[0], "substituted")
    commands: list[list[str]] = [[]]
    is_target = False
    for word in words_of(line):
        if word in OPERATORS:
            commands.append([])
        elif word in REDIRECTIONS or is_target:
            is_target = word in REDIRECTIONS
        elif commands[-1] or not re.fullmatch(r"\w+=.*|do", word, re.DOTALL):
            commands[-1].append(word)
    problems = (_problem_of_command(*words, is_marked=is_marked) for words in commands if words)
    return next((problem for problem in problems if problem), None)


def words_of(line: str) -> list[str]:
    """Split a line as a shell does.

    Raises:
        ValueError: a quotation goes on in the next line.
    """
    reader = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    reader.whitespace_split = True
    reader.commenters = "#"
    return list(reader)


def _problem_of_command(command: str, *words: str, is_marked: bool) -> str | None:
    if command == "sudo" and words:
        return _problem_of_command(*words, is_marked=is_marked)
    if command == "curl":
        return _problem_of_curl(words, is_marked=is_marked)
    if command in NAMES:
        problem = problem_of_foreign([command, *words])
        return problem or (None if is_marked else f"{command} is not here: mark the block")
    return _problem_of_own_command(command, words)


def _problem_of_own_command(command: str, words: tuple[str, ...]) -> str | None:
    if command == "make":
        return _problem_of_make(words)
    if command == PYTHON:
        return _problem_of_python(words)
    if command in {"python", "python3"}:
        return f"{command} may be one without the packages: write {PYTHON}"
    is_known = command in BASIC or ("/" in command and (PROJECT / command).is_file())
    return None if is_known else f"{command} is nothing that this project or its checks know"


def make_targets() -> set[str]:
    """Give the targets that `make help` lists, and those that are files."""
    return set(re.findall(r"^([a-z][\w.-]*):.*## ", _makefile(), re.MULTILINE))


def _problem_of_make(words: tuple[str, ...]) -> str | None:
    targets = [word for word in words if "=" not in word]
    if unknown := set(targets) - make_targets():
        return f"make has no target {', '.join(unknown)}"
    arguments = [word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")]
    for target in set(targets) - FREE_ARGUMENTS:
        recipe = re.search(rf"^{re.escape(target)}:.*\n((\t.*\n)+)", _makefile(), re.MULTILINE)
        module = re.search(r"\$\(PYTHON\) -m (\w+(?: [a-z]+)?)(?= .*\$\(ARGS\))", recipe[1]) if recipe else None
        for text in arguments:
            if module is None:
                return f"make {target} takes no ARGS"
            if problem := _problem_of_python(("-m", *module[1].split(), *shlex.split(text))):
                return problem
    return None


def _problem_of_python(words: tuple[str, ...]) -> str | None:
    if words[:1] == ("-c",):
        compile(words[1], "<the documentation>", "exec")
        return None
    if words[:1] == ("-X",):
        return None if words[1] == "importtime" else f"-X {words[1]} is not known"
    if words[:1] != ("-m",):
        return None if words and (PROJECT / words[0]).is_file() else f"there is no {' '.join(words[:1])}"
    module, *rest = words[1:]
    if importlib.util.find_spec(module) is None:
        return f"there is no module {module}"
    command = [word for word in rest[:1] if re.fullmatch(r"[a-z]+", word)]
    text = _help(module, *command)
    if text is None:
        return f"{module} has no command {' '.join(command)}"
    return _problem_of_arguments(" ".join([module, *command]), rest[len(command) :], text)


def _problem_of_arguments(name: str, rest: list[str], text: str) -> str | None:
    """Say what is wrong with the arguments of a command whose --help gives `text`."""
    options = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if unknown := options - set(re.findall(r"--[a-z][\w-]*", text)):
        return f"{name} has no option {', '.join(sorted(unknown))}"
    with_value = set(re.findall(r"(--?[a-zA-Z][\w-]*)[ =][A-Z{]", text))
    pairs = itertools.pairwise(["", *rest])
    more = [word for before, word in pairs if not word.startswith("-") and before not in with_value]
    return f"{name} takes no {more[0]}" if more and "positional arguments:" not in text else None


@cache
def _help(*command: str) -> str | None:
    """Give what a module says with --help, None where it refuses its command."""
    python = PROJECT / PYTHON
    # On a machine that tests another Python there may be no environment of that name.
    line = [str(python) if python.exists() else sys.executable, "-m", *command, "--help"]
    outcome = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603, a module of this project
    return outcome.stdout if outcome.returncode == 0 else None


def _problem_of_curl(words: tuple[str, ...], *, is_marked: bool) -> str | None:
    if unknown := {word for word in words if word.startswith("-")} - CURL_OPTIONS:
        return f"curl is not known to have {', '.join(sorted(unknown))}"
    addresses = [word for word in words if "://" in word]
    is_local = all(re.match(r"http://(127\.0\.0\.1|localhost)[:/]", address) for address in addresses)
    return None if is_marked or (addresses and is_local) else "curl goes to another machine: mark the block"


@cache
def _makefile() -> str:
    return (PROJECT / "Makefile").read_text()
