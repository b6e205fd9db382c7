"""`python -m sandbox demo | up | host | partner`: the app on one machine, with no Azure account."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from sandbox.demo import demo
from sandbox.host.__main__ import main as host
from sandbox.partner.command import main as partner
from sandbox.processes import end_with_stdin
from sandbox.up import up

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

COMMANDS = {
    "demo": "deliver a business and a batch, show each step, and end",
    "up": "run the app and the partner until Ctrl-C",
    "host": "run the app alone, with the settings of the environment",
    "partner": "run the partner alone",
}


def main(argv: Sequence[str]) -> int:
    """Run the command of the command line; give the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="The app on one machine, with no Azure account.",
        epilog="\n".join(f"  {name:<10}{words}" for name, words in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help="`<command> --help` lists its options")
    command: str = parser.parse_args(argv[:1]).command
    end_with_stdin()
    run = {"demo": _demo, "up": _up, "host": host, "partner": partner}[command]
    return run(argv[1:])


def _demo(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox demo", description=COMMANDS["demo"])
    parser.add_argument("--keep", action="store_true", help="leave everything running, and say what to try")
    parser.add_argument("--verbose", action="store_true", help="show the log lines of the app and the partner")
    options = parser.parse_args(argv)
    _end_as_with_ctrl_c()
    return demo(keep=options.keep, verbose=options.verbose)


def _up(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox up", description=COMMANDS["up"])
    parser.add_argument("--port", type=int, default=7071, help="of the app, 0 for a free one (default: 7071)")
    parser.add_argument("--partner-port", type=int, default=8081, help="0 for a free one (default: 8081)")
    options = parser.parse_args(argv)
    _end_as_with_ctrl_c()
    return up(port=options.port, partner_port=options.partner_port)


def _end_as_with_ctrl_c() -> None:
    """Take SIGTERM, and the end of the terminal, for Ctrl-C: what was started is ended before we are."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGHUP, interrupt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
