from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent
# What the tests' processes inherit from a shell that has put the tests in the background.
IN_THE_BACKGROUND = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
import subprocess, sys
import tests.conftest
child = [sys.executable, "-c", "import signal; print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)"]
print(subprocess.run(child, capture_output=True, text=True, check=True).stdout.strip())
"""


def test_what_a_test_starts_can_be_interrupted_where_the_tests_run_in_the_background() -> None:
    command = [sys.executable, "-c", IN_THE_BACKGROUND]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603, the code is this module's own
    assert done.stdout == "False\n"
