"""What this package tells OpenTelemetry: names, counters, histograms and spans. Needs the API only; no SDK, no cost.

Token metrics all carry the attribute `business_relay.client`, the name of the API client ("BUSINESS_API"):

business_relay.token.hit                    counter, calls answered with a token that was there
business_relay.token.joined                 counter, calls that waited for a token request of another call
business_relay.token.requested              counter, token requests begun
business_relay.token.failed                 counter, token requests that brought no usable token
business_relay.token.renewed_after_refusal  counter, tokens that replaced one the API had refused
business_relay.token.request.duration       histogram, seconds one token request took
business_relay.token.time_to_expiry         histogram, seconds the old token had left when a new one replaced it

Each token request is one span, "request access token". No name, attribute or status holds a token or a secret.
"""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SCOPE = "business_relay"
CLIENT = "business_relay.client"


@dataclass(frozen=True, slots=True)
class Metric:
    """The name, UCUM unit and meaning of one instrument."""

    name: str
    unit: str
    description: str


TOKEN_REQUEST_DURATION = Metric("business_relay.token.request.duration", "s", "How long one token request took")
TOKEN_TIME_TO_EXPIRY = Metric(
    "business_relay.token.time_to_expiry", "s", "What the old token had left when a new one replaced it"
)
_TOKEN_COUNTERS = {
    "hit": Metric("business_relay.token.hit", "{call}", "Calls answered with a token that was there"),
    "joined": Metric("business_relay.token.joined", "{call}", "Calls that waited for a token request of another call"),
    "requested": Metric("business_relay.token.requested", "{request}", "Token requests begun"),
    "failed": Metric("business_relay.token.failed", "{request}", "Token requests that brought no usable token"),
    "renewed_after_refusal": Metric(
        "business_relay.token.renewed_after_refusal", "{token}", "Tokens that replaced one the API had refused"
    ),
}


@dataclass(slots=True)
class TokenCounts:
    """What happened to the tokens of one API client, as plain integers: counting costs a cache hit next to nothing."""

    hit: int = 0
    joined: int = 0
    requested: int = 0
    failed: int = 0
    renewed_after_refusal: int = 0


class Telemetry:
    """The instruments of one process. The providers are OpenTelemetry's global ones where none are given."""

    def __init__(
        self,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._histograms: dict[Metric, metrics.Histogram] = {}
        self._token_counts: dict[str, TokenCounts] = {}
        for field, metric in _TOKEN_COUNTERS.items():
            self._meter.create_observable_counter(
                metric.name, [functools.partial(self._observe, field)], metric.unit, metric.description
            )

    def token_counts(self, client: str) -> TokenCounts:
        """Give the counts of the API client of this name; they are read whenever the SDK collects."""
        return self._token_counts.setdefault(client, TokenCounts())

    def _observe(self, field: str, _: metrics.CallbackOptions) -> Iterable[metrics.Observation]:
        # The SDK's own thread collects: a copy, because a new client may come meanwhile.
        counts = self._token_counts.copy()
        return [metrics.Observation(getattr(count, field), {CLIENT: client}) for client, count in counts.items()]

    def record(self, metric: Metric, value: float, attributes: Mapping[str, str]) -> None:
        """Add one value to the histogram of this metric."""
        histogram = self._histograms.get(metric)
        if histogram is None:
            histogram = self._meter.create_histogram(metric.name, metric.unit, metric.description)
            self._histograms[metric] = histogram
        histogram.record(value, attributes)

    @contextmanager
    def token_request(self, client: str) -> Iterator[None]:
        """Make the block one token request: a span and its duration."""
        attributes = {CLIENT: client}
        began_at = time.perf_counter()
        try:
            with self.span("request access token", attributes):
                yield
        finally:
            self.record(TOKEN_REQUEST_DURATION, time.perf_counter() - began_at, attributes)

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, str]) -> Iterator[None]:
        """Make everything in the block one client span; an error marks it with its type, never with its text."""
        with self._tracer.start_as_current_span(
            name,
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            record_exception=False,  # it would record the text, which may not be ours
            set_status_on_exception=False,  # the same
        ) as span:
            try:
                yield
            except BaseException as exc:
                span.set_attribute("error.type", type(exc).__qualname__)
                span.set_status(trace.StatusCode.ERROR)
                raise


@functools.cache
def process_telemetry() -> Telemetry:
    """Give the one Telemetry of this process, on OpenTelemetry's global providers."""
    return Telemetry()
