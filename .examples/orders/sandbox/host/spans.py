"""The spans that the platform makes: of requests, orchestrations and activities, sent by OTLP where that is asked for.

Where they do not, a span is nothing but the trace context that it was given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sandbox.host.errors import StartError
from sandbox.host.messages import TraceContext
from sandbox.host.trace import new_trace_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import TracerProvider

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
HEADERS = "OTEL_EXPORTER_OTLP_HEADERS"
# The worker's own switch, which it needs on the platform as well.
WORKER_SWITCH = "PYTHON_ENABLE_OPENTELEMETRY"
# Seconds for one attempt to send spans: a collector that is gone shall not hold up the end of the host.
EXPORT_TIMEOUT = 2.0

_PROPAGATOR = TraceContextTextMapPropagator()


class Span:
    """A span under way; `context` is the trace context of what happens in it."""

    def __init__(self, context: TraceContext, span: trace.Span = trace.INVALID_SPAN) -> None:
        self.context = context
        self._span = span

    def set(self, name: str, value: str | int) -> None:
        """Return it an attribute."""
        self._span.set_attribute(name, value)

    def end(self, *, failed: bool = False) -> None:
        """End it."""
        if failed:
            self._span.set_status(trace.StatusCode.ERROR)
        self._span.end()


class Spans:
    """Makes spans, and sends them with the provider of an SDK; None: they go nowhere."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("sandbox.host") if provider is not None else None

    def begin(
        self,
        name: str,
        kind: trace.SpanKind,
        parent: TraceContext | None,
        attributes: Mapping[str, str | int],
    ) -> Span:
        """Begin a span below `parent`, or a trace where there is none."""
        if self._tracer is None:
            return Span(parent or new_trace_context())
        carrier = {} if parent is None else {"traceparent": parent.trace_parent, "tracestate": parent.trace_state}
        above = _PROPAGATOR.extract(carrier, Context())
        span = self._tracer.start_span(name, above, kind, attributes)
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span, Context()))
        context = TraceContext(trace_parent=carrier["traceparent"], trace_state=carrier.get("tracestate", ""))
        return Span(context, span)

    def close(self) -> None:
        """Send what has ended so far; takes up to some seconds where nobody listens."""
        if self._provider is not None:
            self._provider.shutdown()


def worker_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return what the worker process gets beside the app settings: where telemetry goes somewhere, it takes part."""
    return {WORKER_SWITCH: "true"} if settings.get(ENDPOINT) else {}


def spans_from_settings(settings: Mapping[str, str]) -> Spans:
    """Make the spans that the app settings ask for.

    Raises:
        StartError: the package that sends them is missing, or the protocol is another.
    """
    endpoint = settings.get(ENDPOINT)
    if not endpoint:
        return Spans()
    protocol = settings.get(PROTOCOL) or "http/protobuf"
    if protocol != "http/protobuf":
        raise StartError(f"{PROTOCOL} is {protocol!r}, but the sandbox's host sends its spans by http/protobuf")
    try:
        # They are the sandbox's requirements, but not those of the app that it runs.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.util.re import parse_env_headers  # noqa: PLC0415
    except ImportError as error:
        raise StartError(f"{ENDPOINT} is set, but {error.name} is not installed") from error
    provider = TracerProvider(resource=Resource.create({"service.name": "sandbox-host"}))
    headers = parse_env_headers(settings.get(HEADERS, ""), liberal=True)
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", headers=headers, timeout=EXPORT_TIMEOUT)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Spans(provider)
