from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import PROJECT, SandboxProcess, StartError, app_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Seconds: less than the time limit of a test, so that it ends what it has started.
PATIENCE = 60


@contextmanager
def _sandbox(*arguments: str, project: Path = PROJECT, **environ: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command of the sandbox; where the test fails, end it before it would be left behind with its children."""
    with subprocess.Popen(  # noqa: S603, it is the sandbox itself
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=project,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            # What it has started leads process groups of its own, and ends when its stdin, this process, does.
            if process.poll() is None:
                process.kill()


def _gone(children: Sequence[Path]) -> bool:
    """Wait until the processes have ended; say whether they have."""
    deadline = time.monotonic() + PATIENCE
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(child.exists() for child in children)


def _children_after(process: subprocess.Popen[str], words: str) -> list[Path]:
    """Give the children of a process, as soon as it has said these words."""
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [Path(f"/proc/{child}") for child in children]


def test_the_demo_tells_each_step_and_ends_by_itself() -> None:
    # A proxy in the environment is not on the way to this machine itself.
    with _sandbox("demo", HTTP_PROXY="http://127.0.0.1:9", BUSINESS_API_ISSUER="https://elsewhere.example") as demo:
        told, errors = demo.communicate(timeout=PATIENCE)

    assert (demo.returncode, errors) == (0, "")
    for words in ("POST /api/businesses", "Completed", "201 records stored", "0 of them twice", "1 token request"):
        assert words in told
    assert told.endswith("Delivered, once each.\n")
    assert "sandbox-access-token-" not in told
    assert "sandbox-secret" not in told


def test_the_demo_says_in_one_line_what_to_change_where_the_app_refuses_its_records(tmp_path: Path) -> None:
    for folder in ("sandbox", "shared"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("function_app.py", "host.json"):
        shutil.copy(PROJECT / file, tmp_path)
    model = tmp_path / "shared" / "api" / "business.py"
    before, record, after = model.read_text().partition("    record: Annotated")
    model.write_text(f"{before}    added_to_the_model: str\n{record}{after}")

    with _sandbox("demo", project=tmp_path) as demo:
        told, errors = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 1
    assert errors == (
        "\nThe demo failed: the app refuses the record of sandbox/sample.json: /addedToTheModel is missing. "
        "Change it together with the model, Business in shared/api/business.py\n"
    )
    assert "Delivered" not in told


def test_the_demo_that_is_kept_says_what_to_try_and_ends_all_with_ctrl_c() -> None:
    with _sandbox("demo", "--keep") as demo:
        children = _children_after(demo, "/sandbox/revoke")
        os.killpg(demo.pid, signal.SIGINT)
        demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 0
    assert len(children) == 2
    assert not any(child.exists() for child in children)


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_up_leaves_nothing_behind_however_it_ends(number: signal.Signals, code: int) -> None:
    with _sandbox("up", "--port", "0", "--partner-port", "0") as both:
        children = _children_after(both, "Ctrl-C")
        both.send_signal(number)
        assert both.wait(PATIENCE) == code

    assert len(children) == 2
    assert _gone(children)


@pytest.mark.long
def test_a_test_that_fails_leaves_nothing_behind() -> None:
    children: list[Path] = []

    def fail() -> None:
        with _sandbox("up", "--port", "0", "--partner-port", "0") as both:
            children.extend(_children_after(both, "Ctrl-C"))
            raise AssertionError

    with pytest.raises(AssertionError):
        fail()
    assert len(children) == 2
    assert _gone(children)


def test_a_port_in_use_is_one_clear_line() -> None:
    with SandboxProcess("partner", ["--port", "0"]) as partner:
        port = partner.url.rpartition(":")[2]
        for command in ("host", "partner"):
            with pytest.raises(StartError, match=f"(?s)ended at its start with exit code 1.*port {port}"):
                SandboxProcess(command, ["--port", port], app_settings(partner.url))


def test_an_unknown_command_is_refused() -> None:
    with _sandbox("serve") as unknown:
        _, errors = unknown.communicate(timeout=PATIENCE)

    assert unknown.returncode == 2
    assert "invalid choice: 'serve'" in errors
