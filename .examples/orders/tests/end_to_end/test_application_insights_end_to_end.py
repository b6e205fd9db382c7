"""With the settings of the templates, the worker's telemetry reaches Application Insights, in the host's trace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.processes import SandboxProcess, app_settings
from sandbox.sample import business
from tests.end_to_end.stage import SECRETS, finished, until
from tests.fakes.ingestion_endpoint import IngestionEndpoint
from tests.fakes.otlp_collector import OtlpCollector
from tests.fakes.recording_proxy import RecordingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    import httpx

    from tests.fakes.ingestion_endpoint import Item

pytestmark = pytest.mark.long

MAIN = Path(__file__).parents[2] / "infra" / "main.bicep"
# An operation id of Application Insights is a trace id.
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
SOON = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    # What the exporter would tell Microsoft about itself, and ask Microsoft about its own features.
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
}
# The exporter names a call by its method and the path of its URL, and the app gives no URL away.
LOOK_UP, POST, TOKEN, ATTEMPT = "GET /", "POST /", "request access token", "delivery attempt"


def template_settings() -> dict[str, str]:
    """Return the app settings with which the templates switch the worker's telemetry on."""
    settings = MAIN.read_text().partition("var workerTelemetrySettings = {")[2].partition("}")[0]
    return dict(re.findall(r"(\w+): '([^']*)'", settings))


@pytest.fixture
def insights() -> Iterator[IngestionEndpoint]:
    with IngestionEndpoint() as running:
        yield running


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as running:
        yield running


@pytest.fixture
def partner(processes: ExitStack) -> SandboxProcess:
    return processes.enter_context(SandboxProcess("partner", ["--port", "0"]))


@pytest.fixture
def proxy(processes: ExitStack, partner: SandboxProcess) -> RecordingProxy:
    return processes.enter_context(RecordingProxy(partner.url))


@pytest.fixture
def host(
    processes: ExitStack, proxy: RecordingProxy, insights: IngestionEndpoint, collector: OtlpCollector, tmp_path: Path
) -> SandboxProcess:
    """The app: its worker sends to Application Insights, its host, which in Azure does so too, to a collector."""
    settings = app_settings(proxy.url) | SOON | template_settings()
    settings |= {"APPLICATIONINSIGHTS_CONNECTION_STRING": insights.connection_string, "TMPDIR": str(tmp_path)}
    settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
    return processes.enter_context(SandboxProcess("host", ["--port", "0"], settings))


async def deliver(host: SandboxProcess, http: httpx.AsyncClient, count: int = 0) -> dict[str, Any]:
    """Deliver a business, or a batch of so many, in the caller's trace; give the orchestration's status."""
    records = [business(f"b-{number}") for number in range(1, max(count, 1) + 1)]
    path, content = ("businesses/batch", records) if count else ("businesses", records[0])
    accepted = await http.post(f"{host.url}/api/{path}", json=content, headers=CALLER)
    assert accepted.status_code == 202, accepted.text
    return await finished(http, accepted.json()["statusQueryGetUri"])


async def spans_of(insights: IngestionEndpoint, count: int) -> dict[str, Item]:
    """Wait until so many spans of the caller's trace have come; give them by their ids."""

    async def look() -> dict[str, Item] | None:
        spans = insights.spans(TRACE)
        return spans if len(spans) >= count else None

    return await until(look)


async def test_one_operation_leads_from_the_activity_to_the_partner_and_the_token_endpoint(
    host: SandboxProcess,
    http: httpx.AsyncClient,
    insights: IngestionEndpoint,
    collector: OtlpCollector,
    proxy: RecordingProxy,
) -> None:
    status = await deliver(host, http)
    spans = await spans_of(insights, 4)

    async def look() -> str | None:
        served = [span for span in collector.named("activity:PostBusiness") if span.kind == "server"]
        return served[0].span_id if served else None

    activity = await until(look)
    parents = {item.name: spans[item.parent_id].name if item.parent_id in spans else None for item in spans.values()}
    assert status["runtimeStatus"] == "Completed"
    assert parents == {ATTEMPT: None, LOOK_UP: ATTEMPT, TOKEN: LOOK_UP, POST: ATTEMPT}
    assert [item.parent_id for item in spans.values() if item.name == ATTEMPT] == [activity]
    assert {span.trace_id for span in collector.spans} == {TRACE}
    assert {span.service for span in collector.spans} == {"sandbox-host"}
    sent = {each.method: each.headers["traceparent"] for each in proxy.passed if "business" in each.path}
    ids = {item.name: span_id for span_id, item in spans.items()}
    assert sent == {"GET": f"00-{TRACE}-{ids[LOOK_UP]}-01", "POST": f"00-{TRACE}-{ids[POST]}-01"}
    [token_request] = [each for each in proxy.passed if each.path == "/auth/token"]
    assert "traceparent" not in token_request.headers


async def test_log_lines_say_which_delivery_and_which_attempt_in_its_operation(
    host: SandboxProcess, http: httpx.AsyncClient, insights: IngestionEndpoint, partner: SandboxProcess
) -> None:
    fault = {"fault": "status", "route": "post", "status": 503, "times": 1}
    assert (await http.put(f"{partner.url}/sandbox/faults", json=[fault])).status_code == 200

    status = await deliver(host, http)

    async def look() -> list[Item] | None:
        lines = insights.lines(ATTEMPT)
        return sorted(lines, key=lambda line: line.properties["attempt"]) if len(lines) == 2 else None

    first, second = await until(look)
    spans = await spans_of(insights, 7)
    facts = {"instance_id": status["instanceId"], "external_id": "b-1"}
    assert "503" in first.properties["reason"]
    assert first.properties.items() >= (facts | {"attempt": "1", "outcome": "deferred", "status": "503"}).items()
    assert second.properties.items() >= (facts | {"attempt": "2", "outcome": "created", "status": "201"}).items()
    # Levels of Application Insights: 1 is information, 2 a warning.
    assert (first.data["severityLevel"], second.data["severityLevel"]) == (2, 1)
    for line in (first, second):
        assert line.operation_id == TRACE
        assert spans[line.parent_id].properties["business_relay.attempt"] == line.properties["attempt"]
    [accepted] = insights.lines("delivery accepted")
    assert (accepted.operation_id, accepted.properties["instance_id"]) == (TRACE, status["instanceId"])


async def test_no_record_of_a_batch_is_sampled_out(
    host: SandboxProcess, http: httpx.AsyncClient, insights: IngestionEndpoint
) -> None:
    status = await deliver(host, http, 40)
    spans = await spans_of(insights, 3 * 40 + 1)
    names = [item.name for item in spans.values()]
    assert status["output"]["created"] == 40
    assert [names.count(name) for name in (ATTEMPT, LOOK_UP, POST, TOKEN)] == [40, 40, 40, 1]


async def test_counters_arrive_and_neither_secrets_nor_the_exporters_own_lines_do(
    host: SandboxProcess, http: httpx.AsyncClient, insights: IngestionEndpoint
) -> None:
    await deliver(host, http)
    await spans_of(insights, 4)

    async def look() -> bool:
        return insights.metrics().get("business_relay.token.requested") == 1

    assert await until(look)
    shown = b"".join(insights.received)
    assert b"delivery accepted" in shown
    assert not any(secret.encode() in shown for secret in SECRETS)
    loggers = {item.properties["logger_name"].partition(".")[0] for item in insights.items if item.kind == "Message"}
    assert loggers == {"shared"}
