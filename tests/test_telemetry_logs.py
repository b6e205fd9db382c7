from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider

from shared.telemetry import TelemetryHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry._logs import LogRecord


class Log:
    """A logger with the handler, and the records that came out of it."""

    def __init__(self) -> None:
        self._exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]  # the SDK's
        self.provider = LoggerProvider()
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(self._exporter))
        # Not one of the process's loggers: nothing else hears it.
        self.logger = logging.Logger("shared.test", logging.DEBUG)  # noqa: LOG001, it would be one of them
        self.logger.addHandler(TelemetryHandler(self.provider))

    @property
    def record(self) -> LogRecord:
        [data] = self._exporter.get_finished_logs()
        return data.log_record


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    yield log
    log.provider.shutdown()


def test_a_line_becomes_a_record_with_its_fields(log: Log) -> None:
    fields = {"instance_id": "i", "attempt": 2, "is_late": True, "seconds": 1.5, "status": None}

    log.logger.warning("delivery %s", "attempt", extra=fields)

    del fields["status"]
    assert (log.record.body, log.record.severity_text) == ("delivery attempt", "WARNING")
    assert dict(log.record.attributes or {}) == fields
    assert log.record.timestamp is not None


def test_a_field_of_another_type_goes_as_its_text(log: Log) -> None:
    log.logger.info("event", extra={"problems": ["a", "b"]})

    assert dict(log.record.attributes or {}) == {"problems": "['a', 'b']"}


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (logging.CRITICAL, SeverityNumber.FATAL),
        (logging.ERROR, SeverityNumber.ERROR),
        (logging.WARNING, SeverityNumber.WARN),
        (logging.INFO, SeverityNumber.INFO),
        (logging.DEBUG, SeverityNumber.DEBUG),
        (logging.INFO + 5, SeverityNumber.INFO),
    ],
)
def test_each_level_has_its_severity(log: Log, level: int, severity: SeverityNumber) -> None:
    log.logger.log(level, "event")

    assert log.record.severity_number is severity


def test_an_error_goes_with_its_type_and_its_traceback(log: Log) -> None:
    try:
        raise ValueError("odd")  # noqa: TRY301, where it is raised does not matter
    except ValueError:
        log.logger.exception("event")

    attributes = log.record.attributes or {}
    assert attributes["exception.type"] == "ValueError"
    assert "ValueError: odd" in str(attributes["exception.stacktrace"])


def test_a_line_belongs_to_the_span_that_is_current(log: Log) -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("one") as span:
        log.logger.info("event")

    assert (log.record.trace_id, log.record.span_id) == (
        span.get_span_context().trace_id,
        span.get_span_context().span_id,
    )
