"""TelemetryHandler: log lines as OpenTelemetry's log records, with their `extra` fields as attributes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry import context
from opentelemetry._logs import LogRecord, SeverityNumber

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry._logs import LoggerProvider

    Value = str | bool | int | float

# What every log record of Python has; whatever else one has came in as `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# https://opentelemetry.io/docs/specs/otel/logs/data-model/#field-severitynumber
_SEVERITIES = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
    (logging.DEBUG, SeverityNumber.DEBUG),
)


class TelemetryHandler(logging.Handler):
    """Hands each line on to OpenTelemetry, in the trace of the span that is current.

    A field of None is left out; of an error go its type and its traceback.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a line on."""
        self._provider.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=context.get_current(),
                severity_number=_severity(record.levelno),
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes=_fields(record),
                exception=record.exc_info[1] if record.exc_info else None,
            )
        )


def _severity(level: int) -> SeverityNumber:
    return next((severity for least, severity in _SEVERITIES if level >= least), SeverityNumber.TRACE)


def _fields(record: logging.LogRecord) -> Mapping[str, Value]:
    given = {name: value for name, value in vars(record).items() if name not in _OWN and value is not None}
    return {name: value if isinstance(value, str | bool | int | float) else str(value) for name, value in given.items()}
