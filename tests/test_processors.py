from __future__ import annotations

import os
import subprocess
import sys

import pytest

from benchmarks import processors

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no such thing")

IN_A_THREAD = """
import os, threading
go = threading.Event()
def show():
    print("ready", flush=True)
    go.wait()
    print(sorted(os.sched_getaffinity(0)))
thread = threading.Thread(target=show)
thread.start()
input()
go.set()
thread.join()
"""
SHOW = "import os; input(); print(sorted(os.sched_getaffinity(0)))"


def test_one_processor_is_kept_free_and_a_process_that_is_put_on_it_has_it_alone() -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) == 1:
        pytest.skip("there is one processor")
    with processors.one_kept_free() as processor:
        assert processor is not None
        assert os.sched_getaffinity(0) == allowed - {processor}
        one, other = (
            subprocess.Popen([sys.executable, "-c", SHOW], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603, ours
            for _ in range(2)
        )
        processors.run_on(other.pid, processor)
        assert one.communicate("\n", timeout=60)[0].strip() == str(sorted(allowed - {processor}))
        assert other.communicate("\n", timeout=60)[0].strip() == str([processor])
    assert os.sched_getaffinity(0) == allowed


def test_all_threads_of_a_process_are_put_there() -> None:
    allowed = os.sched_getaffinity(0)
    with subprocess.Popen(  # noqa: S603, ours
        [sys.executable, "-c", IN_A_THREAD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        processors.run_on(process.pid, min(allowed))
        assert process.communicate("\n", timeout=60)[0].strip() == str([min(allowed)])


def test_with_one_processor_nothing_is_kept_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0})
    with processors.one_kept_free() as processor:
        assert processor is None


def test_where_the_system_has_no_such_thing_nothing_is_kept_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    with processors.one_kept_free() as processor:
        assert processor is None
