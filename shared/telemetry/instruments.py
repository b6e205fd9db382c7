"""Telemetry: the metrics and spans of one process. It needs OpenTelemetry's API only, no SDK."""

from __future__ import annotations

import functools
import time
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.context import Context

from shared.telemetry.names import BUCKETS, PARTNER, SCOPE, TOKEN_COUNTERS, TOKEN_REQUEST_DURATION, Metric

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from opentelemetry import metrics

    Attributes = Mapping[str, str]
    Read = Callable[[], float | None]


@dataclass(slots=True)
class TokenCounts:
    """What happened to the tokens of one partner, as plain integers: counting costs a cache hit next to nothing."""

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
    """The instruments of one process. Without arguments its providers are OpenTelemetry's global ones.

    An instrument is made on first use; `count`, `record` and `observe` are all there is to a new metric.
    """

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
        counter = self._instruments.get(metric)
        if counter is None:
            counter = self._meter.create_counter(metric.name, metric.unit, metric.description)
            self._instruments[metric] = counter
        counter.add(by, attributes)

    def record(self, metric: Metric, value: float, attributes: Attributes) -> None:
        """Add one value to a histogram of seconds."""
        histogram = self._instruments.get(metric)
        if histogram is None:
            histogram = self._meter.create_histogram(
                metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=BUCKETS
            )
            self._instruments[metric] = histogram
        histogram.record(value, attributes)

    def observe(
        self, metric: Metric, attributes: Attributes, read: Read, *, is_counter: bool = False
    ) -> Callable[[], None]:
        """Have a gauge read whenever metrics are collected, on the collector's thread; None is no value.

        With `is_counter` it is a counter that somebody else counts. There is one reader for each set of attributes, the
        last. Return a function that ends it.
        """
        if metric not in self._observed:
            self._observed[metric] = {}
            create = self._meter.create_observable_counter if is_counter else self._meter.create_observable_gauge
            create(metric.name, [functools.partial(self._read, metric)], metric.unit, metric.description)
        readers, key = self._observed[metric], frozenset(attributes.items())
        readers[key] = read

        def stop() -> None:
            if readers.get(key) is read:
                del readers[key]

        return stop

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
    def token_request(self, partner: str, *, is_ahead: bool = False) -> Iterator[TokenRequestSpan]:
        """Make the block one token request: a span and, unless it takes a shared token, its duration.

        One that runs ahead of the old token's end delays nobody: it begins a trace, with a link to the span that saw
        that it was time.
        """
        attributes = {PARTNER: partner}
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
        """Make the block one span; an error marks it with its type, never with its text.

        It is a child of the current span or, detached, the first of a trace of its own with a link to that.
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
    """Return the one Telemetry of this process, on OpenTelemetry's global providers."""
    return Telemetry()
