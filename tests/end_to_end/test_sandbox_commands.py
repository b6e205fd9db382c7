from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sandbox.processes import PROJECT, SandboxProcess, StartError, app_settings

PATIENCE = 60


def _sandbox(*arguments: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603, it is the sandbox itself
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=PROJECT,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def _children(pid: int) -> list[Path]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [Path(f"/proc/{child}") for child in children]


def test_the_demo_tells_each_step_and_ends_by_itself() -> None:
    # A proxy in the environment is not on the way to this machine itself.
    demo = _sandbox("demo", HTTP_PROXY="http://127.0.0.1:9", BUSINESS_API_ISSUER="https://elsewhere.example")
    told, errors = demo.communicate(timeout=PATIENCE)

    assert (demo.returncode, errors) == (0, "")
    for words in ("POST /api/businesses", "Completed", "201 records stored", "0 of them twice", "1 token request"):
        assert words in told
    assert told.endswith("Delivered, once each.\n")
    assert "sandbox-access-token-" not in told
    assert "sandbox-secret" not in told


def test_the_demo_that_is_kept_says_what_to_try_and_ends_all_with_ctrl_c() -> None:
    demo = _sandbox("demo", "--keep")
    assert demo.stdout is not None
    for line in demo.stdout:
        if "/sandbox/revoke" in line:
            break
    children = _children(demo.pid)
    os.killpg(demo.pid, signal.SIGINT)

    assert demo.wait(PATIENCE) == 0
    assert len(children) == 2
    assert not any(child.exists() for child in children)
    demo.communicate()


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_up_leaves_nothing_behind_however_it_ends(number: signal.Signals, code: int) -> None:
    both = _sandbox("up", "--port", "0", "--partner-port", "0")
    assert both.stdout is not None
    for line in both.stdout:
        if line.startswith("Ctrl-C"):
            break
    children = _children(both.pid)
    both.send_signal(number)

    assert both.wait(PATIENCE) == code
    assert len(children) == 2
    deadline = time.monotonic() + PATIENCE
    while any(child.exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(child.exists() for child in children)
    both.communicate()


def test_a_port_in_use_is_one_clear_line() -> None:
    with SandboxProcess("partner", ["--port", "0"]) as partner:
        port = partner.url.rpartition(":")[2]
        for command in ("host", "partner"):
            with pytest.raises(StartError, match=f"(?s)ended at its start with exit code 1.*port {port}"):
                SandboxProcess(command, ["--port", port], app_settings(partner.url))


def test_an_unknown_command_is_refused() -> None:
    unknown = _sandbox("serve")

    _, errors = unknown.communicate(timeout=PATIENCE)

    assert unknown.returncode == 2
    assert "invalid choice: 'serve'" in errors
