"""What this app tells OpenTelemetry: metrics, spans and log lines."""

from shared.telemetry.instruments import *  # temporary
