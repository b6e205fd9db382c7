"""Each test has a process of its own: OpenTelemetry is set up once in a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.otlp_collector import OtlpCollector

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PROLOGUE = """
import logging, os, sys
logging.basicConfig(format="%(levelname)s %(name)s %(message)s: %(reason)s", level="INFO", stream=sys.stdout)
from shared.telemetry import install_telemetry
"""
# The SDK sends what it still has when the process ends.
DELIVERY = """
print(install_telemetry(os.environ))
from shared.telemetry import process_telemetry
telemetry = process_telemetry()
telemetry.token_counts("BUSINESS_API")["requested"] = 7
with telemetry.span("delivery attempt", {"a": 1}):
    logging.getLogger("shared.delivery").warning("event", extra={"instance_id": "i", "reason": "r"})
    logging.getLogger("elsewhere").warning("event", extra={"reason": "not the app's"})
"""


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as running:
        yield running


def run(program: str, **environ: str) -> list[str]:
    """Give what a process prints that has these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTHON_ENABLE"))}
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-W", "error", "-c", PROLOGUE + program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=inherited | environ,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def on(collector: OtlpCollector, **more: str) -> dict[str, str]:
    return {"PYTHON_ENABLE_OPENTELEMETRY": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, **more}


def test_spans_metrics_and_the_apps_own_lines_reach_the_collector(collector: OtlpCollector) -> None:
    assert run(DELIVERY, **on(collector))[0] == "True"

    [span], [line] = collector.spans, collector.lines
    assert (span.name, span.service, span.attributes) == ("delivery attempt", "business-relay", {"a": 1})
    assert (line.body, line.trace_id, line.span_id) == ("event", span.trace_id, span.span_id)
    assert line.attributes == {"instance_id": "i", "reason": "r"}
    assert collector.metrics["business_relay.token.requested"] == 7


def test_the_exporters_obey_the_settings_of_opentelemetry(collector: OtlpCollector) -> None:
    headers = {
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=s3cret",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test",
    }

    names = {"WEBSITE_SITE_NAME": "func-relay", "OTEL_SERVICE_NAME": "relay"}
    run(DELIVERY, **on(collector, **headers, **names, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"))

    assert [span.service for span in collector.spans] == ["relay"]
    assert collector.headers
    assert {next(v for n, v in sent.items() if n.lower() == "api-key") for sent in collector.headers} == {"s3cret"}
    assert any(b"deployment.environment" in sent for sent in collector.received)


def test_the_service_has_the_name_of_the_function_app(collector: OtlpCollector) -> None:
    run(DELIVERY, **on(collector, WEBSITE_SITE_NAME="func-relay"))

    assert [span.service for span in collector.spans] == ["func-relay"]


def test_where_it_is_not_asked_for_no_sdk_is_imported() -> None:
    settings = [
        {},
        {"PYTHON_ENABLE_OPENTELEMETRY": "true"},
        {"PYTHON_ENABLE_OPENTELEMETRY": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHON_ENABLE_OPENTELEMETRY": "false"},
    ]
    program = f"""
print([install_telemetry(environ) for environ in {settings}])
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    assert run(program) == [str([False] * len(settings)), "[]"]


def test_it_leaves_alone_what_somebody_else_has_set_up(collector: OtlpCollector) -> None:
    program = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
provider = TracerProvider()
trace.set_tracer_provider(provider)
print(install_telemetry(os.environ), trace.get_tracer_provider() is provider, logging.getLogger("shared").handlers)
"""
    assert run(program, **on(collector)) == ["False True []"]
    assert collector.received == []


def test_what_keeps_it_from_being_sent_is_one_warning_without_a_value(collector: OtlpCollector) -> None:
    program = """
for name, value in (
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "pigeon-4711"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ("OTEL_METRIC_EXPORT_INTERVAL", "-4711"),
):
    os.environ[name] = value
    install_telemetry(os.environ)
    del os.environ[name]
sys.modules["opentelemetry.exporter.otlp.proto.http.trace_exporter"] = None
"""
    printed = run(program + DELIVERY, **on(collector))

    missing = "OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry.exporter.otlp.proto"
    warnings = [line for line in printed if "telemetry is not sent" in line]
    assert [line.partition("telemetry is not sent: ")[2] for line in warnings] == [
        "OTEL_EXPORTER_OTLP_PROTOCOL must be one of http/protobuf, grpc",
        f"{missing}.grpc is not installed",
        "one of the settings OTEL_… has a value that the SDK does not take",
        f"{missing}.http.trace_exporter is not installed",
    ]
    assert all(line.startswith("WARNING shared.telemetry") for line in warnings)
    assert "False" in printed
    assert collector.received == []


def test_importing_the_app_installs_nothing_and_a_second_call_does_nothing(collector: OtlpCollector) -> None:
    program = """
from opentelemetry import trace
import shared.client.resource_api
print(type(trace.get_tracer_provider()).__name__)
print(install_telemetry(os.environ), install_telemetry(os.environ), len(logging.getLogger("shared").handlers))
"""
    assert run(program, **on(collector)) == ["ProxyTracerProvider", "True False 1"]
