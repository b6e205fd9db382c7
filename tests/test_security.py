"""Nothing that is deployed is unsafe in the eyes of bandit, and git ignores what is secret."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest
from pathspec import GitIgnoreSpec

from tests.make_recipes import recipe

PROJECT = Path(__file__).parent.parent


def bandit(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bandit", "--quiet", "--recursive", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603, a command of this test


def test_bandit_finds_nothing_in_the_app() -> None:
    outcome = bandit(PROJECT / "function_app.py", PROJECT / "shared")
    assert outcome.returncode == 0, outcome.stdout


def test_bandit_would_find_something(tmp_path: Path) -> None:
    (tmp_path / "unsafe.py").write_text("import subprocess\nsubprocess.run('ls', shell=True)\n")
    assert bandit(tmp_path).returncode == 1


def test_the_audit_looks_up_all_that_is_pinned_and_fails_where_it_cannot() -> None:
    audits = [line.split("pip-audit==")[1].split() for line in recipe("audit") if "pip-audit" in line]
    assert [words[1:4] for words in audits] == [
        ["--strict", "--disable-pip", "--require-hashes"],
        ["--strict", "--disable-pip", "--no-deps"],
    ]
    read = [after for words in audits for word, after in itertools.pairwise(words) if word == "--requirement"]
    locks = {f"deployment/locks/{path.name}" for path in (PROJECT / "deployment" / "locks").iterdir()}
    assert set(read) == {*locks, "requirements-dev.txt", "benchmarks/requirements.txt"}


@pytest.mark.parametrize(
    "name",
    [
        *("local.settings.json", ".env", ".env.local", ".azure/relay/.env", ".azure/relay/config.json"),
        *("client.pem", "shared/client.key", "certificate.pfx"),
    ],
)
def test_git_ignores_secrets(name: str) -> None:
    ignored = GitIgnoreSpec.from_lines((PROJECT / ".gitignore").read_text().splitlines())
    assert ignored.match_file(name)
    assert not ignored.match_file("shared/settings.py")
