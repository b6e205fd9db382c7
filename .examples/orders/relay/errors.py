"""The one error of the command line, and its exit codes."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the command says to the shell. docs/reference/relay.md lists them."""

    OK = 0
    UNDELIVERED = 1
    USAGE = 2
    UNREACHABLE = 3
    KEY_REFUSED = 4
    NOT_FOUND = 5
    REFUSED = 6
    INTERRUPTED = 130


class CommandError(Exception):
    """Ends a command. `message` says what is wrong, `advice` what to do next, "" where the message says both."""

    def __init__(self, exit_code: ExitCode, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.advice = advice


def usage_error(message: str, advice: str = "") -> CommandError:
    """Return the error of a command line, configuration or file that cannot be used."""
    return CommandError(ExitCode.USAGE, message, advice)
