"""`python -m sandbox demo | up | host | partner`: the app on one machine, with no Azure account."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from sandbox.demo import demo
from sandbox.host import command as host_command
from sandbox.partner import command as partner_command
from sandbox.up import up

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of the command line; give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    demo_parser = commands.add_parser("demo", help="deliver a business and a batch, show each step, and end")
    demo_parser.add_argument("--keep", action="store_true", help="leave everything running, and say what to try")
    demo_parser.add_argument("--verbose", action="store_true", help="show the log lines of the app and the partner")
    demo_parser.set_defaults(run=lambda options: demo(keep=options.keep, verbose=options.verbose))

    up_parser = commands.add_parser("up", help="run the app and the partner until Ctrl-C")
    up_parser.add_argument("--port", type=partner_command.port, default=7071, help="of the app (default: 7071)")
    up_parser.add_argument("--partner-port", type=partner_command.port, default=8081, help="(default: 8081)")
    up_parser.set_defaults(run=lambda options: up(port=options.port, partner_port=options.partner_port))

    host_parser = commands.add_parser("host", help="run the app alone, with the settings of the environment")
    host_command.add_arguments(host_parser)
    host_parser.set_defaults(run=host_command.run)

    partner_parser = commands.add_parser("partner", help="run the partner alone")
    partner_command.add_arguments(partner_parser)
    partner_parser.set_defaults(run=partner_command.run)

    options = parser.parse_args(argv)
    if options.command in {"demo", "up"}:
        # As Ctrl-C: what was started is ended before we are.
        signal.signal(signal.SIGTERM, _interrupt)
    code: int = options.run(options)
    return code


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
