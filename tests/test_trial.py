"""The trial of a package finds what would go wrong in Azure."""

from __future__ import annotations

import re
import socket
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from deployment import trial
from deployment.errors import TrialError
from deployment.trial import deliver, try_package
from shared.settings import Settings
from tests.setting_names import setting_names

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parent.parent


def test_an_app_that_needs_more_than_its_requirements_is_refused(tmp_path: Path) -> None:
    project, package = tmp_path, tmp_path / "app.zip"
    (project / ".python-version").write_text("3.13\n")
    uv = tmp_path / "uv"
    # Stands in for uv: makes an environment without any package, and fails to import what the app imports.
    uv.write_text(
        f"#!/bin/sh\nif [ $1 = venv ]; then mkdir -p $5/bin; ln -s {sys.executable} $5/bin/python; fi\n",
    )
    uv.chmod(0o755)
    with zipfile.ZipFile(package, "w") as archive:
        archive.writestr("function_app.py", "import no_such_module_at_all\n")
        archive.writestr("requirements.txt", "")
    with pytest.raises(TrialError, match="No module named 'no_such_module_at_all'"):
        try_package(project, package, str(uv))


def test_a_package_that_leaves_a_version_open_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".python-version").write_text("3.13\n")
    uv = tmp_path / "uv"
    # Stands in for uv: says that two packages were installed.
    uv.write_text("#!/bin/sh\nif [ $2 = freeze ]; then printf 'msgspec==1\\nsix==3\\n'; fi\n")
    uv.chmod(0o755)
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("requirements.txt", "msgspec==1 ; python_version > '3' --hash=m\nsix>=2\n")
    with pytest.raises(TrialError, match=r"leaves it open which version is installed: six==3$"):
        try_package(tmp_path, tmp_path / "app.zip", str(uv))


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
    deployment = dict.fromkeys(setting_names(), "key-vault") | {"PATH": "kept"}
    environ = {**deployment, **trial.trial_settings("http://127.0.0.1:8081", deployment)}
    assert Settings.from_environ(environ).api_url == "http://127.0.0.1:8081"
    assert environ["PATH"] == "kept"


def test_the_platform_of_the_trial_is_pinned() -> None:
    pins = (PROJECT / "requirements-dev.txt").read_text()
    assert [name for name in trial.PLATFORM if not re.search(rf"^{name}==", pins, re.MULTILINE)] == []


def test_a_server_that_ends_at_once_fails_the_trial_with_its_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no port to be had')"]
    with (
        pytest.raises(TrialError, match=r"(?s)the sandbox's host ended with 1:.*no port to be had"),
        trial.server(command, tmp_path, tmp_path / "host.log", {}),
    ):
        pass


def test_a_server_that_does_not_listen_fails_the_trial(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(TrialError, match=r"the sandbox's host did not start in 0\.2 s"),
        trial.server(command, tmp_path, tmp_path / "host.log", {}, patience=0.2),
    ):
        pass


def test_a_server_is_ended_when_it_is_no_longer_needed(tmp_path: Path) -> None:
    script = (
        "import socket, sys\n"
        "listener = socket.create_server(('127.0.0.1', int(sys.argv[2])))\n"
        "print(f'host: http://127.0.0.1:{listener.getsockname()[1]}', flush=True)\n"
        "listener.accept()\n"
        "listener.accept()\n"
    )
    with trial.server([sys.executable, "-c", script], tmp_path, tmp_path / "host.log", {}) as url:
        port = int(url.rpartition(":")[2])
        socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
