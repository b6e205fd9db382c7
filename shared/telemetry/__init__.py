"""Telemetry: the metrics and spans of one process. It needs OpenTelemetry's API only: `export` installs the SDK.

All metrics carry the attribute `PARTNER`, the name of the partner ("BUSINESS_API"), and those of deliveries also
`RESOURCE`, the name of the record type ("Business"). No name or attribute holds an id, a token or a secret.
"""

from __future__ import annotations

import functools
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from opentelemetry import metrics

    Attributes = Mapping[str, str]
    Read = Callable[[], float | None]

SCOPE = "business_relay"
PARTNER = "business_relay.partner"
RESOURCE = "business_relay.resource"


@dataclass(frozen=True, slots=True)
class Metric:
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
    "joined": Metric("business_relay.token.joined", "{call}", "Calls that waited for the token request of another"),
    "requested": Metric("business_relay.token.requested", "{request}", "Token requests that have ended"),
    "shared": Metric("business_relay.token.shared", "{token}", "Tokens taken from the token store"),
    "failed": Metric("business_relay.token.failed", "{request}", "Token requests that brought no usable token"),
    "renewed_after_refusal": Metric(
        "business_relay.token.renewed_after_refusal", "{token}", "Tokens that replaced one the API had refused"
    ),
}
"""By the field of `TokenCounts`."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""Seconds: the bounds of every histogram. OpenTelemetry's own are milliseconds."""


@dataclass(slots=True)
class TokenCounts:
    """What happened to the tokens of one partner, as plain integers: counting costs a cache hit next to nothing."""

    hit: int = 0
    joined: int = 0
    requested: int = 0
    shared: int = 0
    failed: int = 0
    renewed_after_refusal: int = 0


class Telemetry:
    """The instruments of one process, each made on first use. The default providers are OpenTelemetry's global ones."""

    def __init__(
        self,
        meter_provider: metrics.MeterProvider | None = None,
        tracer_provider: trace.TracerProvider | None = None,
    ) -> None:
        from opentelemetry import metrics  # noqa: PLC0415, not for a cold start

        self._meter = metrics.get_meter(SCOPE, meter_provider=meter_provider)
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._has_own_tracer = tracer_provider is not None
        self._instruments: dict[Metric, Any] = {}  # counters and histograms
        self._observed: dict[Metric, dict[frozenset[tuple[str, str]], Read]] = {}
        self._token_counts: dict[str, TokenCounts] = {}

    def count(self, metric: Metric, attributes: Attributes, by: int = 1) -> None:
        """Add to a counter."""
        if metric not in self._instruments:
            self._instruments[metric] = self._meter.create_counter(metric.name, metric.unit, metric.description)
        self._instruments[metric].add(by, attributes)

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        """Add one value to a histogram of seconds."""
        if metric not in self._instruments:
            self._instruments[metric] = self._meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=BUCKETS
            )
        self._instruments[metric].record(value, attributes)

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

    def token_counts(self, partner: str) -> TokenCounts:
        """Return the counts of the partner of this name; they are read whenever metrics are collected."""
        counts = self._token_counts.get(partner)
        if counts is None:
            counts = self._token_counts[partner] = TokenCounts()
            for field in fields(TokenCounts):
                read = functools.partial(getattr, counts, field.name)
                self.observe(TOKEN_COUNTERS[field.name], {PARTNER: partner}, read, is_counter=True)
        return counts

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
            context=Context() if is_detached else None,
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
