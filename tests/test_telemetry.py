from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from opentelemetry.trace import INVALID_SPAN, SpanKind, StatusCode

from shared import telemetry as names
from shared.auth.token_endpoint import AccessToken
from shared.auth.token_provider import TokenProvider
from shared.errors import TokenUnavailableError
from shared.telemetry import PARTNER, RESOURCE, Telemetry
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.recorder import Recorder
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Iterator


ROOT = Path(__file__).parents[1]


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.shut_down()


def provider_of(recorder: Recorder, grant: NumberedGrant, client: str = "BUSINESS_API") -> TokenProvider:
    clock = asyncio.get_running_loop().time
    return TokenProvider(grant, client=client, clock=clock, jitter=lambda: 0.0, telemetry=recorder.telemetry)


@in_virtual_time
async def test_counts_what_happens_to_tokens(recorder: Recorder) -> None:
    grant = NumberedGrant(latency=1)
    provider = provider_of(recorder, grant)
    tokens = await asyncio.gather(*(provider.get_token() for _ in range(10)))
    assert recorder.counts("BUSINESS_API") == {
        "hit": 0,
        "joined": 9,
        "requested": 1,
        "shared": 0,
        "failed": 0,
        "renewed_after_refusal": 0,
    }
    for _ in range(5):
        await provider.get_token()
    await provider.renew(tokens[0])
    grant.failure = TokenUnavailableError("503")
    with pytest.raises(TokenUnavailableError):
        await provider.renew(await provider.get_token())
    assert recorder.counts("BUSINESS_API") == {
        "hit": 6,
        "joined": 9,
        "requested": 3,
        "shared": 0,
        "failed": 1,
        "renewed_after_refusal": 1,
    }


@in_virtual_time
async def test_tells_the_api_clients_apart_and_adds_up_those_of_one_name(recorder: Recorder) -> None:
    for client in ("BUSINESS_API", "OTHER_API", "OTHER_API"):
        await provider_of(recorder, NumberedGrant(), client).get_token()
    assert recorder.counts("BUSINESS_API")["requested"] == 1
    assert recorder.counts("OTHER_API")["requested"] == 2


@in_virtual_time
async def test_records_what_the_old_token_had_left_when_it_was_replaced(recorder: Recorder) -> None:
    grant = NumberedGrant(expires_in=100, latency=2)
    provider = provider_of(recorder, grant)
    await provider.get_token()
    await asyncio.sleep(68)
    await provider.get_token()  # 30 s are left, and 28 when its successor is there
    await asyncio.sleep(2)
    await asyncio.sleep(150)
    await provider.get_token()  # nothing is left
    point = recorder.points("business_relay.token.time_to_expiry")["BUSINESS_API"]
    assert (point["count"], point["max"], point["min"]) == (2, 28, 0)


@in_virtual_time
async def test_records_the_duration_of_every_token_request(recorder: Recorder) -> None:
    grant = NumberedGrant()
    provider = provider_of(recorder, grant)
    grant.failure = TokenUnavailableError("503")
    with pytest.raises(TokenUnavailableError):
        await provider.get_token()
    grant.failure = None
    await asyncio.sleep(1)
    await provider.get_token()
    point = recorder.points("business_relay.token.request.duration")["BUSINESS_API"]
    assert point["count"] == 2
    assert 0 <= point["min"] <= point["max"] < 10


@in_virtual_time
async def test_each_token_request_is_one_span(recorder: Recorder) -> None:
    provider = provider_of(recorder, NumberedGrant(latency=1))
    await asyncio.gather(*(provider.get_token() for _ in range(10)))
    [span] = recorder.spans
    assert (span.name, span.kind, span.status.status_code) == (
        "request access token",
        SpanKind.CLIENT,
        StatusCode.UNSET,
    )
    assert dict(span.attributes or {}) == {PARTNER: "BUSINESS_API"}


@in_virtual_time
async def test_a_token_of_another_process_is_no_token_request(recorder: Recorder) -> None:
    grant = NumberedGrant()
    grant.again = AccessToken("of-another-process", 3600.0, is_shared=True)
    await provider_of(recorder, grant).get_token()

    counts = recorder.counts("BUSINESS_API")
    assert (counts["requested"], counts["shared"]) == (0, 1)
    [span] = recorder.spans
    assert span.name == "take shared access token"
    assert "business_relay.token.request.duration" not in recorder.metrics()


@in_virtual_time
async def test_a_token_request_belongs_to_the_call_that_waits_for_it(recorder: Recorder) -> None:
    provider = provider_of(recorder, NumberedGrant(latency=1))

    async def call(name: str) -> None:
        with recorder.tracer.start_as_current_span(name):
            await provider.get_token()

    await asyncio.gather(call("first"), call("second"))
    first, request = recorder.named("first"), recorder.named("request access token")
    assert request.parent == first.context
    assert request.links == ()


@in_virtual_time
async def test_a_token_request_ahead_of_the_end_is_a_trace_of_its_own_linked_to_the_call_that_saw_the_need(
    recorder: Recorder,
) -> None:
    provider = provider_of(recorder, NumberedGrant(expires_in=100, latency=2))
    await provider.get_token()
    await asyncio.sleep(70)
    with recorder.tracer.start_as_current_span("call"):
        await provider.get_token()
    await asyncio.sleep(3)
    call, (_, ahead) = recorder.named("call"), [s for s in recorder.spans if s.name == "request access token"]
    assert call.end_time is not None
    assert ahead.end_time is not None
    assert call.end_time <= ahead.end_time
    assert ahead.parent is None
    assert [link.context for link in ahead.links] == [call.context]
    assert ahead.context.trace_id != call.context.trace_id


def test_nothing_is_made_of_a_span_that_nobody_takes() -> None:
    telemetry = Telemetry()
    assert not telemetry.has_listener
    with telemetry.span("one") as span:
        assert span is INVALID_SPAN
        assert not span.is_recording()


@in_virtual_time
async def test_a_span_names_the_kind_of_an_error_and_not_its_text(recorder: Recorder) -> None:
    grant = NumberedGrant()
    grant.failure = ValueError("s3cret")
    with pytest.raises(TokenUnavailableError):
        await provider_of(recorder, grant).get_token()
    [span] = recorder.spans
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert span.events == ()
    assert "s3cret" not in span.to_json()


@in_virtual_time
async def test_no_token_shows_in_a_metric_or_a_span(recorder: Recorder) -> None:
    provider = provider_of(recorder, NumberedGrant())
    await provider.renew(await provider.get_token())
    shown = json.dumps(recorder.document()) + "".join(span.to_json() for span in recorder.spans)
    assert "BUSINESS_API" in shown
    assert "token-" not in shown


def test_counters_add_up_by_resource_and_partner(recorder: Recorder) -> None:
    orders, parcels = {PARTNER: "CRM_API", RESOURCE: "Order"}, {PARTNER: "CRM_API", RESOURCE: "Parcel"}
    recorder.telemetry.count(names.DELIVERIES_REJECTED, orders)
    recorder.telemetry.count(names.DELIVERIES_REJECTED, orders, 2)
    recorder.telemetry.count(names.DELIVERIES_REJECTED, parcels)
    points = recorder.metrics()["business_relay.delivery.rejected"]["data"]["data_points"]
    assert sorted((point["attributes"][RESOURCE], point["value"]) for point in points) == [("Order", 3), ("Parcel", 1)]


def test_a_gauge_is_read_by_its_last_reader_when_metrics_are_collected(recorder: Recorder) -> None:
    in_flight = [3.0]
    recorder.telemetry.observe(names.FLOW_IN_FLIGHT, {PARTNER: "A"}, lambda: 99.0)
    recorder.telemetry.observe(names.FLOW_IN_FLIGHT, {PARTNER: "A"}, lambda: in_flight[0])
    recorder.telemetry.observe(names.FLOW_IN_FLIGHT, {PARTNER: "B"}, lambda: None)
    in_flight[0] = 4.0
    points = recorder.points("business_relay.flow.in_flight")
    assert {partner: point["value"] for partner, point in points.items()} == {"A": 4.0}


def test_needs_no_sdk_at_all() -> None:
    program = (
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
        "from shared.telemetry import process_telemetry\n"
        "from shared.telemetry import DELIVERY_DURATION\n"
        "process_telemetry().record(DELIVERY_DURATION, 1.0, {})\n"
        "with process_telemetry().span('x'): print('done')"
    )
    done = subprocess.run(  # noqa: S603 - our own words
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT
    )
    assert done.stdout == "done\n"
