"""What this app tells OpenTelemetry. Importing it installs nothing: `shared.telemetry.export` does, once."""

from shared.telemetry.instruments import Telemetry, TokenCounts, TokenRequestSpan, process_telemetry
from shared.telemetry.names import CLIENT, PARTNER, RESOURCE, TOKEN_TIME_TO_EXPIRY, Metric

__all__ = [
    "CLIENT",
    "PARTNER",
    "RESOURCE",
    "TOKEN_TIME_TO_EXPIRY",
    "Metric",
    "Telemetry",
    "TokenCounts",
    "TokenRequestSpan",
    "process_telemetry",
]
