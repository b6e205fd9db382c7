"""Spans, log lines and metrics of a delivery, at a collector and at Application Insights."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.resources import base_path
from tests.end_to_end.stage import RESOURCE, TOKEN, id_of, record, records, until
from tests.fakes.ingestion_endpoint import IngestionEndpoint
from tests.fakes.otlp_collector import OtlpCollector
from tests.fakes.recording_proxy import RecordingProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import ExitStack

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(RESOURCE.look_up is None, reason="the traces are those of a look-up and a post"),
]

MAIN = Path(__file__).parents[2] / "infra" / "main.bicep"
TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1", "baggage": "who=secret-agent"}
SOON = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "OTEL_SERVICE_NAME": "relay",
    # What the exporter would tell Microsoft about itself, and ask Microsoft about its own features.
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL": "true",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED": "true",
}
GET = f"GET {RESOURCE.look_up.path}" if RESOURCE.look_up else ""
POST = f"{RESOURCE.post.method} {RESOURCE.post.path}"
TOKEN_REQUEST, ATTEMPT = "request access token", "delivery attempt"
HOSTS_OWN = [
    (0, "server", f"POST /api/{RESOURCE.route}"),
    (1, "producer", f"create_orchestration:{RESOURCE.deliver}"),
    (2, "server", f"orchestration:{RESOURCE.deliver}"),
    (3, "client", f"activity:{RESOURCE.post_one}"),
    (4, "server", f"activity:{RESOURCE.post_one}"),
]
OF_ATTEMPT = [(5, "internal", ATTEMPT), (6, "client", GET), (7, "client", TOKEN_REQUEST), (6, "client", POST)]


class Relay:
    """The app with its telemetry going to `collector`, against a partner behind `proxy`."""

    def __init__(self, stage: Stage, collector: OtlpCollector, proxy: RecordingProxy) -> None:
        self.stage, self.collector, self.proxy = stage, collector, proxy

    async def deliver(self, body: object) -> Json:
        """Deliver in the caller's trace."""
        accepted = await self.stage.send(body, headers=CALLER)
        return await self.stage.finished(accepted.json())

    async def tree(self, size: int) -> list[tuple[int, str, str]]:
        """Wait until so many spans of the caller's trace have come; return them."""

        async def look() -> list[tuple[int, str, str]] | None:
            tree = self.collector.tree(TRACE)
            return tree if len(tree) >= size else None

        return await until(look)

    async def lines(self, count: int) -> list[Any]:
        """Wait until so many lines about attempts have come; return them."""

        async def look() -> list[Any] | None:
            lines = [line for line in self.collector.lines if line.body == ATTEMPT]
            return sorted(lines, key=lambda line: str(line.attributes["attempt"])) if len(lines) >= count else None

        return await until(look)


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as running:
        yield running


@pytest.fixture
def make_relay(start: StartStage, processes: ExitStack, collector: OtlpCollector) -> Callable[..., Relay]:
    def make(**environ: str) -> Relay:
        proxies: list[RecordingProxy] = []

        def via(url: str) -> str:
            proxies.append(processes.enter_context(RecordingProxy(url)))
            return proxies[0].url

        stage = start(environ=SOON | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | environ, via=via)
        return Relay(stage, collector, proxies[0])

    return make


async def test_one_trace_leads_from_the_request_to_the_partner_and_the_token_endpoint(
    make_relay: Callable[..., Relay],
) -> None:
    relay = make_relay()
    collector, proxy = relay.collector, relay.proxy
    delivery = await relay.deliver(record(1))

    tree = await relay.tree(9)

    assert delivery["state"] == "delivered"
    assert tree == [*HOSTS_OWN, *OF_ATTEMPT]
    assert {span.trace_id for span in collector.spans if "/deliveries/" not in span.name} == {TRACE}
    services = {span.name: span.service for span in collector.spans}
    assert (services[HOSTS_OWN[2][2]], services[ATTEMPT]) == ("sandbox-host", "relay")
    assert not any(span.has_failed for span in collector.spans)
    root = base_path(RESOURCE.partner)
    sent = {
        each.method: each.headers for each in proxy.passed if each.path.startswith(root) and "/auth/" not in each.path
    }
    assert sent["GET"]["traceparent"] == collector.named(GET)[0].traceparent
    assert sent["POST"]["traceparent"] == collector.named(POST)[0].traceparent
    assert {headers["tracestate"] for headers in sent.values()} == {"vendor=1"}
    assert not any("baggage" in each.headers for each in proxy.passed)
    [token_request] = [each for each in proxy.passed if "/auth/" in each.path]
    assert "traceparent" not in token_request.headers

    async def counted() -> bool:
        return collector.metrics["business_relay.token.requested"] == 1

    assert await until(counted)
    shown = b"".join(collector.received)
    for secret in (*relay.stage.secrets, "secret-agent"):
        assert secret.encode() not in shown
        assert secret not in relay.stage.host.output


async def test_spans_and_log_lines_say_which_delivery_and_which_attempt(make_relay: Callable[..., Relay]) -> None:
    relay = make_relay()
    await relay.stage.set_faults({"fault": "status", "route": "post", "status": 423, "times": 1})

    delivery = await relay.deliver(record(1))
    tree = await relay.tree(14)
    lines = await relay.lines(2)

    assert [span for span in tree if span[2] == ATTEMPT] == [OF_ATTEMPT[0]] * 2
    facts = {"resource": RESOURCE.name, "instance_id": delivery["id"], "record_id": id_of(1)}
    first, second = lines
    assert (first.severity, second.severity) == ("WARNING", "INFO")
    assert first.attributes.items() >= (facts | {"attempt": 1, "outcome": "deferred", "status": 423}).items()
    assert "423" in first.attributes["reason"]
    assert second.attributes["attempt"] == 2
    [accepted] = [line for line in relay.collector.lines if line.body == "delivery accepted"]
    assert (accepted.trace_id, accepted.attributes["instance_id"]) == (TRACE, delivery["id"])
    spans = {span.span_id: span for span in relay.collector.spans}
    assert [spans[line.span_id].name for line in lines] == [ATTEMPT] * 2
    assert [spans[line.span_id].attributes["business_relay.attempt"] for line in lines] == [1, 2]
    [failed] = [span for span in relay.collector.spans if span.has_failed]
    assert (failed.name, failed.attributes["error.type"]) == (POST, "423")


async def test_each_record_of_a_batch_is_an_attempt_below_one_activity(make_relay: Callable[..., Relay]) -> None:
    relay = make_relay()

    delivery = await relay.deliver(records(5))
    tree = await relay.tree(5 + 3 * 5 + 1)

    assert delivery["created"] == 5
    assert [name for _, _, name in tree[:5]] == [
        f"POST /api/{RESOURCE.route}/batch",
        f"create_orchestration:{RESOURCE.deliver_batch}",
        f"orchestration:{RESOURCE.deliver_batch}",
        f"activity:{RESOURCE.post_batch}",
        f"activity:{RESOURCE.post_batch}",
    ]
    assert [each for each in tree[5:] if each[2] != TOKEN_REQUEST] == [OF_ATTEMPT[0], OF_ATTEMPT[1], OF_ATTEMPT[3]] * 5
    found = {span.attributes["business_relay.record_id"] for span in relay.collector.named(ATTEMPT)}
    assert found == {id_of(number) for number in range(1, 6)}


async def test_with_the_workers_switch_off_the_host_alone_sends_spans(make_relay: Callable[..., Relay]) -> None:
    relay = make_relay(PYTHON_ENABLE_OPENTELEMETRY="false")

    await relay.deliver(record(1))

    assert await relay.tree(5) == HOSTS_OWN
    assert not any("traceparent" in each.headers for each in relay.proxy.passed)
    await asyncio.to_thread(relay.stage.host.stop)
    assert {span.service for span in relay.collector.spans} == {"sandbox-host"}


async def test_with_the_templates_settings_everything_reaches_application_insights_unsampled(
    make_relay: Callable[..., Relay], tmp_path: Path
) -> None:
    of_templates = MAIN.read_text().partition("var workerTelemetrySettings = {")[2].partition("}")[0]
    with IngestionEndpoint() as insights:
        settings = dict(re.findall(r"(\w+): '([^']*)'", of_templates))
        settings |= {"APPLICATIONINSIGHTS_CONNECTION_STRING": insights.connection_string, "TMPDIR": str(tmp_path)}
        relay = make_relay(**settings)
        delivery = await relay.deliver(records(40))

        async def all_spans() -> dict[str, Any] | None:
            spans = insights.spans(TRACE)
            return spans if len(spans) >= 3 * 40 + 1 else None

        async def is_counted() -> bool:
            return insights.metrics().get("business_relay.token.requested") == 1

        spans = await until(all_spans)
        await until(is_counted)
        lines = insights.lines(ATTEMPT)
        shown = b"".join(insights.received)

    assert delivery["created"] == 40
    names = [item.name for item in spans.values()]
    # The exporter names a call by its method and the path of its URL, and the app gives no URL away.
    assert [names.count(name) for name in (ATTEMPT, "GET /", "POST /", TOKEN_REQUEST)] == [40, 40, 40, 1]
    assert {spans[item.parent_id].name for item in spans.values() if item.name == "POST /"} == {ATTEMPT}
    assert {line.operation_id for line in lines} == {TRACE}
    assert all(spans[line.parent_id].name == ATTEMPT for line in lines)
    assert {item.properties["logger_name"].partition(".")[0] for item in insights.items if item.kind == "Message"} == {
        "shared"
    }
    assert TOKEN.encode() not in shown
