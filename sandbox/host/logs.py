"""Logging of the host and its worker process: to stderr, each line with its time, level, logger and `extra` fields."""

from __future__ import annotations

import json
import logging
import sys
import time

# These say at INFO what each invocation, request or pull of a work item does.
NOISY_LOGGERS = ("azure.functions", "durabletask", "uvicorn")

# What every log record has; whatever else one has came in as `extra`. shared/telemetry_logs.py has the same: the host
# runs any app, and imports nothing of this one.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
# uvicorn's: the message once more, with colours.
_LEFT_OUT = _OWN | {"color_message"}

# json.dumps would make an encoder for each value.
_quoted = json.JSONEncoder(ensure_ascii=False).encode
_quoted_as_ascii = json.JSONEncoder().encode


class LineFormatter(logging.Formatter):
    """One line for each record, `TIME LEVEL LOGGER: MESSAGE NAME=VALUE …`, with the traceback of an error below it.

    A field of None is left out. A value with a space, a quote or something unprintable in it is quoted as in JSON, so
    that fields are never more than the one line, whoever has filled them. The message is the code's own: the host has
    some of several lines.
    """

    def __init__(self) -> None:
        super().__init__()
        # It takes longer than all the rest, and thousands of lines have the same.
        self._second = (-1, "")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802, the standard library's name
        """Return the line without the traceback."""
        created = int(record.created)
        second, text = self._second
        if second != created:
            text = time.strftime(self.default_time_format, time.localtime(created))
            self._second = (created, text)
        line = f"{text},{int(record.msecs):03d} {record.levelname:7} {record.name}: {record.message}"
        for name, value in vars(record).items():
            if name not in _LEFT_OUT and value is not None:
                line += f" {name}={_shown(str(value))}"
        return line


def _shown(value: str) -> str:
    if not value.isprintable():
        return _quoted_as_ascii(value)
    return value if value and " " not in value and '"' not in value else _quoted(value)


def configure_logging(*, verbose: bool = False) -> None:
    """Log to stderr at INFO, in both processes; `verbose` adds what the libraries of the host say."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO if verbose else logging.WARNING)
