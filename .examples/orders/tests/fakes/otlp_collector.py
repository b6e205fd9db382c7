"""An OpenTelemetry collector on a loopback socket: it decodes what comes by OTLP over HTTP, and keeps it."""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
ERROR = 2


@dataclass(frozen=True)
class CollectedSpan:
    """A span; ids are in hexadecimal, the parent's is "" for the first of a trace."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    has_failed: bool
    attributes: dict[str, object] = field(hash=False)
    links: tuple[str, ...]
    service: str

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-01"


@dataclass(frozen=True)
class CollectedLine:
    """A log record."""

    body: str
    severity: str
    trace_id: str
    span_id: str
    attributes: dict[str, object] = field(hash=False)


class OtlpCollector:
    """`received` has the bytes of every request; `spans`, `lines` and `metrics` (by name) what was in them."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.spans: list[CollectedSpan] = []
        self.lines: list[CollectedLine] = []
        self.metrics: dict[str, int] = defaultdict(int)
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, dict(self.headers.items()), body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.received.append(body)
        self.headers.append(headers)
        {"/v1/traces": self._take_spans, "/v1/logs": self._take_lines, "/v1/metrics": self._take_metrics}[path](body)

    def named(self, name: str) -> list[CollectedSpan]:
        return [span for span in self.spans if span.name == name]

    def tree(self, trace_id: str) -> list[tuple[int, str, str]]:
        """Give depth, kind and name of each span of a trace, every one below its parent, siblings by name."""
        spans = [span for span in self.spans if span.trace_id == trace_id]
        ids = {span.span_id for span in spans}

        def below(parent_ids: Iterable[str], depth: int) -> list[tuple[int, str, str]]:
            found: list[tuple[int, str, str]] = []
            for parent_id in parent_ids:
                for span in sorted((each for each in spans if each.parent_id == parent_id), key=lambda each: each.name):
                    found += [(depth, span.kind, span.name), *below([span.span_id], depth + 1)]
            return found

        return below(sorted({span.parent_id for span in spans} - ids), 0)

    def _take_spans(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = str(_attributes(resource.resource.attributes)["service.name"])
            for scope in resource.scope_spans:
                self.spans += [
                    CollectedSpan(
                        name=span.name,
                        kind=KINDS[span.kind],
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        trace_state=span.trace_state,
                        has_failed=span.status.code == ERROR,
                        attributes=_attributes(span.attributes),
                        links=tuple(link.trace_id.hex() for link in span.links),
                        service=service,
                    )
                    for span in scope.spans
                ]

    def _take_lines(self, body: bytes) -> None:
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            for scope in resource.scope_logs:
                self.lines += [
                    CollectedLine(
                        body=line.body.string_value,
                        severity=line.severity_text,
                        trace_id=line.trace_id.hex(),
                        span_id=line.span_id.hex(),
                        attributes=_attributes(line.attributes),
                    )
                    for line in scope.log_records
                ]

    def _take_metrics(self, body: bytes) -> None:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    values = [point.as_int for point in metric.sum.data_points]
                    self.metrics[metric.name] = max(self.metrics[metric.name], *values, 0)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, object]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
