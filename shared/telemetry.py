"""The metrics, spans and log lines of one process, on OpenTelemetry's API; `install_telemetry` sends them by OTLP.

All metrics carry the attribute `PARTNER`, the name of the partner ("BUSINESS_API"), and those of deliveries also
`RESOURCE`, the name of the record type ("Business"). No name or attribute holds an id, a token or a secret. What not
every process needs is imported in functions: it would cost a cold start 5 to 150 ms.
"""

from __future__ import annotations

import functools
import importlib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry import context, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry import metrics
    from opentelemetry._logs import LoggerProvider

    Attributes = Mapping[str, str]
    Read = Callable[[], float | None]

logger = logging.getLogger(__name__)

PARTNER = "business_relay.partner"
RESOURCE = "business_relay.resource"

_SCOPE = "business_relay"
_ENDPOINT, _PROTOCOL = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"
# The worker's own switch: without it spans would have no parents, and the host would send the log lines as well.
_SWITCH = "PYTHON_ENABLE_OPENTELEMETRY"
_TRUE = {"1", "true", "t", "yes", "y"}  # what the worker takes for "on"
_EXPORTERS = {"http/protobuf": "http", "grpc": "grpc"}
# The attributes of every log record. Any other comes from `extra`.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Metric(NamedTuple):
    """The name, UCUM unit and meaning of one instrument."""

    name: str
    unit: str
    description: str


DELIVERIES_ACCEPTED = Metric("business_relay.delivery.accepted", "{record}", "Records accepted from callers")
DELIVERIES_DELIVERED = Metric("business_relay.delivery.delivered", "{record}", "Records that the partner has")
DELIVERIES_REJECTED = Metric("business_relay.delivery.rejected", "{record}", "Records that the partner refused")
DELIVERIES_EXPIRED = Metric("business_relay.delivery.expired", "{record}", "Records given up at their deadline")
DELIVERIES_REWOUND = Metric("business_relay.delivery.rewound", "{delivery}", "Failed orchestrations started again")
DELIVERY_DURATION = Metric("business_relay.delivery.duration", "s", "From the acceptance of a record to its end")
DELIVERIES_WAITING = Metric("business_relay.delivery.waiting", "{delivery}", "Deliveries that are under way")
DELIVERY_OLDEST = Metric("business_relay.delivery.oldest", "s", "Age of the oldest delivery that is under way")

FLOW_LIMIT = Metric("business_relay.flow.limit", "{call}/s", "Limit that was found, none while there is none")
FLOW_RATE = Metric("business_relay.flow.rate", "{call}/s", "Calls that began each second, measured")
FLOW_IN_FLIGHT = Metric("business_relay.flow.in_flight", "{call}", "Calls that are under way")

TOKEN_REQUEST_DURATION = Metric("business_relay.token.request.duration", "s", "Time that one token request took")
TOKEN_TIME_TO_EXPIRY = Metric("business_relay.token.time_to_expiry", "s", "Time left to a token that was replaced")
TOKEN_COUNTERS = {
    "hit": Metric("business_relay.token.hit", "{call}", "Calls answered with the cached token"),
    "joined": Metric("business_relay.token.joined", "{call}", "Calls that waited for another's token request"),
    "requested": Metric("business_relay.token.requested", "{request}", "Token requests that have ended"),
    "shared": Metric("business_relay.token.shared", "{token}", "Tokens taken from the token store"),
    "failed": Metric("business_relay.token.failed", "{request}", "Token requests that brought no usable token"),
    "renewed_after_refusal": Metric(
        "business_relay.token.renewed_after_refusal", "{token}", "Tokens that replaced one the API had refused"
    ),
}

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""Seconds: the bounds of every histogram. OpenTelemetry's own are milliseconds."""


class Telemetry:
    """The instruments of one process, each made on first use. The default providers are OpenTelemetry's global ones."""

    def __init__(
        self, meter_provider: metrics.MeterProvider | None = None, tracer_provider: trace.TracerProvider | None = None
    ) -> None:
        from opentelemetry import metrics  # noqa: PLC0415, not for a cold start

        meter = self._meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._counter = functools.cache(lambda metric: meter.create_counter(*metric))
        self._histogram = functools.cache(
            lambda metric: meter.create_histogram(*metric, explicit_bucket_boundaries_advisory=BUCKETS)
        )
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._has_own_tracer = tracer_provider is not None
        self._observed: dict[Metric, dict[frozenset[tuple[str, str]], Read]] = {}
        self._token_counts: dict[str, dict[str, int]] = {}

    def count(self, metric: Metric, attributes: Attributes, by: int = 1) -> None:
        """Add to a counter."""
        self._counter(metric).add(by, attributes)

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        """Add one value to a histogram of seconds."""
        self._histogram(metric).record(value, attributes)

    def observe(self, metric: Metric, attributes: Attributes, read: Read, *, is_counter: bool = False) -> None:
        """Have a gauge read whenever metrics are collected, on the collector's thread; None is no value.

        With `is_counter` it is a counter that somebody else counts. Each set of attributes has one reader, the last.
        """
        if metric not in self._observed:
            self._observed[metric] = {}
            create = self._meter.create_observable_counter if is_counter else self._meter.create_observable_gauge
            create(metric.name, [functools.partial(self._read, metric)], metric.unit, metric.description)
        self._observed[metric][frozenset(attributes.items())] = read

    def _read(self, metric: Metric, _: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        from opentelemetry.metrics import Observation  # noqa: PLC0415, the same

        # A copy: another thread may add a reader meanwhile.
        values = [(read(), key) for key, read in self._observed[metric].copy().items()]
        return [Observation(value, dict(key)) for value, key in values if value is not None]

    def token_counts(self, partner: str) -> dict[str, int]:
        """Return the counts of a partner by the names in `TOKEN_COUNTERS`, for whoever counts to add to.

        They are read whenever metrics are collected: a cache hit costs one addition.
        """
        if partner not in self._token_counts:
            counts = self._token_counts[partner] = dict.fromkeys(TOKEN_COUNTERS, 0)
            for name, metric in TOKEN_COUNTERS.items():
                self.observe(metric, {PARTNER: partner}, functools.partial(counts.get, name), is_counter=True)
        return self._token_counts[partner]

    @property
    def has_listener(self) -> bool:
        """Whether anything takes spans; without an SDK nothing need be put into one."""
        return self._has_own_tracer or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    @contextmanager
    def span(
        self,
        name: str,
        attributes: Mapping[str, str | int] | None = None,
        *,
        kind: trace.SpanKind = trace.SpanKind.CLIENT,
        is_detached: bool = False,
    ) -> Iterator[trace.Span]:
        """Make the block one span; an error marks it with its type, never with its text.

        It is a child of the current span or, detached, the first of a trace of its own with a link to that.
        """
        if not self.has_listener:
            yield trace.INVALID_SPAN
            return
        current = trace.get_current_span().get_span_context()
        with self._tracer.start_as_current_span(
            name,
            context=context.Context() if is_detached else None,
            kind=kind,
            attributes=attributes,
            links=[trace.Link(current)] if is_detached and current.is_valid else None,
            record_exception=False,  # it would record the text, which may not be ours
            set_status_on_exception=False,  # the same
        ) as span:
            try:
                yield span
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__qualname__)
                span.set_status(trace.StatusCode.ERROR)
                raise


@functools.cache
def process_telemetry() -> Telemetry:
    """Return the one Telemetry of this process, on OpenTelemetry's global providers."""
    return Telemetry()


def install_telemetry(environ: Mapping[str, str]) -> bool:
    """Set OpenTelemetry's SDK up if the settings ask for OTLP and nobody else has; return whether that was done.

    With Application Insights the Functions worker has done so before it imports the app. If a package is missing or a
    setting is wrong, one warning says so, and the app goes on without.
    """
    is_wanted = bool(environ.get(_ENDPOINT)) and environ.get(_SWITCH, "").strip().lower() in _TRUE
    if not is_wanted or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return False
    service = environ.get("OTEL_SERVICE_NAME") or environ.get("WEBSITE_SITE_NAME") or "business-relay"
    protocol = environ.get(_PROTOCOL) or "http/protobuf"
    try:
        if protocol in _EXPORTERS:
            _install(_EXPORTERS[protocol], service)
            return True
        reason = f"{_PROTOCOL} must be one of {', '.join(_EXPORTERS)}"
    except ImportError as exc:
        reason = f"{_ENDPOINT} is set, but {exc.name} is not installed"
    except ValueError:  # its text has the value: a URL or a header may hold a password
        reason = "one of the settings OTEL_… has a value that the SDK does not take"
    logger.warning("telemetry is not sent", extra={"reason": reason})
    return False


def _install(package: str, service: str) -> None:
    """Build the three pipelines, then make them the process's."""
    # azure-functions-durable requires the SDK; the exporters are an extra of this package.
    from opentelemetry import _logs, metrics  # noqa: PLC0415
    from opentelemetry.sdk import _logs as sdk_logs  # noqa: PLC0415
    from opentelemetry.sdk import metrics as sdk_metrics  # noqa: PLC0415
    from opentelemetry.sdk import trace as sdk_trace  # noqa: PLC0415
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor  # noqa: PLC0415
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader  # noqa: PLC0415
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    def exporter(module: str, kind: str) -> Any:  # noqa: ANN401, which package it comes from is a setting
        return getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.{package}.{module}"), kind)()

    resource = Resource.create({"service.name": service})
    spans = sdk_trace.TracerProvider(resource=resource)
    spans.add_span_processor(BatchSpanProcessor(exporter("trace_exporter", "OTLPSpanExporter")))
    points = PeriodicExportingMetricReader(exporter("metric_exporter", "OTLPMetricExporter"))
    lines = sdk_logs.LoggerProvider(resource)
    lines.add_log_record_processor(BatchLogRecordProcessor(exporter("_log_exporter", "OTLPLogExporter")))
    metrics.set_meter_provider(sdk_metrics.MeterProvider([points], resource))
    _logs.set_logger_provider(lines)
    logging.getLogger("shared").addHandler(TelemetryHandler(lines))  # the app's own lines, no others
    trace.set_tracer_provider(spans)  # last: whoever asks whether there is telemetry looks here


class TelemetryHandler(logging.Handler):
    """Passes each log line on to OpenTelemetry, in the trace of the current span, with `extra` fields as attributes.

    A field that is None is left out. An error goes with its type and traceback.
    """

    def __init__(self, provider: LoggerProvider) -> None:
        super().__init__()
        self._provider = provider

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        from opentelemetry._logs import LogRecord, SeverityNumber  # noqa: PLC0415, the same

        # Python's levels are ten apart, from DEBUG to CRITICAL, OpenTelemetry's severities four, from TRACE to FATAL.
        severity = SeverityNumber(1 + 4 * min(record.levelno // logging.DEBUG, 5))
        extra = {name: value for name, value in vars(record).items() if name not in _OWN and value is not None}
        attributes = {k: v if isinstance(v, str | bool | int | float) else str(v) for k, v in extra.items()}
        self._provider.get_logger(record.name).emit(
            LogRecord(
                timestamp=int(record.created * 1e9),
                context=context.get_current(),
                severity_number=severity,
                severity_text=record.levelname,
                body=record.getMessage(),
                attributes=attributes,
                exception=record.exc_info[1] if record.exc_info else None,
            )
        )
