"""Every command in a ```sh block of the documentation works, or the block says ```sh azure or ```sh no-test.

The blocks of a page run in their order, in a copy of the project, against a partner and an app of their own. `make` is
only asked what it would do, because CI runs its targets.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.end_to_end.conftest import StartStage

pytestmark = pytest.mark.long

PROJECT = Path(__file__).parents[2]
# Where the documentation says that they listen.
HOST, PARTNER = "http://127.0.0.1:7071", "http://127.0.0.1:8081"
# A fence, what follows "sh" in it, and the text of the block.
BLOCK = re.compile(r"^( *)```sh *([\w-]*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
# Files that tools make.
MADE = shutil.ignore_patterns(".git", ".*_cache", ".venv*", ".tools", ".examples", ".hypothesis", "__pycache__", "dist")
COMMANDS = """
relay() { python -m relay "$@"; }
make() {
  for word in "$@"; do [[ $word != EXAMPLE=* ]] || python scripts/stage-example "${word#EXAMPLE=}"; done
  command make --dry-run "$@" >/dev/null
}
curl() { command curl --fail-with-body --silent --show-error "$@"; }
"""


def blocks(page: Path) -> list[str]:
    """Return the blocks of a page that are to be run."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [textwrap.dedent(text) for _, mark, text in found if mark not in {"azure", "no-test"}]


FOLDERS = ("docs", "examples", "infra")
ALL_PAGES = sorted([*PROJECT.glob("*.md"), *(page for name in FOLDERS for page in (PROJECT / name).rglob("*.md"))])
PAGES = [page for page in ALL_PAGES if blocks(page)]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the project, with a link to its environment."""
    project = Path(shutil.copytree(PROJECT, tmp_path / "project", ignore=MADE))
    (project / ".venv").symlink_to(PROJECT / ".venv")
    return project


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
async def test_documented_commands_work(page: Path, copy: Path, start: StartStage) -> None:
    addresses = {HOST: "", PARTNER: ""}
    if any(word in block for block in blocks(page) for word in (HOST, PARTNER, "relay ")):
        stage = start()
        addresses = {HOST: stage.host.url, PARTNER: stage.partner.url}
    path = f"{copy / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "RELAY_URL": addresses[HOST], "HOME": str(copy)}
    for block in blocks(page):
        script = block
        for documented, actual in addresses.items():
            script = script.replace(documented, actual)
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", COMMANDS + script),
            cwd=copy,
            env=environ,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await shell.communicate()
        assert shell.returncode == 0, f"{block}\n{output.decode()}"
