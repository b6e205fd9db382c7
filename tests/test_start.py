"""`make start`: what scripts/start does with the Core Tools and Azurite, for which commands of the tests stand in."""

from __future__ import annotations

import http.server
import json
import os
import select
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.resources import partners_of
from shared.partner import RESOURCES
from shared.settings.app_settings import settings_problems
from tests.fakes.free_port import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parent.parent
FUNC = """#!/bin/sh
echo "func $* in $PWD with $VIRTUAL_ENV"
exit 7
"""
# Answers as Azurite does until it is ended; its process id is in a file.
AZURITE = f"""#!{sys.executable}
import http.server, os, pathlib, sys
class Blob(http.server.BaseHTTPRequestHandler):
    server_version, sys_version = "Azurite-Blob/3.37.0", ""
    def do_GET(self): self.send_error(400)
    def log_message(self, *words): pass
port = int(sys.argv[sys.argv.index("--blobPort") + 1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Blob)
pathlib.Path("azurite.pid").write_text(str(os.getpid()))
server.serve_forever()
"""
# Runs until it is ended, and never listens.
SILENT_AZURITE = "#!/bin/sh\necho $$ >azurite.pid\nexec sleep 60\n"
BROKEN_AZURITE = "#!/bin/sh\nexit 1\n"


class Answering(http.server.BaseHTTPRequestHandler):
    """Something that has Azurite's port."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class RunningAzurite(Answering):
    """An Azurite that somebody else has started."""

    server_version = "Azurite-Blob/3.37.0"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/start", "Makefile"):
        shutil.copy(PROJECT / name, tmp_path / name)
    for name, place in ((".venv", sys.prefix), ("sandbox", PROJECT / "sandbox"), ("shared", PROJECT / "shared")):
        (tmp_path / name).symlink_to(place)
    # Only what the script and make themselves need: no Core Tools of this machine.
    (tmp_path / "bin").mkdir()
    for name in ("sh", "make", "dirname", "sleep", "awk", "getconf"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / "bin" / name).symlink_to(found)
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    return tmp_path


@pytest.fixture
def port() -> int:
    return free_port()


def command(project: Path, name: str, script: str) -> None:
    path = project / "bin" / name
    path.write_text(script)
    path.chmod(0o755)


def start(project: Path, port: int, *arguments: str, tries: int = 300) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": str(project / "bin"), "AZURITE_BLOB_PORT": str(port), "AZURITE_TRIES": str(tries)}
    script = [str(project / "scripts" / "start"), *arguments]
    return subprocess.run(script, env=environ, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603, the project's own script


@pytest.fixture
def listener(request: pytest.FixtureRequest, port: int) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), request.param) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("there", [[], ["func"], ["azurite"]])
def test_what_is_missing_is_named_and_what_runs_without(project: Path, port: int, there: list[str]) -> None:
    for name in there:
        command(project, name, "#!/bin/sh\n")

    outcome = start(project, port)
    assert outcome.returncode == 1
    named = [name for name in ("func", "azurite") if f"\n  {name} " in outcome.stderr]
    assert named == [name for name in ("func", "azurite") if name not in there]
    assert "make demo" in outcome.stderr
    assert not (project / "local.settings.json").exists()


def test_func_runs_with_azurite_the_settings_and_the_environment_and_its_exit_code_is_kept(
    project: Path, port: int
) -> None:
    command(project, "func", FUNC)
    command(project, "azurite", AZURITE)

    outcome = start(project, port, "--port", "7072")
    assert (outcome.returncode, outcome.stderr) == (7, "")
    assert f"func start --port 7072 in {project} with {project}/.venv\n" in outcome.stdout
    settings = json.loads((project / "local.settings.json").read_text())["Values"]
    assert settings["FUNCTIONS_WORKER_RUNTIME"] == "python"
    assert settings_problems(settings, [partner.name for partner in partners_of(RESOURCES)]) == []
    assert has_ended(int((project / "azurite.pid").read_text()))


def test_settings_that_are_there_stay_as_they_are(project: Path, port: int) -> None:
    command(project, "func", FUNC)
    command(project, "azurite", AZURITE)
    (project / "local.settings.json").write_text("mine")

    assert start(project, port).returncode == 7
    assert (project / "local.settings.json").read_text() == "mine"


def test_an_azurite_that_ends_at_its_start_is_told_and_func_not_run(project: Path, port: int) -> None:
    command(project, "func", FUNC)
    command(project, "azurite", BROKEN_AZURITE)

    outcome = start(project, port)
    assert outcome.returncode == 1
    assert f"Azurite has ended at its start; are its ports {port}, 10001 and 10002 free?" in outcome.stderr
    assert "func start" not in outcome.stdout


def test_an_azurite_that_never_answers_is_told_and_ended(project: Path, port: int) -> None:
    command(project, "func", FUNC)
    command(project, "azurite", SILENT_AZURITE)

    outcome = start(project, port, tries=2)
    assert outcome.returncode == 1
    assert outcome.stderr == f"make start: Azurite runs, but has not answered on its port {port}.\n"
    assert "func start" not in outcome.stdout
    assert has_ended(int((project / "azurite.pid").read_text()))


@pytest.mark.usefixtures("listener")
@pytest.mark.parametrize("listener", [Answering], indirect=True)
def test_a_port_that_something_else_has_is_told_and_func_not_run(project: Path, port: int) -> None:
    command(project, "func", FUNC)
    command(project, "azurite", AZURITE)

    outcome = start(project, port)
    assert outcome.returncode == 1
    assert f"something that is not Azurite has port {port}" in outcome.stderr
    assert "func start" not in outcome.stdout


@pytest.mark.usefixtures("listener")
@pytest.mark.parametrize("listener", [RunningAzurite], indirect=True)
def test_an_azurite_that_runs_already_is_used(project: Path, port: int) -> None:
    command(project, "func", FUNC)
    command(project, "azurite", BROKEN_AZURITE)

    outcome = start(project, port)
    assert (outcome.returncode, outcome.stderr) == (7, "")
    assert f"Azurite runs already on port {port}" in outcome.stdout


def has_ended(pid: int) -> bool:
    """Wait for the end of a process that is nobody's child any more."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 30)[0])
    finally:
        os.close(descriptor)
