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

from sandbox.processes import PROJECT, SandboxProcess, StartError
from sandbox.resources import app_settings, load_resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Seconds: less than the time limit of a test, so that it ends what it has started.
PATIENCE = 60


@contextmanager
def _sandbox(*arguments: str, environ: Mapping[str, str] = {}) -> Iterator[subprocess.Popen[str]]:
    """Run a command of the sandbox; where the test fails, end it before it would be left behind with its children."""
    with subprocess.Popen(  # noqa: S603, it is the sandbox itself
        [sys.executable, "-m", "sandbox", *arguments],
        cwd=PROJECT,
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


def _said_until(process: subprocess.Popen[str], words: str) -> str:
    """Read what a process says, up to the line with these words."""
    said = ""
    assert process.stdout is not None
    for line in process.stdout:
        said += line
        if words in line:
            break
    return said


def _children(process: subprocess.Popen[str]) -> list[Path]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [Path(f"/proc/{child}") for child in children]


def test_the_demo_tells_each_step_and_what_to_try_and_ends_all_with_ctrl_c() -> None:
    # A proxy in the environment is not on the way to this machine itself.
    elsewhere = {f"{resource.partner.name}_ISSUER": "https://elsewhere.example" for resource in load_resources()}
    with _sandbox("demo", "--keep", environ={"HTTP_PROXY": "http://127.0.0.1:9", **elsewhere}) as demo:
        told = _said_until(demo, "/sandbox/revoke")
        children = _children(demo)
        os.killpg(demo.pid, signal.SIGINT)
        _, errors = demo.communicate(timeout=PATIENCE)

    assert (demo.returncode, errors) == (0, "")
    assert len(children) == 2
    assert not any(child.exists() for child in children)
    for resource in load_resources():
        assert f"POST /api/{resource.route}: one record" in told
    for words in (
        "delivered (created)",
        "200 of 200 created",
        "stored, once each",
        "with 1 token request, none refused",
    ):
        assert words in told
    assert "Delivered, once each.\n" in told
    assert "sandbox-access-token-" not in told
    assert "sandbox-secret" not in told


def test_the_demo_says_in_one_line_which_member_needs_an_example(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "shared", tmp_path / "shared", ignore=ignored)
    (tmp_path / "shared" / "partner.py").write_text(
        "from typing import Annotated\n"
        "from msgspec import Meta\n"
        "from shared.resource import LookUp, Partner, Post, Record, Resource\n"
        "class Thing(Record):\n"
        "    key: str\n"
        "    code: Annotated[str, Meta(pattern='^[A-Z]$')]\n"
        "RESOURCES = [Resource(Thing, 'things', 'key', Partner('THING_API'), Post('/'), LookUp('/{id}'))]\n"
    )

    with _sandbox("demo", "--app", str(tmp_path)) as demo:
        told, errors = demo.communicate(timeout=PATIENCE)

    assert demo.returncode == 1
    assert errors == (
        "\nThe demo failed: shared/partner.py is not usable: Resource Thing: no sample record can be made: "
        "/code: must be str matching regex '^[A-Z]$'. Give its members Meta(examples=[…]) that keep the rules\n"
    )
    assert "Delivered" not in told


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 0), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_up_leaves_nothing_behind_however_it_ends(number: signal.Signals, code: int) -> None:
    with _sandbox("up", "--port", "0", "--partner-port", "0") as both:
        _said_until(both, "Ctrl-C")
        children = _children(both)
        both.send_signal(number)
        assert both.wait(PATIENCE) == code

    assert len(children) == 2
    assert _gone(children)


@pytest.mark.long
def test_a_test_that_fails_leaves_nothing_behind() -> None:
    children: list[Path] = []

    def fail() -> None:
        with _sandbox("up", "--port", "0", "--partner-port", "0") as both:
            _said_until(both, "Ctrl-C")
            children.extend(_children(both))
            raise AssertionError

    with pytest.raises(AssertionError):
        fail()
    assert len(children) == 2
    assert _gone(children)


@pytest.mark.long
def test_a_port_in_use_is_one_clear_line() -> None:
    with SandboxProcess("partner", ["--port", "0"]) as partner:
        port = partner.url.rpartition(":")[2]
        with pytest.raises(StartError, match=f"(?s)ended at its start with exit code 1.*port {port}"):
            SandboxProcess("host", ["--port", port], app_settings(partner.url, load_resources()))


def test_an_unknown_command_is_refused() -> None:
    with _sandbox("serve") as unknown:
        _, errors = unknown.communicate(timeout=PATIENCE)

    assert unknown.returncode == 2
    assert "invalid choice: 'serve'" in errors
