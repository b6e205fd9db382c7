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
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType, TracebackType
    from typing import TextIO

PROJECT = Path(__file__).resolve().parent.parent
# Seconds; a cold machine imports for a while.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
# Set for a process that ends when its stdin does.
END_WITH_STDIN = "SANDBOX_END_WITH_STDIN"

_FUNCTION_KEY = "key: function "


def end_with_stdin() -> None:
    """End this process as SIGTERM does when its stdin ends, if it was started so: its parent is gone then."""
    if not os.environ.pop(END_WITH_STDIN, None):
        return

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def end_as_with_ctrl_c() -> None:
    """Treat SIGTERM, and the end of the terminal, as Ctrl-C, so that this process ends those that it has started."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)


class StartError(Exception):
    """A process did not start; the text says why in its own last words."""


class SandboxProcess:
    """`python -m sandbox <command>` as a process of its own; `url` is where it listens.

    Its output is kept in `lines`, and each line is handed to `log` as it comes, from a thread. With `stderr`, a file,
    what it logs goes straight there instead. `environ` is added to this process's environment; None removes a name.
    `python` runs it.

    The process leads a group of its own, so that Ctrl-C reaches it only through us, and in order. If this process is
    killed, the other's stdin ends, and so does it.
    """

    def __init__(  # noqa: PLR0913, each but the first has a default
        self,
        command: str,
        options: Sequence[str] = (),
        environ: Mapping[str, str | None] | None = None,
        *,
        log: Callable[[str], None] | None = None,
        stderr: TextIO | None = None,
        python: Path | str = sys.executable,
    ) -> None:
        self.command = command
        self.lines: list[str] = []
        self._log = log
        self._urls: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._keys: queue.SimpleQueue[str] = queue.SimpleQueue()
        wanted = {**os.environ, **(environ or {}), "PYTHONUNBUFFERED": "1", END_WITH_STDIN: "1"}
        self._process = subprocess.Popen(  # noqa: S603, it is ourselves
            [str(python), "-m", "sandbox", command, *options],
            cwd=PROJECT,
            env={name: value for name, value in wanted.items() if value is not None},
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

    def function_key(self) -> str:
        """Return the function key, which a host with `--keys` prints after its URL.

        Raises:
            StartError: it prints none.
        """
        try:
            return self._keys.get(timeout=STOP_TIMEOUT)
        except queue.Empty:
            raise StartError(f"The {self.command} has printed no function key:\n{self.output}") from None

    def stop(self) -> int:
        """End the process as Ctrl-C does; return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.wait(STOP_TIMEOUT)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the process to end by itself, and kill it after `timeout` seconds; return its exit code."""
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
                self._log(text)
            if text.startswith(f"{self.command}: http"):
                self._urls.put(text.partition(": ")[2].strip())
            elif text.startswith(_FUNCTION_KEY):
                self._keys.put(text.removeprefix(_FUNCTION_KEY).strip())
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
