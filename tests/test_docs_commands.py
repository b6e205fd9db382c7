"""Every command in the documentation exists, or is marked as one that needs what is not here."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import textwrap
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
PAGES = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md"), PROJECT / "infra" / "README.md"])
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# A block of commands that need an account or a network says so in its first line.
MARK = re.compile(r"# Needs (Azure|GitHub|Azure and GitHub|a network)\.")
# Commands that a sentence may name without a mark: the page says around them what they need.
NEED_MORE = {"az", "azd", "func", "gh", "npm", "docker"}
SHELLS = {"sh", "bash", "console", "shell"}
# First words that make a line of a block without a language a command.
COMMANDS = {"make", "python", "curl", "uv", "pip", "git", "redis-server"} | NEED_MORE
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))


def blocks(page: Path) -> list[tuple[str, str]]:
    """Give the language and the text of each code block."""
    return [(language, textwrap.dedent(text)) for language, text in BLOCK.findall(page.read_text())]


def lines_of_shell(page: Path) -> list[str]:
    """Give each command line of the page's blocks that need nothing, without comments, continued lines as one."""
    found: list[str] = []
    for language, text in blocks(page):
        if MARK.match(text):
            continue
        joined = text.replace("\\\n", " ")
        commands = [line.removeprefix("$ ").strip() for line in joined.splitlines()]
        if language in SHELLS:
            found += [line for line in commands if line and not line.startswith("#")]
        elif language == "":
            found += [line for line in commands if line.split(" ")[0] in COMMANDS]
    return found


def inline_commands(page: Path) -> list[str]:
    """Give the commands that stand in sentences and tables."""
    text = BLOCK.sub("", page.read_text())
    return [code for code in re.findall(r"`([^`\n]+)`", text) if re.match(r"(make|python -m|python -c) ", code)]


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def problem_of(line: str) -> str | None:
    """Say what is wrong with a command line, None where nothing is."""
    command, *words = [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word)]
    if command == "make":
        unknown = set(words) - make_targets()
        return f"make has no target {', '.join(unknown)}" if unknown else None
    if command in {"python", "python3", ".venv/bin/python"}:
        return problem_of_python(words)
    if command == "curl":
        addresses = [word for word in words if "://" in word]
        is_local = all(re.match(r"http://(127\.0\.0\.1|localhost)[:/]", address) for address in addresses)
        return None if addresses and is_local else "curl goes to another machine: mark the block"
    if command in NEED_MORE:
        return f"{command} is not here: mark the block"
    is_known = (PROJECT / command).is_file() or command in {"cp", "export", "cd", "git"}
    return None if is_known else f"{command} is nothing that this project or its checks know"


def problem_of_python(words: list[str]) -> str | None:
    option, operand, *_ = words
    if option == "-c":
        compile(operand, "<the documentation>", "exec")
        return None
    return None if option == "-m" and importlib.util.find_spec(operand) else f"there is no module {operand}"


def test_there_are_pages_and_they_have_commands() -> None:
    names = {str(page.relative_to(PROJECT)) for page in PAGES}
    assert {"README.md", "SECURITY.md", "docs/configuration.md", "docs/security.md", "infra/README.md"} <= names
    assert "make demo" in [line.partition("#")[0].strip() for line in lines_of_shell(PROJECT / "README.md")]


@each_page
def test_every_command_of_a_block_exists_or_the_block_is_marked(page: Path) -> None:
    assert {line: problem for line in lines_of_shell(page) if (problem := problem_of(line))} == {}


@each_page
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    assert {code: problem for code in inline_commands(page) if (problem := problem_of(code))} == {}


@each_page
def test_every_marked_block_is_shell_that_can_be_read(page: Path) -> None:
    for language, text in blocks(page):
        if MARK.match(text):
            assert language in SHELLS
            checked = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, check=False)  # noqa: S607, the shell
            assert checked.returncode == 0, checked.stderr


@each_page
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|mailto:)([^)#\s]*)(#[^)\s]*)?\)", BLOCK.sub("", page.read_text()))
    broken = [target for target, _ in links if target and not (page.parent / target).exists()]
    assert broken == []


@each_page
def test_every_link_to_a_heading_leads_to_one(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)", page.read_text()):
        other = (page.parent / target) if target else page
        headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", other.read_text()), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in anchors, f"{target}#{anchor}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("make nonsense", "make has no target nonsense"),
        ("python -m nonsense", "there is no module nonsense"),
        ("curl https://elsewhere.example", "curl goes to another machine: mark the block"),
        ("azd up", "azd is not here: mark the block"),
        ("frobnicate", "frobnicate is nothing that this project or its checks know"),
        ("make demo ARGS=--keep  # a remark", None),
        ("PORT=1 python -m sandbox demo", None),
        ("curl http://127.0.0.1:7071/api/health", None),
    ],
)
def test_the_check_tells_what_exists_from_what_does_not(line: str, problem: str | None) -> None:
    assert problem_of(line) == problem


def test_every_parameter_of_the_deployment_is_in_its_documentation() -> None:
    parameters = (PROJECT / "infra" / "main.parameters.json").read_text()
    documentation = (PROJECT / "infra" / "README.md").read_text() + (PROJECT / "docs" / "configuration.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", documentation, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", parameters)) - named == set()


def test_every_query_is_in_the_documentation() -> None:
    documentation = (PROJECT / "infra" / "README.md").read_text()
    queries = {path.name for path in (PROJECT / "infra" / "queries").glob("*.kql")}
    assert set(re.findall(r"\(queries/([\w-]+\.kql)\)", documentation)) == queries
