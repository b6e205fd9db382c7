"""The trial of a package finds what would go wrong in Azure."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from deployment import trial, trial_server
from deployment.errors import TrialError
from deployment.trial import deliver, try_package
from shared.settings import Settings
from shared.telemetry_export import ENDPOINT, PROTOCOL, SWITCH
from tests.infra_files import settings_in_main, worker_settings
from tests.setting_names import setting_names

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parent.parent


# Make an environment without any package; say that two packages were installed.
MAKE_ENVIRONMENT = f"if [ $1 = venv ]; then mkdir -p $5/bin; ln -s {sys.executable} $5/bin/python; fi"
# The same, with packages of its own: what is written into them is not written into this test's.
MAKE_OWN_ENVIRONMENT = f"if [ $1 = venv ]; then {sys.executable} -m venv --without-pip $5; fi"
LIST_PACKAGES = "if [ $2 = freeze ]; then printf 'msgspec==1\\nsix==3\\n'; fi"


# The host or the partner: writes down what it was started with, and answers as both do.
SANDBOX = """
import http.server, json, os, sys

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        url = f"http://127.0.0.1:{self.server.server_port}/status"
        body = json.dumps({"statusQueryGetUri": url, "runtimeStatus": "Completed", "count": 1}).encode()
        self.send_response(202 if self.command == "POST" else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET

kind, *options = sys.argv[1:]
files = sorted(os.listdir(options[1])) if kind == "host" else []
with open(f"{kind}.json", "w") as file:
    json.dump([sys.prefix, files, os.environ.get("BUSINESS_API_URL")], file)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
print(f"{kind}: http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""


def try_with(project: Path, does: str, **files: str) -> None:
    """Try a package of these files ("shared/x.py" without its ending), with a uv that does this alone."""
    (project / ".python-version").write_text("3.13\n")
    uv = project / "uv"
    uv.write_text(f"#!/bin/sh\n{does}\n")
    uv.chmod(0o755)
    with zipfile.ZipFile(project / "app.zip", "w") as archive:
        archive.writestr("requirements.txt", files.pop("requirements", ""))
        for name, content in files.items():
            archive.writestr(f"{name}.py", content)
    try_package(project, project / "app.zip", str(uv))


def test_an_app_that_needs_more_than_its_requirements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match="No module named 'no_such_module_at_all'"):
        try_with(tmp_path, MAKE_ENVIRONMENT, function_app="import no_such_module_at_all\n")


def test_a_module_that_is_missing_from_the_package_is_found_although_nothing_imports_it(tmp_path: Path) -> None:
    (tmp_path / "shared" / "auth").mkdir(parents=True)
    packaged = dict.fromkeys(["function_app", "shared/__init__", "shared/auth/__init__"], "")
    for name in [*packaged, "shared/auth/entra"]:
        (tmp_path / f"{name}.py").touch()
    with pytest.raises(TrialError, match=r"No module named 'shared\.auth\.entra'"):
        try_with(tmp_path, MAKE_ENVIRONMENT, **packaged)


def test_a_package_that_leaves_a_version_open_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=r"leaves it open which version is installed: six==3$"):
        try_with(tmp_path, LIST_PACKAGES, requirements="msgspec==1 ; python_version > '3' --hash=m\nsix>=2\n")


def test_the_trial_runs_what_was_unpacked_with_what_its_requirements_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sandbox").mkdir()
    (tmp_path / "sandbox" / "__main__.py").write_text(SANDBOX)
    (tmp_path / "function_app.py").write_text("raise ValueError('the project, not the package')\n")
    log = tmp_path / "uv.log"
    packaged = {"function_app": "", "only_in_the_package": ""}

    try_with(tmp_path, f"echo $* >>{log}; {MAKE_OWN_ENVIRONMENT}", requirements="", **packaged)

    assert capsys.readouterr().out.endswith("delivered 'package-trial' exactly once\n")
    prefix, files, url = json.loads((tmp_path / "host.json").read_text())
    assert set(files) == {"function_app.py", "only_in_the_package.py", "requirements.txt"}
    assert (Path(prefix).name, url[:17]) == ("environment", "http://127.0.0.1:")
    assert json.loads((tmp_path / "partner.json").read_text()) == [sys.prefix, [], None]
    [of_the_app, of_the_platform] = [line.split() for line in log.read_text().splitlines() if " install " in line]
    app = Path(prefix).parent / "app"
    assert of_the_app[-3:] == ["--require-hashes", "--requirement", str(app / "requirements.txt")]
    assert of_the_platform[-len(trial.PLATFORM) :] == list(trial.PLATFORM)
    assert "--target" in of_the_platform
    # Nothing is left of it.
    assert not Path(prefix).parent.exists()


class _App(BaseHTTPRequestHandler):
    """Answers as the app and the partner do, with what the test put into `answers`."""

    answers: dict[str, tuple[int, dict[str, object]]]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status, content = self.answers[self.path]
        body = msgspec.json.encode(content)
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the name that the superclass gives it
        pass


MISSING: dict[str, object] = {"errors": [{"pointer": "#/city", "detail": "is missing"}]}


@pytest.fixture
def server() -> Iterator[str]:
    listener = ThreadingHTTPServer(("127.0.0.1", 0), _App)
    url = f"http://127.0.0.1:{listener.server_port}"
    _App.answers = {
        "/api/businesses": (202, {"statusQueryGetUri": f"{url}/status"}),
        "/status": (200, {"runtimeStatus": "Completed"}),
        "/sandbox/records": (200, {"count": 1}),
    }
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield url
    listener.shutdown()
    thread.join()
    listener.server_close()


def test_a_delivery_that_arrives_once_is_fine(server: str) -> None:
    deliver(server, server)


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        ("/api/businesses", (500, {}), "the app answered 500, not 202"),
        ("/api/businesses", (422, MISSING), "the record of sandbox/sample.json: /city is missing. Change it together"),
        ("/status", (200, {"runtimeStatus": "Failed", "output": "why"}), "the delivery ended as Failed: why"),
        ("/sandbox/records", (200, {"count": 2}), "the partner has 2 records, not 1"),
    ],
)
def test_a_delivery_that_goes_wrong_fails_the_trial(
    server: str, path: str, answer: tuple[int, dict[str, object]], problem: str
) -> None:
    _App.answers[path] = answer
    with pytest.raises(TrialError, match=re.escape(problem)):
        deliver(server, server)


def test_a_delivery_that_does_not_end_fails_the_trial(server: str) -> None:
    _App.answers["/status"] = (202, {"runtimeStatus": "Running"})
    with pytest.raises(TrialError, match=r"the delivery has not ended in 0\.2 s"):
        deliver(server, server, patience=0.2)


def test_the_settings_of_a_deployment_do_not_touch_the_trial() -> None:
    telemetry = [*worker_settings(), "APPLICATIONINSIGHTS_CONNECTION_STRING", ENDPOINT, PROTOCOL, SWITCH]
    deployment = dict.fromkeys([*setting_names(), *settings_in_main(), *telemetry], "key-vault")
    environ = trial.trial_environment(deployment | {"PATH": "kept"})
    assert environ == {"PATH": "kept"}
    environ |= trial.trial_settings("http://127.0.0.1:8081")
    assert Settings.from_environ(environ).api_url == "http://127.0.0.1:8081"


def test_the_platform_of_the_trial_is_pinned() -> None:
    pins = (PROJECT / "requirements-dev.txt").read_text()
    assert [name for name in trial.PLATFORM if not re.search(rf"^{name}==", pins, re.MULTILINE)] == []


def test_a_server_that_ends_at_once_fails_the_trial_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no port to be had')"]
    with (
        pytest.raises(TrialError, match=r"(?s)the sandbox's host ended with 1:.*no port to be had"),
        trial_server.server(command, tmp_path, tmp_path / "host.log", os.environ),
    ):
        pass


def test_a_server_that_does_not_listen_fails_the_trial(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(TrialError, match=r"the sandbox's host did not start in 0\.2 s"),
        trial_server.server(command, tmp_path, tmp_path / "host.log", os.environ, patience=0.2),
    ):
        pass


def test_a_server_that_does_not_end_is_killed() -> None:
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:  # noqa: S603, a command of this test
        assert process.stdout is not None
        process.stdout.readline()
        trial_server.end(process, 0.2)
        assert process.returncode == -signal.SIGKILL


def test_a_server_is_ended_when_it_is_no_longer_needed(tmp_path: Path) -> None:
    script = (
        "import socket, sys\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[2])))\n"
        "print(f'host: http://127.0.0.1:{listener.getsockname()[1]}', flush=True)\n"
        "listener.accept()\n"
        "listener.accept()\n"
    )
    with trial_server.server([sys.executable, "-c", script], tmp_path, tmp_path / "host.log", os.environ) as url:
        port = int(url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
