"""The servers of a trial: each a process that runs until the trial has ended."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from typing import TYPE_CHECKING

from deployment.errors import TrialError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

START_SECONDS = 60.0
END_SECONDS = 20.0
POLL_SECONDS = 0.1


@contextlib.contextmanager
def server(
    command: Sequence[str], project: Path, log: Path, environ: Mapping[str, str], *, patience: float = START_SECONDS
) -> Iterator[str]:
    """Run a server of the sandbox on a free port; gives its URL, which it prints when it listens.

    Raises:
        TrialError: it ends, or it does not listen within `patience` seconds.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603, commands of deployment/trial.py
            [*command, "--port", "0"], cwd=project, env=environ, stdout=output, stderr=output
        )
        try:
            yield _wait_for_url(process, log, patience)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes], patience: float = END_SECONDS) -> None:
    """Tell a process to end, and kill it if it has not ended `patience` seconds later."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_for_url(process: subprocess.Popen[bytes], log: Path, patience: float) -> str:
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := re.search(r"^\w+: (http://\S+)$", log.read_text(encoding="utf-8"), re.MULTILINE):
            return found[1]
        if process.poll() is not None:
            raise TrialError(f"the sandbox's {log.stem} ended with {process.returncode}:\n{_text(log)}")
        time.sleep(POLL_SECONDS)
    raise TrialError(f"the sandbox's {log.stem} did not start in {patience:g} s:\n{_text(log)}")


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()
