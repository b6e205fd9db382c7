"""TracedExchange: an exchange that is a span, and sends its trace context along (W3C Trace Context)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.api.http_exchange import Exchange
    from shared.api.reply import Reply
    from shared.telemetry import Telemetry

# The paths of the API, with no id in them: names of spans are few.
_NAMES = {"POST": "POST /business/", "GET": "GET /business/by-external/{externalId}"}
# `traceparent` and `tracestate` and nothing else: the baggage is ours.
_PROPAGATOR = TraceContextTextMapPropagator()
_FIRST_ERROR = 400
_NOT_FOUND = 404


class TracedExchange:
    """Makes each exchange of another one span, from before its token to after its response.

    A refused token, its renewal and the replay are one exchange. The attributes are those that OpenTelemetry has for
    HTTP clients, without the URL: it may hold an external id.
    """

    def __init__(self, exchange: Exchange, base_url: str, telemetry: Telemetry) -> None:
        url = URL(base_url, encoded=True)
        self._exchange = exchange
        # Settings let no URL through without a host, and each scheme that they let through has a port.
        self._server: dict[str, str | int] = {"server.address": url.host or "", "server.port": url.port or 0}
        self._telemetry = telemetry

    async def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Give the response of the other exchange, or raise what it raises."""
        attributes = {"http.request.method": method, **self._server}
        with self._telemetry.span(_NAMES[method], attributes) as span:
            all_headers = dict(headers)
            _PROPAGATOR.inject(all_headers)
            reply = await self._exchange(method, path, all_headers, body)
            span.set_attribute("http.response.status_code", reply.status)
            # That a record is not there yet is what a look-up before the first post is to find.
            if reply.status >= _FIRST_ERROR and not (method == "GET" and reply.status == _NOT_FOUND):
                span.set_attribute("error.type", str(reply.status))
                span.set_status(StatusCode.ERROR)
            return reply
