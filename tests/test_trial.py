"""The trial of a package finds what would go wrong in Azure. `make test-package` runs it with the sandbox."""

from __future__ import annotations

import json
import re
import sys
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployment import trial
from deployment.errors import TrialError
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT = Path(__file__).parent.parent
# Make an environment without any package; say that two packages were installed.
MAKE_ENVIRONMENT = f"if [ $1 = venv ]; then mkdir -p $5/bin; ln -s {sys.executable} $5/bin/python; fi"
LIST_PACKAGES = "if [ $2 = freeze ]; then printf 'msgspec==1\\nsix==3\\n'; fi"


def try_with(app: Path, does: str, **files: str) -> None:
    """Try a package of these files ("shared/x" without its ending), with a uv that does this alone."""
    uv = app / "uv"
    uv.write_text(f"#!/bin/sh\n{does}\n")
    uv.chmod(0o755)
    with zipfile.ZipFile(app / "app.zip", "w") as archive:
        archive.writestr("requirements.txt", files.pop("requirements", ""))
        for name, content in files.items():
            archive.writestr(f"{name}.py", content)
    trial.try_package(app, app / "app.zip", str(uv), [PARCEL])


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


@dataclass
class App:
    """The app and the partners on a socket: each path has its answer, and what was posted to it is kept."""

    url: str = ""
    lines: list[str] = field(default_factory=lambda: ["the host's last words"])
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    posted: dict[str, Any] = field(default_factory=dict)


@contextmanager
def serving(app: App) -> Iterator[App]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            path = self.path.partition("?")[0]
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            if body:
                app.posted[path] = json.loads(body)
            status, content = app.answers[path]
            answer = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002, the name that the superclass gives it
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    app.url = f"http://127.0.0.1:{listener.server_port}"
    accepted = (202, {"statusQueryGetUri": f"{app.url}/status"})
    delivered = {"resource": "Parcel", "recordId": "P-1", "state": "delivered"}
    app.answers = {
        "/api/parcels": accepted,
        "/api/parcels/batch": accepted,
        "/status": (200, delivered),
        "/sandbox/records": (200, {"ids": {"Parcel": {"P-1": 1, "P-2": 1}}}),
        "/sandbox/state": (200, {"partners": {"CARRIER_API": {"calls": 4, "tokenRequests": 1, "refused": 0}}}),
    } | app.answers
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield app
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()


def test_every_route_delivers_a_record() -> None:
    with serving(App()) as app:
        trial.deliver(app, app.url, [PARCEL])

    assert app.posted == {
        "/api/parcels": {"parcelId": "P-1", "weight": 1.5},
        "/api/parcels/batch": [{"parcelId": "P-2", "weight": 1.5}],
    }


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        ("/api/parcels", (500, {}), "/api/parcels answered 500"),
        ("/api/parcels/batch", (404, {"title": "Not Found"}), "/api/parcels/batch answered 404: Not Found"),
        ("/status", (200, {"resource": "Parcel", "state": "failed", "reason": "why"}), "Parcel failed - why"),
        ("/sandbox/records", (200, {"ids": {"Parcel": {"P-1": 2, "P-2": 1}}}), '{"P-1": 2}'),
    ],
)
def test_a_delivery_that_goes_wrong_fails_the_trial(path: str, answer: tuple[int, Any], problem: str) -> None:
    with (
        serving(App(answers={path: answer})) as app,
        pytest.raises(TrialError, match=re.escape(problem)) as caught,
    ):
        trial.deliver(app, app.url, [PARCEL])

    assert str(caught.value).endswith("The host's last lines:\nthe host's last words")


def test_the_settings_of_a_deployment_do_not_touch_the_trial() -> None:
    deployment = (
        "CARRIER_API_URL",
        "CARRIER_API_MANAGED_IDENTITY",
        "DELIVERY_DEADLINE",
        "TOKEN_STORE_URL",
        "APPLICATIONINSIGHTS_CONNECTION_STRING",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "AzureWebJobsStorage",
        "AzureFunctionsJobHost__logging__logLevel__default",
        "DURABLE_TASK_SCHEDULER_CONNECTION_STRING",
    )

    assert trial.deployment_settings(dict.fromkeys([*deployment, "PATH"], "x"), [PARCEL]) == list(deployment)


def test_the_platform_of_the_trial_is_pinned() -> None:
    pins = (PROJECT / "requirements-dev.txt").read_text()
    assert [name for name in trial.PLATFORM if not re.search(rf"^{name}==", pins, re.MULTILINE)] == []
