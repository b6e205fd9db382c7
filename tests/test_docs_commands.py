"""Every command in the documentation exists, or is marked as one that needs what is not here."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from tests.documentation import BLOCK, PAGES, blocks, each_page, inline_codes
from tests.documented_commands import COMMANDS, PROJECT, problem_of, words_of

if TYPE_CHECKING:
    from pathlib import Path

# A block of commands that need an account or a network says so in its first line.
MARK = re.compile(r"# Needs (Azure|GitHub|Azure and GitHub|a network)\.")
# What the reader has at hand (docs/operations.md), and what /etc/os-release sets.
VARIABLES = {"APP", "RESOURCE_GROUP", "FUNCTION_KEY", "DURABLE_KEY", "INSTANCE", "ID", "VERSION_ID"}
# What a block may be. One that is to be typed is "sh"; "text" is output, or a drawing.
LANGUAGES = {"sh", "json", "mermaid", "python", "text"}


def lines_of_shell(page: Path, *, is_marked: bool = False) -> list[str]:
    """Give each command line of the page's blocks that need nothing, or are marked; continued lines as one."""
    found: list[str] = []
    for language, text in blocks(page):
        if language == "sh" and bool(MARK.match(text)) is is_marked:
            found += whole_lines(text)
    return found


def whole_lines(block: str) -> list[str]:
    """Give the lines of a block without its comments; those that a backslash or a quotation joins as one."""
    found: list[str] = []
    pending = ""
    for line in block.replace("\\\n", " ").splitlines():
        pending = f"{pending}\n{line}".strip()
        with contextlib.suppress(ValueError):
            if words_of(pending):
                found.append(pending)
            pending = ""
    assert pending == "", f"a quotation does not end: {pending}"
    return found


def inline_commands(page: Path) -> list[str]:
    """Give the commands of sentences and tables: known ones, what has an option, and the project's own scripts."""
    return [code for code in inline_codes(page) if _is_command(code)]


def _is_command(code: str) -> bool:
    first, _, rest = code.partition(" ")
    # A word before an option is meant to be a command, known or not.
    is_called = bool(re.search(r"(^| )--?[a-zA-Z]", rest)) and re.fullmatch(r"[a-z./][\w./-]*", first) is not None
    return (first in COMMANDS and bool(rest)) or is_called or code.startswith(("scripts/", ".ci/"))


def test_there_are_pages_and_they_have_commands() -> None:
    names = {str(page.relative_to(PROJECT)) for page in PAGES}
    assert {"README.md", "SECURITY.md", "docs/configuration.md", "docs/security.md", "infra/README.md"} <= names
    assert "make demo" in [line.partition("#")[0].strip() for line in lines_of_shell(PROJECT / "README.md")]


@each_page
def test_every_command_of_a_block_exists_or_the_block_is_marked(page: Path) -> None:
    assert {line: problem for line in lines_of_shell(page) if (problem := problem_of(line))} == {}


@each_page
def test_every_command_in_a_sentence_exists(page: Path) -> None:
    # The page says around them what they need.
    assert {code: problem for code in inline_commands(page) if (problem := problem_of(code, is_marked=True))} == {}


@each_page
def test_every_command_of_a_marked_block_exists(page: Path) -> None:
    lines = lines_of_shell(page, is_marked=True)
    assert {line: problem for line in lines if (problem := problem_of(line, is_marked=True))} == {}


@each_page
def test_every_variable_of_a_block_is_set_in_it_or_is_the_reader_s(page: Path) -> None:
    for language, text in blocks(page):
        if language == "sh":
            given = set(re.findall(r"^\s*(?:for )?(\w+)(?:=| in )", text, re.MULTILINE))
            assert set(re.findall(r"\$\{?(\w+)", text)) <= given | VARIABLES, text


@each_page
def test_every_block_says_what_it_is(page: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", page.read_text(), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert {language for language in fences[::2] if language not in LANGUAGES} == set()
    assert [text for language, text in blocks(page) if language == "text" and text.split(" ")[0] in COMMANDS] == []


@each_page
def test_every_marked_block_is_shell_that_can_be_read(page: Path) -> None:
    for language, text in blocks(page):
        if MARK.match(text):
            assert language == "sh"
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


def test_the_makefile_names_a_command_that_runs_in_a_plain_shell(tmp_path: Path) -> None:
    for name in ("Makefile", "local.settings.json.example"):
        shutil.copy(PROJECT / name, tmp_path / name)
    command = ["make", "--no-print-directory", "local.settings.json"]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S603, a command of this test
    [named] = re.findall(r"\((.*)\)", outcome.stdout)
    assert named.startswith(".venv/bin/python -m sandbox partner ")
    assert problem_of(named) is None


def test_every_parameter_of_the_deployment_is_in_its_documentation() -> None:
    parameters = (PROJECT / "infra" / "main.parameters.json").read_text()
    documentation = (PROJECT / "infra" / "README.md").read_text() + (PROJECT / "docs" / "configuration.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", documentation, re.MULTILINE))
    assert set(re.findall(r"\$\{(\w+)", parameters)) - named == set()


def test_every_query_is_in_the_documentation() -> None:
    documentation = (PROJECT / "infra" / "README.md").read_text()
    queries = {path.name for path in (PROJECT / "infra" / "queries").glob("*.kql")}
    assert set(re.findall(r"\(queries/([\w-]+\.kql)\)", documentation)) == queries
