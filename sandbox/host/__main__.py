"""`python -m sandbox.host`: run a function app from the command line."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sandbox.host.host import run_host
from sandbox.host.keys import Keys

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the app that the arguments name, return the exit code."""
    parser = argparse.ArgumentParser(prog="sandbox host", description="Run an Azure Functions app on this machine.")
    parser.add_argument("--app", type=Path, default=Path(), help="the app's folder (default: this one)")
    parser.add_argument("--port", type=int, default=7071, help="port on 127.0.0.1, 0 for a free one (default: 7071)")
    parser.add_argument("--verbose", action="store_true", help="log more, and show tracebacks of start errors")
    parser.add_argument("--keys", action="store_true", help="ask for keys as the platform does, and print them")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep durable state here (default: in memory)")
    options = parser.parse_args(argv)
    keys = Keys() if options.keys else None
    running = run_host(options.app, options.port, verbose=options.verbose, keys=keys, store=options.store)
    # A Ctrl-C before the event loop runs.
    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(running)
    return 0


if __name__ == "__main__":
    sys.exit(main())
