"""What holds for all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

from tests.host_tests import not_collected

collect_ignore = [str(path) for path in not_collected()]

# A process that a shell started in the background ignores Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that takes long says something about the machine, which runs other tests at the same time.
settings.register_profile("relay", deadline=None)
settings.load_profile("relay")
