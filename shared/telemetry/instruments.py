"""What this package tells OpenTelemetry: names, counters, histograms and spans. Needs the API only; no SDK, no cost.

Spans, the outer one first; docs/telemetry.md has their attributes:

delivery attempt                            one attempt to deliver a record
POST /business/                             one call to the partner; its trace context goes along
GET /business/by-external/{externalId}      the same
request access token                        one token request; where another process's token did instead of one, it
                                            is called "take shared access token"

Token metrics all carry the attribute `business_relay.client`, the name of the API client ("BUSINESS_API"):

business_relay.token.hit                    counter, calls answered with a token that was there
business_relay.token.joined                 counter, calls that waited for a token request of another call
business_relay.token.requested              counter, token requests that have ended
business_relay.token.shared                 counter, tokens taken from the token store instead of a request
business_relay.token.failed                 counter, token requests that brought no usable token
business_relay.token.renewed_after_refusal  counter, tokens that replaced one the API had refused
business_relay.token.request.duration       histogram, seconds one token request took
business_relay.token.time_to_expiry         histogram, seconds the old token had left when a new one replaced it

No name, attribute or status holds a token or a secret.
"""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import metrics, trace
from opentelemetry.context import Context

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

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
    "requested": Metric("business_relay.token.requested", "{request}", "Token requests that have ended"),
    "shared": Metric(
        "business_relay.token.shared", "{token}", "Tokens taken from the token store instead of a request"
    ),
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
    shared: int = 0
    failed: int = 0
    renewed_after_refusal: int = 0


@dataclass(slots=True)
class TokenRequestSpan:
    """A token request under way, which may turn out to be none."""

    span: trace.Span
    is_shared: bool = False

    def take_shared(self) -> None:
        """Note that another process's token did: nothing was requested."""
        self.is_shared = True
        self.span.update_name("take shared access token")


class Telemetry:
    """The instruments of one process. The providers are OpenTelemetry's global ones where none are given."""

    def __init__(
        self,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        self._meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._has_own_tracer = tracer_provider is not None
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

    @property
    def has_listener(self) -> bool:
        """Whether anything takes spans; where there is no SDK, nothing need be put into one."""
        return self._has_own_tracer or not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)

    @contextmanager
    def token_request(self, client: str, *, is_ahead: bool = False) -> Iterator[TokenRequestSpan]:
        """Make the block one token request: a span and, unless it takes a shared token, its duration.

        One that runs ahead of the old token's end is nobody's: it begins a trace, with a link to the span that saw that
        it was time.
        """
        attributes = {CLIENT: client}
        began_at = time.perf_counter()
        request = TokenRequestSpan(trace.INVALID_SPAN)
        try:
            with self.span("request access token", attributes, is_detached=is_ahead) as request.span:
                yield request
        finally:
            if not request.is_shared:
                self.record(TOKEN_REQUEST_DURATION, time.perf_counter() - began_at, attributes)

    def span(
        self,
        name: str,
        attributes: Mapping[str, str | int] | None = None,
        *,
        kind: trace.SpanKind = trace.SpanKind.CLIENT,
        is_detached: bool = False,
    ) -> AbstractContextManager[trace.Span]:
        """Make everything in the block one span; an error marks it with its type, never with its text.

        It is a child of the span that is current, or, detached, the first of a trace of its own with a link to that.
        """
        if not self.has_listener:
            return nullcontext(trace.INVALID_SPAN)
        return self._span(name, attributes, kind, is_detached=is_detached)

    @contextmanager
    def _span(
        self, name: str, attributes: Mapping[str, str | int] | None, kind: trace.SpanKind, *, is_detached: bool
    ) -> Iterator[trace.Span]:
        seen_by = trace.get_current_span().get_span_context()
        with self._tracer.start_as_current_span(
            name,
            context=Context() if is_detached else None,
            kind=kind,
            attributes=attributes,
            links=[trace.Link(seen_by)] if is_detached and seen_by.is_valid else None,
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
    """Give the one Telemetry of this process, on OpenTelemetry's global providers."""
    return Telemetry()
