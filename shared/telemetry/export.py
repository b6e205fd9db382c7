"""Sends this process's telemetry by OTLP: spans, metrics, and log lines with their fields.

With Application Insights the Functions worker itself sets OpenTelemetry up, before it imports the app
(PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY). For OTLP it only hands the trace context over
(PYTHON_ENABLE_OPENTELEMETRY) and leaves the rest to the app, which calls `install_telemetry` once.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry._logs import LogRecord, SeverityNumber

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry._logs import LoggerProvider

logger = logging.getLogger(__name__)

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
SWITCH = "PYTHON_ENABLE_OPENTELEMETRY"
"""The worker's own switch: without it spans would have no parents, and the host would send the log lines as well."""

_TRUE = {"1", "true", "t", "yes", "y"}  # what the worker takes for "on"
_EXPORTERS = {
    "http/protobuf": "opentelemetry.exporter.otlp.proto.http",
    "grpc": "opentelemetry.exporter.otlp.proto.grpc",
}
# The attributes of every log record. Any other comes from `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def install_telemetry(environ: Mapping[str, str]) -> bool:
    """Set OpenTelemetry's SDK up if the settings ask for it and nobody else has; return whether that was done.

    The SDK reads the other settings of OpenTelemetry itself. If a package is missing or a setting is wrong, one warning
    says so, and the app goes on without. It takes 0.15 s.
    """
    is_wanted = bool(environ.get(ENDPOINT)) and environ.get(SWITCH, "").strip().lower() in _TRUE
    if not is_wanted or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return False
    package = _EXPORTERS.get(environ.get(PROTOCOL) or "http/protobuf")
    service = environ.get("OTEL_SERVICE_NAME") or environ.get("WEBSITE_SITE_NAME") or "business-relay"
    reason = f"{PROTOCOL} must be one of {', '.join(_EXPORTERS)}"
    if package is not None:
        try:
            _install(package, service)
        except ImportError as exc:
            reason = f"{ENDPOINT} is set, but {exc.name} is not installed"
        except ValueError:
            # Without its text, which has the value: a URL or a header may hold a password.
            reason = "one of the settings OTEL_… has a value that the SDK does not take"
        else:
            return True
    logger.warning("telemetry is not sent", extra={"reason": reason})
    return False


def _install(package: str, service: str) -> None:
    """Build the three pipelines, then make them the process's."""
    # Imported only when wanted, because they take time. azure-functions-durable requires the SDK; the exporters are an
    # extra of this package.
    from opentelemetry import _logs, metrics  # noqa: PLC0415
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    def exporter(module: str, kind: str) -> Any:  # noqa: ANN401, which package it comes from is a setting
        return getattr(importlib.import_module(f"{package}.{module}"), kind)()

    spans, points = exporter("trace_exporter", "OTLPSpanExporter"), exporter("metric_exporter", "OTLPMetricExporter")
    lines = exporter("_log_exporter", "OTLPLogExporter")
    resource = Resource.create({"service.name": service})
    tracer_provider, logger_provider = TracerProvider(resource=resource), LoggerProvider(resource)
    tracer_provider.add_span_processor(BatchSpanProcessor(spans))
    logger_provider.add_log_record_processor(BatchLogRecordProcessor(lines))
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(points)], resource))
    _logs.set_logger_provider(logger_provider)
    logging.getLogger("shared").addHandler(TelemetryHandler(logger_provider))  # the app's own lines, no others
    # Last: whoever asks whether there is telemetry looks here.
    trace.set_tracer_provider(tracer_provider)


class TelemetryHandler(logging.Handler):
    """Passes each log line on to OpenTelemetry, in the trace of the current span, with `extra` fields as attributes.

    A field that is None is left out. An error goes with its type and traceback.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        # Python's levels are ten apart, from DEBUG to CRITICAL, OpenTelemetry's severities four, from TRACE to FATAL.
        severity = SeverityNumber(1 + 4 * min(record.levelno // logging.DEBUG, 5))
        extra = {name: value for name, value in vars(record).items() if name not in _OWN and value is not None}
        self._provider.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=context.get_current(),
                severity_number=severity,
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes={
                    name: value if isinstance(value, str | bool | int | float) else str(value)
                    for name, value in extra.items()
                },
                exception=record.exc_info[1] if record.exc_info else None,
            )
        )
