"""The names of this app's metrics. docs/telemetry.md has them, and the spans with their attributes.

All metrics carry the attribute `PARTNER`, the name of the partner ("BUSINESS_API"), and those of deliveries also
`RESOURCE`, the name of the record type ("Business"). No name or attribute holds an id, a token or a secret.
"""

from __future__ import annotations

from dataclasses import dataclass

SCOPE = "business_relay"
PARTNER = "business_relay.partner"
RESOURCE = "business_relay.resource"
CLIENT = PARTNER
"""The attribute of token metrics: an API client is named after its partner."""


@dataclass(frozen=True, slots=True)
class Metric:
    """The name, UCUM unit and meaning of one instrument."""

    name: str
    unit: str
    description: str


DELIVERIES_ACCEPTED = Metric("business_relay.delivery.accepted", "{record}", "Records accepted from callers")
DELIVERIES_DELIVERED = Metric("business_relay.delivery.delivered", "{record}", "Records that the partner has")
DELIVERIES_REJECTED = Metric(
    "business_relay.delivery.rejected", "{record}", "Records that the partner refused for good"
)
DELIVERIES_EXPIRED = Metric("business_relay.delivery.expired", "{record}", "Records given up at their deadline")
DELIVERIES_REWOUND = Metric(
    "business_relay.delivery.rewound", "{delivery}", "Failed orchestrations that were started again"
)
DELIVERY_DURATION = Metric("business_relay.delivery.duration", "s", "From the acceptance of a record to its end")
DELIVERIES_WAITING = Metric("business_relay.delivery.waiting", "{delivery}", "Deliveries that are under way")
DELIVERY_OLDEST = Metric("business_relay.delivery.oldest", "s", "Age of the oldest delivery that is under way")

FLOW_LIMIT = Metric("business_relay.flow.limit", "{call}", "Calls that may be under way at once")
FLOW_RATE = Metric("business_relay.flow.rate", "{call}/s", "Calls that may begin each second")
FLOW_IN_FLIGHT = Metric("business_relay.flow.in_flight", "{call}", "Calls that are under way")

TOKEN_REQUEST_DURATION = Metric("business_relay.token.request.duration", "s", "Time that one token request took")
TOKEN_TIME_TO_EXPIRY = Metric(
    "business_relay.token.time_to_expiry", "s", "Time that the old token had left when a new one replaced it"
)
TOKEN_COUNTERS = {
    "hit": Metric("business_relay.token.hit", "{call}", "Calls answered with the cached token"),
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
"""By the field of `TokenCounts`."""

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0)
"""Seconds: the bounds of every histogram. OpenTelemetry's own are milliseconds."""
