from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.processes import SandboxProcess, app_settings
from sandbox.sample import business
from tests.end_to_end.stage import SECRETS, finished, until
from tests.fakes.otlp_collector import OtlpCollector
from tests.fakes.recording_proxy import RecordingProxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import ExitStack

    import httpx

pytestmark = pytest.mark.long

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "vendor=1", "baggage": "who=secret-agent"}
SOON = {
    "OTEL_BSP_SCHEDULE_DELAY": "50",
    "OTEL_BLRP_SCHEDULE_DELAY": "50",
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "OTEL_SERVICE_NAME": "relay",
}
GET, POST = "GET /business/by-external/{externalId}", "POST /business/"
START = [
    (0, "server", "POST /api/businesses"),
    (1, "producer", "create_orchestration:DeliverBusiness"),
    (2, "server", "orchestration:DeliverBusiness"),
]
ATTEMPT = [
    (3, "client", "activity:PostBusiness"),
    (4, "server", "activity:PostBusiness"),
    (5, "internal", "delivery attempt"),
]
LOOK_UP, TOKEN, CREATE = (6, "client", GET), (7, "client", "request access token"), (6, "client", POST)


class Relay:
    """The app with its telemetry going to `collector`, against a partner behind `proxy`."""

    def __init__(self, processes: ExitStack, collector: OtlpCollector, proxy: RecordingProxy, **environ: str) -> None:
        self.collector, self.proxy = collector, proxy
        settings = app_settings(proxy.url) | SOON | {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url} | environ
        self.host = processes.enter_context(SandboxProcess("host", ["--port", "0"], settings))

    async def deliver(self, http: httpx.AsyncClient, business: object, path: str = "businesses") -> dict[str, Any]:
        """Deliver in the caller's trace; give the orchestration's status."""
        accepted = await http.post(f"{self.host.url}/api/{path}", json=business, headers=CALLER)
        assert accepted.status_code == 202, accepted.text
        return await finished(http, accepted.json()["statusQueryGetUri"])

    async def tree(self, size: int) -> list[tuple[int, str, str]]:
        """Wait until so many spans of the caller's trace have come; give them."""

        async def look() -> list[tuple[int, str, str]] | None:
            tree = self.collector.tree(TRACE)
            return tree if len(tree) >= size else None

        return await until(look)

    def one(self, name: str, **attributes: object) -> dict[str, object]:
        """Give the attributes of the one span of this name that has these."""
        [span] = [each for each in self.collector.named(name) if attributes.items() <= {**each.attributes}.items()]
        return span.attributes

    def assert_no_secret(self) -> None:
        shown = b"".join(self.collector.received)
        assert b"delivery attempt" in shown
        for secret in (*SECRETS, "secret-agent"):
            assert secret.encode() not in shown
            assert secret not in self.host.output


@pytest.fixture
def collector() -> Iterator[OtlpCollector]:
    with OtlpCollector() as running:
        yield running


@pytest.fixture
def partner(processes: ExitStack) -> SandboxProcess:
    return processes.enter_context(SandboxProcess("partner", ["--port", "0"]))


@pytest.fixture
def relay(processes: ExitStack, partner: SandboxProcess, collector: OtlpCollector) -> Relay:
    proxy = processes.enter_context(RecordingProxy(partner.url))
    return Relay(processes, collector, proxy)


async def test_one_trace_leads_from_the_request_to_the_partner_and_the_token_endpoint(
    relay: Relay, http: httpx.AsyncClient
) -> None:
    status = await relay.deliver(http, business("b-1"))

    tree = await relay.tree(9)

    assert status["runtimeStatus"] == "Completed"
    assert tree == [*START, *ATTEMPT, LOOK_UP, TOKEN, CREATE]
    assert [span.parent_id for span in relay.collector.named("POST /api/businesses")] == ["b7ad6b7169203331"]
    assert {span.trace_id for span in relay.collector.spans} == {TRACE}
    services = {span.name: span.service for span in relay.collector.spans}
    assert services["orchestration:DeliverBusiness"] == "sandbox-host"
    assert services["delivery attempt"] == "relay"
    assert not any(span.has_failed for span in relay.collector.spans)
    relay.assert_no_secret()


async def test_the_partner_gets_the_trace_context_of_each_call_and_no_baggage(
    relay: Relay, http: httpx.AsyncClient
) -> None:
    await relay.deliver(http, business("b-1"))
    await relay.tree(9)

    look_up, post = (
        next(each for each in relay.proxy.passed if each.method == method and "business" in each.path)
        for method in ("GET", "POST")
    )
    assert look_up.headers["traceparent"] == relay.collector.named(GET)[0].traceparent
    assert post.headers["traceparent"] == relay.collector.named(POST)[0].traceparent
    assert {look_up.headers["tracestate"], post.headers["tracestate"]} == {"vendor=1"}
    assert not any("baggage" in each.headers for each in relay.proxy.passed)
    [token_request] = [each for each in relay.proxy.passed if each.path == "/auth/token"]
    assert "traceparent" not in token_request.headers


async def test_spans_and_log_lines_say_which_delivery_and_which_attempt(
    relay: Relay, http: httpx.AsyncClient, partner: SandboxProcess
) -> None:
    fault = {"fault": "status", "route": "post", "status": 503, "times": 1}
    assert (await http.put(f"{partner.url}/sandbox/faults", json=[fault])).status_code == 200

    status = await relay.deliver(http, business("b-1"))
    tree = await relay.tree(14)
    lines = await until(_lines(relay, 2))

    assert tree.count(ATTEMPT[2]) == 2
    assert tree.count(TOKEN) == 1
    facts = {"instance_id": status["instanceId"], "external_id": "b-1"}
    first, second = lines
    assert (first.body, first.severity, second.severity) == ("delivery attempt", "WARNING", "INFO")
    assert facts | {"attempt": 1, "outcome": "deferred", "status": 503} == {
        name: value for name, value in first.attributes.items() if name != "reason"
    }
    assert "503" in str(first.attributes["reason"])
    assert second.attributes == facts | {"attempt": 2, "outcome": "created", "status": 201}
    for line in lines:
        attributes = {f"business_relay.{name}": value for name, value in line.attributes.items() if name != "reason"}
        assert relay.one("delivery attempt", **{"business_relay.attempt": line.attributes["attempt"]}) == attributes
    [accepted] = [line for line in relay.collector.lines if line.body == "delivery accepted"]
    assert (accepted.trace_id, accepted.attributes["instance_id"]) == (TRACE, status["instanceId"])
    assert accepted.span_id == relay.collector.named("POST /api/businesses")[0].span_id
    spans = {span.span_id: span.name for span in relay.collector.spans}
    assert [(line.trace_id, spans[line.span_id]) for line in lines] == [(TRACE, "delivery attempt")] * 2
    [failed] = [span for span in relay.collector.spans if span.has_failed]
    assert (failed.name, failed.attributes["error.type"]) == (POST, "503")
    relay.assert_no_secret()


async def test_a_record_that_is_rejected_marks_the_orchestration_as_failed(
    relay: Relay, http: httpx.AsyncClient, partner: SandboxProcess
) -> None:
    fault = {"fault": "status", "route": "post", "status": 422}
    assert (await http.put(f"{partner.url}/sandbox/faults", json=[fault])).status_code == 200

    status = await relay.deliver(http, business("b-1"))
    await relay.tree(9)

    assert status["runtimeStatus"] == "Failed"
    assert {span.name for span in relay.collector.spans if span.has_failed} == {POST, "orchestration:DeliverBusiness"}
    found = relay.one("orchestration:DeliverBusiness")
    assert (found["durabletask.task.instance_id"], found["durabletask.task.status"]) == (status["instanceId"], "Failed")


async def test_each_record_of_a_batch_is_an_attempt_below_one_activity(relay: Relay, http: httpx.AsyncClient) -> None:
    records = [business(f"b-{number}") for number in range(5)]

    status = await relay.deliver(http, records, "businesses/batch")
    tree = await relay.tree(5 + 3 * 5 + 1)

    assert status["output"]["created"] == 5
    assert tree[:5] == [
        (0, "server", "POST /api/businesses/batch"),
        (1, "producer", "create_orchestration:DeliverBatch"),
        (2, "server", "orchestration:DeliverBatch"),
        (3, "client", "activity:PostBusinesses"),
        (4, "server", "activity:PostBusinesses"),
    ]
    assert [each for each in tree[5:] if each != TOKEN] == [ATTEMPT[2], LOOK_UP, CREATE] * 5
    assert tree.count(TOKEN) == 1
    found = {span.attributes["business_relay.external_id"] for span in relay.collector.named("delivery attempt")}
    assert found == {record["externalId"] for record in records}
    relay.assert_no_secret()


async def test_counters_arrive_as_well(relay: Relay, http: httpx.AsyncClient) -> None:
    await relay.deliver(http, business("b-1"))

    async def look() -> bool:
        return relay.collector.metrics["business_relay.token.requested"] == 1

    assert await until(look)


async def test_with_the_workers_switch_off_the_host_alone_sends_spans(
    processes: ExitStack, partner: SandboxProcess, collector: OtlpCollector, http: httpx.AsyncClient
) -> None:
    proxy = processes.enter_context(RecordingProxy(partner.url))
    relay = Relay(processes, collector, proxy, PYTHON_ENABLE_OPENTELEMETRY="false")

    status = await relay.deliver(http, business("b-1"))

    assert status["runtimeStatus"] == "Completed"
    assert await relay.tree(5) == [*START, *ATTEMPT[:2]]
    assert not any("traceparent" in each.headers for each in proxy.passed)
    await asyncio.to_thread(relay.host.stop)
    assert {span.service for span in collector.spans} == {"sandbox-host"}


def _lines(relay: Relay, count: int) -> Any:  # noqa: ANN401, what until() takes
    async def look() -> Any:  # noqa: ANN401, the same
        lines = [line for line in relay.collector.lines if line.body == "delivery attempt"]
        return sorted(lines, key=lambda line: str(line.attributes["attempt"])) if len(lines) >= count else None

    return look
