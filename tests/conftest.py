"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import Phase, settings

from tests.host_tests import not_collected

collect_ignore = [str(path) for path in not_collected()]

# A process that a shell started in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that takes long says something about the machine, which runs other tests at the same time: no deadline.
# `make test` tries the same few examples each time, and prints the first that fails, as it is.
settings.register_profile(
    "quick",
    deadline=None,
    derandomize=True,
    max_examples=25,
    phases=[Phase.explicit, Phase.generate],
    print_blob=True,
)
# `make test-long` tries many, other ones each time, and reduces the one that fails.
settings.register_profile("thorough", deadline=None, max_examples=400, print_blob=True)
settings.load_profile("quick")
