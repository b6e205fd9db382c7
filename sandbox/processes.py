"""The sandbox's own processes: started, waited for until they listen, and ended again."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import TextIO

PROJECT = Path(__file__).resolve().parent.parent
# Seconds; a cold machine imports for a while.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
# Set for a process that ends when its stdin does.
END_WITH_STDIN = "SANDBOX_END_WITH_STDIN"


def end_with_stdin() -> None:
    """End this process as SIGTERM does when its stdin ends, if it was started so: its parent is gone then."""
    if not os.environ.pop(END_WITH_STDIN, None):
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


class StartError(Exception):
    """A process did not start; the text says why in its own last words."""


class SandboxProcess:
    """`python -m sandbox <command>` as a process of its own; `url` is where it listens.

    What it writes goes to `log`, if there is one, and is kept: `output` is all of it so far. With `stderr`, a file,
    what it logs goes straight there instead, and takes nobody's time.

    It leads a process group of its own, so that Ctrl-C reaches it through us only, and in order; should we be killed,
    its stdin ends, and so does it.
    """

    def __init__(
        self,
        command: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        log: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.command = command
        self.lines: list[str] = []
        self._log = log
        self._urls: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process = subprocess.Popen(  # noqa: S603, it is ourselves
            [sys.executable, "-m", "sandbox", command, *options],
            cwd=PROJECT,
            env={**os.environ, **(environ or {}), "PYTHONUNBUFFERED": "1", END_WITH_STDIN: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr or subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url = self._wait_for_url()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def output(self) -> str:
        """All that the process has written so far."""
        return "\n".join(self.lines)

    def stop(self) -> int:
        """End the process as Ctrl-C does; give its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.wait(STOP_TIMEOUT)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end by itself, and kill it after `timeout` seconds; give its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._reader.join(STOP_TIMEOUT)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        return code

    def _read(self) -> None:
        # The reader lives as long as the process: a full pipe would stop it.
        for line in self._process.stdout or ():
            text = line.rstrip("\n")
            self.lines.append(text)
            if self._log:
                self._log.write(f"[{self.command}] {text}\n")
                self._log.flush()
            if text.startswith(f"{self.command}: http"):
                self._urls.put(text.partition(": ")[2].strip())
        self._urls.put(None)

    def _wait_for_url(self) -> str:
        try:
            url = self._urls.get(timeout=START_TIMEOUT)
        except queue.Empty:
            self.wait(0)
            raise StartError(f"The {self.command} did not listen within {START_TIMEOUT:g} s:\n{self.output}") from None
        if url is None:
            code = self.wait(STOP_TIMEOUT)
            raise StartError(f"The {self.command} ended at its start with exit code {code}:\n{self.output}")
        return url

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def app_settings(partner_url: str) -> dict[str, str]:
    """Give the app settings for the sandbox's partner; whatever else the machine has set for the app is put aside."""
    aside = {name: "" for name in os.environ if name.startswith(("BUSINESS_API_", "DELIVERY_", "TOKEN_STORE_"))}
    # local.settings.json may name another source of tokens; an empty setting counts as none.
    aside |= dict.fromkeys(("BUSINESS_API_ISSUER", "BUSINESS_API_TENANT_ID", "BUSINESS_API_MANAGED_IDENTITY"), "")
    return aside | {
        "BUSINESS_API_URL": partner_url,
        "BUSINESS_API_TOKEN_URL": f"{partner_url}/auth/token",
        "BUSINESS_API_CLIENT_ID": "sandbox-client",
        "BUSINESS_API_CLIENT_SECRET": "sandbox-secret",
        "BUSINESS_API_CLIENT_AUTH": "client_secret_basic",
    }
