"""What holds for all tests."""

from __future__ import annotations

import gc
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.host_tests import not_collected

if TYPE_CHECKING:
    from collections.abc import Generator

collect_ignore = [str(path) for path in not_collected()]

# A process that a shell started in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Slow examples say something about the machine, which runs other tests at the same time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
# `make test` tries the same few examples each time, and prints the first that fails, as it is.
settings.register_profile(
    "quick",
    PATIENT,
    derandomize=True,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
)
# `make test-long` tries many, other ones each time, and reduces the one that fails.
settings.register_profile("thorough", PATIENT, max_examples=400)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Spare the garbage collector the many objects that live until the end."""
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Run a test marked `unmeasured` without the tracer of coverage.

    pytest-cov's own marker, no_cover, has no effect in the workers of xdist.
    """
    tracer = sys.gettrace()
    if item.get_closest_marker("unmeasured") and item.config.pluginmanager.hasplugin("_cov"):
        sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
