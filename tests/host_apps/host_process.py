"""A host in a process of its own, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

PROJECT = Path(__file__).parents[2]
APPS = Path(__file__).parent
Found = TypeVar("Found")
WEBHOOKS = "/runtime/webhooks/durabletask"
PATIENCE_SECONDS = 30.0
FINISHED = frozenset({"Completed", "Failed", "Terminated"})


def until(look: Callable[[], Found], what: str) -> Found:
    """Look again and again until there is something to see; fail after a while."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Say whether a process runs; a dead one that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class HostProcess:
    """A running host; `base` is its address."""

    def __init__(self, app: Path, folder: Path, settings: Mapping[str, str], options: tuple[str, ...]) -> None:
        self.folder = folder
        self._output, self._errors = folder / "stdout.txt", folder / "stderr.txt"
        # Without the rest of this environment, but measured where the tests are.
        coverage = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
        environment = {"PATH": os.environ["PATH"], "DIARY_FOLDER": str(folder), **coverage, **settings}
        command = [sys.executable, "-m", "sandbox.host", "--app", str(app), "--port", "0", *options]
        with self._output.open("w") as output, self._errors.open("w") as errors:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                command, cwd=PROJECT, env=environment, stdout=output, stderr=errors, process_group=0
            )
        self.base = ""
        # A bare TLS context: to load the certificates of the internet's authorities takes 50 ms.
        self.http = httpx.Client(timeout=PATIENCE_SECONDS, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    @property
    def output(self) -> str:
        """What the host and the app have printed."""
        return self._output.read_text()

    @property
    def log(self) -> str:
        """What the host and the app have logged."""
        return self._errors.read_text()

    def wait_until_ready(self) -> None:
        """Wait for the line with the address."""
        until(lambda: "\n" in self.output or self.process.poll() is not None, "the host's first line")
        assert self.process.poll() is None, self.log
        first = self.output.partition("\n")[0]
        assert first.startswith("host: http://127.0.0.1:"), first
        self.base = first.removeprefix("host: ")
        self.http.base_url = httpx.URL(self.base)

    def exit_code(self) -> int:
        """Wait for the end of the host."""
        return self.process.wait(PATIENCE_SECONDS)

    def worker(self) -> dict[str, int]:
        """Say which worker process runs, and how many there were before."""
        document: dict[str, int] = self.http.get("/sandbox/worker").raise_for_status().json()
        return document

    def kill_worker(self) -> None:
        """End the worker process as the kernel would, and wait until it has ended."""
        pid = self.worker()["pid"]
        os.kill(pid, signal.SIGKILL)
        until(lambda: not is_alive(pid), "the end of the worker process")

    def start(self, name: str, given: object = None, *, instance_id: str | None = None) -> str:
        """Start an orchestration as the client library does."""
        path = f"/durabletask/orchestrators/{name}" + (f"/{instance_id}" if instance_id else "")
        answer = self.http.post(path, json=json.dumps(given))
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def status(self, instance_id: str, **query: str) -> dict[str, Any]:
        """Ask for the status of an instance; empty where there is none."""
        answer = self.http.get(f"{WEBHOOKS}/instances/{instance_id}", params=query)
        document: dict[str, Any] = answer.json() if answer.content else {}
        return document

    def finished(self, instance_id: str, **query: str) -> dict[str, Any]:
        """Wait for the end of an instance; gives its status."""
        until(lambda: self.status(instance_id)["runtimeStatus"] in FINISHED, f"the end of {instance_id}")
        return self.status(instance_id, **query)

    def run(self, name: str, given: object = None) -> dict[str, Any]:
        """Run an orchestration to its end; gives its status."""
        return self.finished(self.start(name, given))

    def change(self, instance_id: str, operation: str, **query: str) -> int:
        """Terminate, suspend or resume an instance; gives the status code."""
        return self.http.post(f"{WEBHOOKS}/instances/{instance_id}/{operation}", params=query).status_code

    def raise_event(self, instance_id: str, value: object, name: str = "go") -> int:
        """Send an external event; gives the status code."""
        url = f"{WEBHOOKS}/instances/{instance_id}/raiseEvent/{name}"
        headers = {"content-type": "application/json"}
        return self.http.post(url, content=json.dumps(value), headers=headers).status_code


@contextmanager
def started_host(
    app: Path, folder: Path, settings: Mapping[str, str] | None = None, *options: str
) -> Generator[HostProcess]:
    """Start a host on a free port, whether or not it comes up; end it afterwards."""
    host = HostProcess(app, folder, settings or {}, options)
    try:
        yield host
    finally:
        host.http.close()
        if host.process.poll() is None:
            host.process.terminate()
        try:
            host.process.wait(PATIENCE_SECONDS)
        finally:
            if host.process.poll() is None:
                host.process.kill()
                host.process.wait()


@contextmanager
def running_host(
    app: Path, folder: Path, settings: Mapping[str, str] | None = None, *options: str
) -> Generator[HostProcess]:
    """Start a host and wait until it is ready; end it afterwards."""
    with started_host(app, folder, settings, *options) as host:
        host.wait_until_ready()
        yield host
