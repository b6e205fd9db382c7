from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from opentelemetry import baggage, context
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from sandbox.sample import business
from shared.api.business import Business
from shared.api.business_api import BusinessApi
from shared.errors import ApiInterruptedError
from tests.fakes.recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import SpanContext

BUSINESS = Business.from_json(business("s3cret/1"))
GET, POST = "GET /business/by-external/{externalId}", "POST /business/"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.shut_down()


def traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


class Partner:
    """Answers everything with one status, or fails; keeps the requests."""

    def __init__(
        self, recorder: Recorder | None, answer: int | Exception, url: str = "https://partner.example"
    ) -> None:
        self.requests: list[httpx.Request] = []
        self._answer = answer
        client = httpx.AsyncClient(transport=httpx.MockTransport(self._respond))
        telemetry = None if recorder is None else recorder.telemetry
        self.api = BusinessApi(client, url, telemetry=telemetry)

    def _respond(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return httpx.Response(self._answer, json={})


async def test_a_call_is_one_client_span_that_the_partner_learns_of(recorder: Recorder) -> None:
    partner = Partner(recorder, 201)

    with recorder.tracer.start_as_current_span("attempt"):
        await partner.api.post_business(BUSINESS, idempotency_key="k")

    span, attempt = recorder.named(POST), recorder.named("attempt")
    assert (span.kind, span.parent, span.status.status_code) == (SpanKind.CLIENT, attempt.context, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "server.address": "partner.example",
        "server.port": 443,
        "http.response.status_code": 201,
    }
    [request] = partner.requests
    assert request.headers["traceparent"] == traceparent(span.context)
    assert request.headers["idempotency-key"] == "k"


async def test_the_callers_trace_state_goes_along_and_its_baggage_does_not(recorder: Recorder) -> None:
    partner = Partner(recorder, 201)
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}
    caller = baggage.set_baggage("who", "me", TraceContextTextMapPropagator().extract(carrier))

    token = context.attach(caller)
    await partner.api.post_business(BUSINESS, idempotency_key="k")
    context.detach(token)

    headers = partner.requests[0].headers
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["tracestate"] == "a=1,b=2"
    assert "baggage" not in headers


async def test_a_trace_that_is_not_sampled_is_not_sampled_at_the_partner_either(recorder: Recorder) -> None:
    partner = Partner(recorder, 201)
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}

    token = context.attach(TraceContextTextMapPropagator().extract(carrier))
    await partner.api.post_business(BUSINESS, idempotency_key="k")
    context.detach(token)

    assert recorder.spans == ()
    assert partner.requests[0].headers["traceparent"].endswith("-00")


@pytest.mark.parametrize("status", [400, 404, 429, 500])
async def test_a_post_that_is_refused_is_an_error_with_its_status(recorder: Recorder, status: int) -> None:
    await Partner(recorder, status).api.post_business(BUSINESS, idempotency_key="k")

    span = recorder.named(POST)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == str(status)


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (404, False), (403, True), (503, True)])
async def test_a_look_up_that_finds_nothing_is_no_error(recorder: Recorder, status: int, *, is_error: bool) -> None:
    await Partner(recorder, status).api.get_business(BUSINESS.external_id)

    assert (recorder.named(GET).status.status_code is StatusCode.ERROR) == is_error


async def test_a_fault_is_named_by_its_type_and_not_by_its_text(recorder: Recorder) -> None:
    with pytest.raises(ApiInterruptedError):
        await Partner(recorder, httpx.ReadError("t0ken")).api.post_business(BUSINESS, idempotency_key="k")

    span = recorder.named(POST)
    assert ((span.attributes or {})["error.type"], span.status.status_code) == ("ReadError", StatusCode.ERROR)
    assert "t0ken" not in span.to_json()


async def test_no_external_id_is_in_the_span_of_a_call(recorder: Recorder) -> None:
    await Partner(recorder, 200).api.get_business(BUSINESS.external_id)

    assert "s3cret" not in recorder.named(GET).to_json()


async def test_a_port_of_its_own_is_named(recorder: Recorder) -> None:
    await Partner(recorder, 201, "http://127.0.0.1:8081").api.post_business(BUSINESS, idempotency_key="k")

    assert (recorder.named(POST).attributes or {})["server.port"] == 8081


async def test_without_telemetry_a_call_is_as_it_was() -> None:
    partner = Partner(None, 201)

    await partner.api.post_business(BUSINESS, idempotency_key="k")

    assert "traceparent" not in partner.requests[0].headers
