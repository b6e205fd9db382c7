"""`python -m sandbox demo | up | host | partner | settings`: the app on one machine, with no Azure account."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "demo": ("sandbox.demo", "deliver a record of each type and a batch, show each step, and end"),
    "up": ("sandbox.up", "run the app and the partners until Ctrl-C"),
    "host": ("sandbox.host.__main__", "run the app alone, with the settings of the environment"),
    "partner": ("sandbox.partner.command", "run the partners alone"),
    "settings": ("sandbox.local_settings", "print a local.settings.json for the partners"),
}


def main(argv: Sequence[str]) -> int:
    """Run the command of the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sandbox",
        description="The app on one machine, with no Azure account.",
        epilog="\n".join(f"  {name:<10}{words}" for name, (_, words) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help="`<command> --help` lists its options")
    command: str = parser.parse_args(argv[:1]).command
    if command != "host":  # it runs the app in a process of its own
        _import_from_app(argv[1:])
    importlib.import_module("sandbox.processes").end_with_stdin()
    code: int = importlib.import_module(COMMANDS[command][0]).main(argv[1:])
    return code


def _import_from_app(argv: Sequence[str]) -> None:
    """Import `shared` from the folder of `--app`, before any module of a command imports it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--app", type=Path)
    app: Path | None = parser.parse_known_args(argv)[0].app
    if app is not None:
        sys.path.insert(0, str(app.resolve()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
