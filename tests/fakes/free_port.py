from __future__ import annotations

import random
import socket

# The system gives the ports above to whoever asks for any: another test's server would take one before it is used.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """Return a port on which nobody listens, for a server that has to be told one."""
    while True:
        port = random.choice(PORTS)  # noqa: S311, it need not be secret
        with socket.socket() as free:
            try:
                free.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
