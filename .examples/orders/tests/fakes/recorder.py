"""An OpenTelemetry SDK that keeps what it records."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry import PARTNER, Telemetry

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class Recorder:
    """An SDK of its own, and what it has recorded."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self._spans = InMemorySpanExporter()
        self.meter_provider = MeterProvider([self._reader])
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracer = self.tracer_provider.get_tracer("test")
        self.telemetry = Telemetry(self.meter_provider, self.tracer_provider)

    def document(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        assert data is not None
        document: dict[str, Any] = json.loads(data.to_json())
        return document

    def metrics(self) -> dict[str, dict[str, Any]]:
        """Give the metrics by name."""
        [resource] = self.document()["resource_metrics"]
        [scope] = resource["scope_metrics"]
        assert scope["scope"]["name"] == "business_relay"
        return {metric["name"]: metric for metric in scope["metrics"]}

    def points(self, name: str) -> dict[str, Any]:
        """Give the data points of one metric by partner."""
        return {point["attributes"][PARTNER]: point for point in self.metrics()[name]["data"]["data_points"]}

    def counts(self, partner: str) -> dict[str, int]:
        names = ("hit", "joined", "requested", "shared", "failed", "renewed_after_refusal")
        return {name: self.points(f"business_relay.token.{name}")[partner]["value"] for name in names}

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self._spans.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        """Give the one span of this name."""
        [span] = [span for span in self.spans if span.name == name]
        return span

    def shut_down(self) -> None:
        self.meter_provider.shutdown()
        self.tracer_provider.shutdown()
