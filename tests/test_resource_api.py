from __future__ import annotations

import asyncio
import gzip
import ssl
import traceback
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from opentelemetry import baggage, context
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.client.resource_api import ResourceApi
from shared.client.transport import MAX_BODY, NOT_SENT, RelayTransport
from shared.errors import ApiConnectError, ApiInterruptedError, TokenUnavailableError
from shared.resource import LookUp, Put
from shared.rules.record import CheckedRecord
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.passing_time import let_pass
from tests.fakes.raw_server import RawServer, answering, answering_once, response
from tests.fakes.recorder import Recorder
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from tests.fakes.raw_server import Connection, Serve

RECORD = CheckedRecord("s3cret/1", '{"parcelId":"s3cret/1", "weight":1.50,"text":"Café"}'.encode())
PATIENT, SHORT = 20.0, 0.2
UNAUTHORIZED = response(b"", 'WWW-Authenticate: Bearer error="invalid_token"', status="401 Unauthorized")
CREATED = response(b"", status="201 Created")


@asynccontextmanager
async def calling(
    url: str,
    grant: NumberedGrant | None = None,
    *,
    timeout: float = PATIENT,  # noqa: ASYNC109, it is the client's
    max_connections: int = 10,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[ResourceApi]:
    transport = RelayTransport(max_connections=max_connections, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    provider = TokenProvider(grant or NumberedGrant())
    api = ResourceApi(transport, BearerAuth(provider, origin=url), url, timeout=timeout, headers=headers)
    yield api
    await api.aclose()
    await provider.aclose()


def answered_by(answer: Callable[[httpx.Request], httpx.Response], **options: Any) -> ResourceApi:  # noqa: ANN401, its own
    url = options.pop("url", "https://partner.example/v1")
    return ResourceApi(httpx.MockTransport(answer), httpx.Auth(), url, timeout=PATIENT, **options)


async def hold(connection: Connection) -> None:
    await connection.read_request()
    await connection.gone()


def holding_after(octets: bytes) -> Serve:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(octets)
        await let_pass(PATIENT)
        await connection.gone()

    return serve


async def test_a_post_carries_the_record_as_it_was_sent_and_its_headers() -> None:
    async with RawServer(answering(response(b'{"id":7}', status="201 Created"))) as server:
        async with calling(f"{server.url}/v1/", headers={"X-Tenant": "7", "User-Agent": "acme"}) as api:
            answer = await api.post(PARCEL, RECORD, idempotency_key="key-1:0")
        (request,) = server.requests
    assert (answer.status, answer.content, answer.is_success) == (201, {"id": 7}, True)
    assert (request.method, request.target, request.body) == ("POST", "/v1/parcels", RECORD.text)
    assert sorted(header for header in request.headers if header[0] != "connection") == [
        ("accept", "application/json, application/problem+json"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer token-1"),
        ("content-length", str(len(RECORD.text))),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{server.port}"),
        ("idempotency-key", "key-1:0"),
        ("user-agent", "acme"),
        ("x-tenant", "7"),
    ]


async def test_a_partner_may_want_put_a_query_a_media_type_and_another_key_header() -> None:
    put = replace(
        PARCEL,
        post=Put("/parcels/{id}", {"by": "{id}"}, media_type="application/vnd.a+json"),
        idempotency_header="X-Id",
    )
    bare = replace(put, idempotency_header=None)
    async with RawServer(answering(CREATED)) as server, calling(server.url) as api:
        await api.post(put, RECORD, idempotency_key="Schlüssel 1")
        await api.post(bare, RECORD, idempotency_key="k")
        first, second = server.requests
    assert (first.method, first.target) == ("PUT", "/parcels/s3cret%2F1?by=s3cret%2F1")
    assert first.values("content-type") == ["application/vnd.a+json"]
    assert first.values("x-id") == ["Schl%C3%BCssel%201"]
    assert not second.values("idempotency-key") + second.values("x-id")


@pytest.mark.parametrize(
    ("id_", "segment"),
    [
        ("plain-1_2.3~4", "plain-1_2.3~4"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("a b?#+%", "a%20b%3F%23%2B%25"),
        ("*!$&'()", "%2A%21%24%26%27%28%29"),
        ('[]{}|\\^`"<>', "%5B%5D%7B%7D%7C%5C%5E%60%22%3C%3E"),
        ("../..", "..%2F.."),
        ("%2e%2e", "%252e%252e"),
        ("e\u0301", "e%CC%81"),
        ("😀" * 128, "%F0%9F%98%80" * 128),
    ],
)
async def test_an_id_reaches_the_server_to_the_byte(id_: str, segment: str) -> None:
    listed = replace(PARCEL, look_up=LookUp("/parcels", query={"id": "{id}", "all": "1"}, items="/items"))
    async with RawServer(answering(response(b"{}"))) as server, calling(f"{server.url}/v1") as api:
        await api.look_up(PARCEL, id_)
        await api.look_up(listed, id_)
        assert [(request.method, request.target) for request in server.requests] == [
            ("GET", f"/v1/parcels/{segment}"),
            ("GET", f"/v1/parcels?id={segment}&all=1"),
        ]


async def test_a_404_to_a_look_up_keeps_its_body() -> None:
    page = httpx.Response(404, content=b"<html>proxy</html>", headers={"content-type": "text/html"})
    answer = await answered_by(lambda _: page).look_up(PARCEL, "a")
    assert (answer.status, answer.is_html, answer.body) == (404, True, b"<html>proxy</html>")


# Faults


@pytest.mark.parametrize("fault", NOT_SENT)
async def test_a_request_that_was_not_sent_is_a_connect_error(fault: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise fault("why", request=request)

    with pytest.raises(ApiConnectError, match=rf"cannot be reached: {fault.__name__}: why"):
        await answered_by(answer).look_up(PARCEL, "a")


@pytest.mark.parametrize("fault", [httpx.ReadError, httpx.WriteError, httpx.ReadTimeout, httpx.RemoteProtocolError])
async def test_every_other_fault_leaves_it_open_whether_the_api_has_acted(fault: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise fault("", request=request)

    with pytest.raises(ApiInterruptedError, match=rf"gave no whole response: {fault.__name__}$"):
        await answered_by(answer).post(PARCEL, RECORD, idempotency_key="k")


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(answering_once(b"token-1\r\n\r\n"), id="garbage"),
        pytest.param(answering_once(response(b"text", "Content-Encoding: gzip")), id="not the encoding"),
        pytest.param(answering_once(response(b"x" * 99, "Content-Encoding: token-1")), id="unknown encoding"),
        pytest.param(answering_once(response(b"x" * (MAX_BODY + 1))), id="too long"),
        pytest.param(
            answering_once(response(gzip.compress(b"x" * (MAX_BODY + 1)), "Content-Encoding: gzip")), id="zip bomb"
        ),
        pytest.param(holding_after(b""), id="never answered"),
        pytest.param(holding_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"), id="stops in the body"),
        pytest.param(
            holding_after(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\ntoken-1\r\n"),
            id="broken chunk",
        ),
    ],
)
async def test_a_post_that_was_read_and_not_wholly_answered_has_an_unknown_fate(serve: Serve) -> None:
    async with RawServer(serve) as server, calling(server.url) as api:
        with pytest.raises(ApiInterruptedError) as caught:
            await api.post(PARCEL, RECORD, idempotency_key="k")
        assert len(server.requests) == 1
    assert "token-1" not in "".join(traceback.format_exception(caught.value))


async def test_a_long_compressed_body_is_read_whole() -> None:
    text = "x" * (MAX_BODY - 2)
    body = response(gzip.compress(b'"%s"' % text.encode()), "Content-Encoding: x-gzip")
    async with RawServer(answering(body)) as server, calling(server.url, max_connections=1) as api:
        for _ in range(2):
            assert (await api.look_up(PARCEL, "a")).content == text
        assert server.connections == 1


async def test_a_call_that_gets_no_connection_in_time_was_not_sent() -> None:
    # The wait for a connection ends a fifth of this earlier: a busy machine must tell the two times apart.
    async with RawServer(hold) as server, calling(server.url, timeout=2.0, max_connections=1) as api:
        calls = [asyncio.create_task(api.look_up(PARCEL, "a")) for _ in range(2)]
        first, second = await asyncio.gather(*calls, return_exceptions=True)
        assert len(server.requests) == 1
    assert (type(first), type(second)) == (ApiInterruptedError, ApiConnectError)


async def test_a_call_that_gets_no_token_in_time_sends_nothing_and_says_so() -> None:
    async with RawServer(hold) as server, calling(server.url, NumberedGrant(latency=PATIENT), timeout=SHORT) as api:
        with pytest.raises(TokenUnavailableError, match="none came within"):
            await api.look_up(PARCEL, "a")
        assert server.connections == 0


@pytest.mark.parametrize(
    ("look_up", "body", "connections"),
    [
        (PARCEL.look_up, b'{"parcelId":"other"}', 2),
        (PARCEL.look_up, b'{"parcelId":7}', 2),
        (PARCEL.look_up, b'{"parcelId":"s3cret/1"}', 1),
        (PARCEL.look_up, b'{"id":7}', 1),
        (PARCEL.look_up, b"OK", 1),
        (LookUp("/p/{id}", id="/ref/~1id"), b'{"parcelId":7,"ref":{"/id":"s3cret/1"}}', 1),
        (LookUp("/p/{id}", id="/ref/0"), b'{"ref":["other"]}', 2),
        (None, b'{"parcelId":"other"}', 2),
    ],
)
async def test_a_success_that_names_another_record_ends_its_connection(
    look_up: LookUp | None, body: bytes, connections: int
) -> None:
    resource = replace(PARCEL, look_up=look_up, honours_idempotency_key=True)
    async with RawServer(answering(response(body, status="201 Created"))) as server, calling(server.url) as api:
        for _ in range(2):
            assert (await api.post(resource, RECORD, idempotency_key="k")).status == 201
        assert server.connections == connections


@pytest.mark.parametrize(
    ("items", "body", "connections"),
    [
        ("", b'{"parcelId":"other"}', 2),
        ("", b'{"parcelId":"s3cret/1"}', 1),
        ("/items", b'{"items":[{"parcelId":"other"}]}', 1),  # a search may find more
    ],
)
async def test_a_look_up_that_finds_another_record_ends_its_connection(
    items: str, body: bytes, connections: int
) -> None:
    resource = replace(PARCEL, look_up=LookUp("/parcels/{id}", items=items))
    async with RawServer(answering(response(body))) as server, calling(server.url) as api:
        for _ in range(2):
            assert (await api.look_up(resource, RECORD.id)).status == 200
        assert server.connections == connections


# The access token


async def test_a_refused_token_is_renewed_and_the_same_record_sent_with_the_same_key() -> None:
    async def serve(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            is_old = request.values("authorization") == ["Bearer token-1"]
            await connection.send(UNAUTHORIZED if is_old else CREATED)

    async with RawServer(serve) as server, calling(server.url) as api:
        answer = await api.post(PARCEL, RECORD, idempotency_key="k")
        first, second = server.requests
    assert (answer.status, server.connections) == (201, 1)
    assert [first.values("authorization"), second.values("authorization")] == [["Bearer token-1"], ["Bearer token-2"]]
    assert first.body == second.body
    assert first.values("idempotency-key") == second.values("idempotency-key") == ["k"]


async def test_without_a_token_nothing_is_sent() -> None:
    grant = NumberedGrant()
    grant.failure = TokenUnavailableError("the token endpoint is down")
    async with RawServer(hold) as server, calling(server.url, grant) as api:
        with pytest.raises(TokenUnavailableError, match="down"):
            await api.look_up(PARCEL, "a")
        assert server.connections == 0


@pytest.mark.parametrize("status", ["302 Found", "401 Unauthorized", "403 Forbidden", "404 Not Found"])
async def test_an_error_does_not_repeat_the_token(status: str) -> None:
    echo = response(b'{"detail":"token-1 token-2"}' if "401" in status else b"token-1", status=status)
    async with RawServer(answering(echo)) as server, calling(server.url) as api:
        answer = await api.look_up(PARCEL, "a")
    assert "token-" not in repr(answer)
    assert "[redacted]" in answer.problem.get("detail", "")


# Spans

GET, POST = "GET /parcels/{id}", "POST /parcels"


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.shut_down()


def traced(
    recorder: Recorder, status: int, requests: list[httpx.Request], url: str = "https://p.example"
) -> ResourceApi:
    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(status, json={})

    return answered_by(answer, url=url, telemetry=recorder.telemetry)


async def test_a_call_is_one_client_span_that_the_partner_learns_of(recorder: Recorder) -> None:
    requests: list[httpx.Request] = []
    carrier = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "a=1,b=2"}
    token = context.attach(baggage.set_baggage("who", "me", TraceContextTextMapPropagator().extract(carrier)))
    await traced(recorder, 201, requests).post(PARCEL, RECORD, idempotency_key="k")
    context.detach(token)

    span = recorder.named(POST)
    assert (span.kind, span.status.status_code) == (SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        "http.request.method": "POST",
        "server.address": "p.example",
        "server.port": 443,
        "http.response.status_code": 201,
    }
    headers = requests[0].headers
    assert headers["traceparent"] == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    assert headers["traceparent"].startswith("00-0af7651916cd43dd8448eb211c80319c-")
    assert headers["tracestate"] == "a=1,b=2"
    assert "baggage" not in headers


@pytest.mark.parametrize(("status", "is_error"), [(200, False), (404, False), (403, True), (503, True)])
async def test_only_a_look_up_that_finds_nothing_may_have_an_error_status(
    recorder: Recorder, status: int, *, is_error: bool
) -> None:
    api = traced(recorder, status, [], "http://127.0.0.1:8081")
    await api.look_up(PARCEL, RECORD.id)
    await api.post(PARCEL, RECORD, idempotency_key="k")

    span = recorder.named(GET)
    assert (span.status.status_code is StatusCode.ERROR) == is_error
    assert (recorder.named(POST).status.status_code is StatusCode.ERROR) == (status != 200)
    assert (span.attributes or {}).get("error.type") == (str(status) if is_error else None)
    assert (span.attributes or {})["server.port"] == 8081
    assert "s3cret" not in span.to_json()
