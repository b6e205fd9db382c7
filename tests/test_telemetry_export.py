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

    run(DELIVERY, **on(collector, **headers, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"))

    assert collector.headers
    assert {next(v for n, v in sent.items() if n.lower() == "api-key") for sent in collector.headers} == {"s3cret"}
    assert any(b"deployment.environment" in sent for sent in collector.received)


@pytest.mark.parametrize(
    ("settings", "service"),
    [
        ({"WEBSITE_SITE_NAME": "func-relay"}, "func-relay"),
        ({"WEBSITE_SITE_NAME": "func-relay", "OTEL_SERVICE_NAME": "relay"}, "relay"),
    ],
)
def test_the_service_has_the_name_of_the_function_app_or_the_one_that_is_set(
    collector: OtlpCollector, settings: dict[str, str], service: str
) -> None:
    run(DELIVERY, **on(collector, **settings))

    assert [span.service for span in collector.spans] == [service]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"PYTHON_ENABLE_OPENTELEMETRY": "true"},
        {"PYTHON_ENABLE_OPENTELEMETRY": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "PYTHON_ENABLE_OPENTELEMETRY": "false"},
    ],
)
def test_where_it_is_not_asked_for_no_sdk_is_imported(settings: dict[str, str]) -> None:
    program = """
print(install_telemetry(os.environ))
print([name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))])
"""
    assert run(program, **settings) == ["False", "[]"]


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


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
def test_a_package_that_is_missing_is_one_warning_and_nothing_else(collector: OtlpCollector, missing: str) -> None:
    printed = run(f"sys.modules[{missing!r}] = None\n" + DELIVERY, **on(collector))

    warnings = [line for line in printed if "telemetry is not sent" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("WARNING shared.telemetry telemetry is not sent: ")
    assert warnings[0].endswith(f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {missing} is not installed")
    assert "False" in printed
    assert collector.received == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "pigeon-4711"},
            "OTEL_EXPORTER_OTLP_PROTOCOL must be one of http/protobuf, grpc",
        ),
        (
            {"OTEL_METRIC_EXPORT_INTERVAL": "-4711"},
            "one of the settings OTEL_… has a value that the SDK does not take",
        ),
    ],
)
def test_a_setting_that_is_wrong_is_one_warning_without_its_value(
    collector: OtlpCollector, settings: dict[str, str], reason: str
) -> None:
    printed = run(DELIVERY, **on(collector, **settings))

    assert f"WARNING shared.telemetry telemetry is not sent: {reason}" in printed
    assert not any("4711" in line for line in printed)
    assert collector.received == []


def test_grpc_needs_a_package_of_its_own(collector: OtlpCollector) -> None:
    printed = run(DELIVERY, **on(collector, OTEL_EXPORTER_OTLP_PROTOCOL="grpc"))

    assert any("opentelemetry.exporter.otlp.proto.grpc is not installed" in line for line in printed)


def test_importing_the_app_installs_nothing_and_a_second_call_does_nothing(collector: OtlpCollector) -> None:
    program = """
from opentelemetry import trace
import shared.client.resource_api
print(type(trace.get_tracer_provider()).__name__)
print(install_telemetry(os.environ), install_telemetry(os.environ), len(logging.getLogger("shared").handlers))
"""
    assert run(program, **on(collector)) == ["ProxyTracerProvider", "True False 1"]
