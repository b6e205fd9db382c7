from __future__ import annotations

import asyncio
import json
import ssl
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.api.business import Business
from shared.api.business_api import NOT_SENT, BusinessApi
from shared.api.transport import POOL_SHARE, create_client
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    ApiUnavailableError,
    InvalidBusinessError,
    TokenUnavailableError,
)
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.passing_time import let_pass
from tests.fakes.raw_server import RawServer, answering, answering_once, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.raw_server import Connection, Serve

RECORD = business("id-1", extra={"n": [1, 2.5, None, True], "text": "Café"})
PATIENT, SHORT = 20.0, 0.2
UNAUTHORIZED = response(b"", 'WWW-Authenticate: Bearer error="invalid_token"', status="401 Unauthorized")


@asynccontextmanager
async def calling(
    url: str,
    *,
    timeout: float = PATIENT,  # noqa: ASYNC109, it is the client's
    max_connections: int = 10,
    auth: BearerAuth | None = None,
) -> AsyncIterator[BusinessApi]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = create_client(timeout=timeout, max_connections=max_connections, tls=tls, auth=auth)
    async with BusinessApi(client, url, timeout=timeout) as api:
        yield api


def answered_by(answer: Callable[[httpx.Request], httpx.Response]) -> BusinessApi:
    return BusinessApi(httpx.AsyncClient(transport=httpx.MockTransport(answer)), "https://partner.example/v1")


async def hold(connection: Connection) -> None:
    await connection.read_request()
    await connection.gone()


async def never_answer(connection: Connection) -> None:
    await connection.read_request()
    await let_pass(PATIENT)
    await connection.gone()


async def garbage_in_body(connection: Connection) -> None:
    """Break a chunked body so that the client's parser fails after the response has begun."""
    await connection.read_request()
    await connection.send(b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n")
    await connection.send(b"no chunk\r\n")
    await let_pass(PATIENT)
    await connection.gone()


async def test_a_post_carries_the_record_and_its_idempotency_key() -> None:
    async with RawServer(answering(response(b'{"id":7}', status="201 Created"))) as server:
        async with calling(f"{server.url}/v1") as api:
            answer = await api.post_business(Business.from_json(RECORD), idempotency_key="key-1:0")
        (request,) = server.requests
    assert (answer.status, answer.content, answer.is_success) == (201, {"id": 7}, True)
    assert (request.method, request.target) == ("POST", "/v1/business/")
    assert request.body == json.dumps(RECORD, ensure_ascii=False, separators=(",", ":")).encode()
    assert request.body.endswith('"extra":{"n":[1,2.5,null,true],"text":"Café"}}'.encode())
    assert request.values("idempotency-key") == ["key-1:0"]
    assert request.values("content-type") == ["application/json"]
    assert request.values("content-length") == [str(len(request.body))]


@pytest.mark.parametrize(
    ("external_id", "segment"),
    [
        ("plain-1_2.3~4", "plain-1_2.3~4"),
        ("a/b", "a%2Fb"),
        ("a%2Fb", "a%252Fb"),
        ("ä", "%C3%A4"),
        ("a b", "a%20b"),
        ("?", "%3F"),
        ("#", "%23"),
        ("+", "%2B"),
        ("%", "%25"),
        ("a;b=c,d", "a%3Bb%3Dc%2Cd"),
        ("a:b@c", "a%3Ab%40c"),
        ("*!$&'()", "%2A%21%24%26%27%28%29"),
        ('[]{}|\\^`"<>', "%5B%5D%7B%7D%7C%5C%5E%60%22%3C%3E"),
        ("..x", "..x"),
        ("...", "..."),
        ("../..", "..%2F.."),
        ("%2e%2e", "%252e%252e"),
        ("\u00a0\u2028", "%C2%A0%E2%80%A8"),
        ("e\u0301", "e%CC%81"),
        ("😀" * 128, "%F0%9F%98%80" * 128),
    ],
)
async def test_an_external_id_reaches_the_server_to_the_byte(external_id: str, segment: str) -> None:
    async with RawServer(answering(response(b"{}"))) as server:
        async with calling(f"{server.url}/v1") as api:
            await api.get_business(external_id)
        (request,) = server.requests
    assert (request.method, request.target) == ("GET", f"/v1/business/by-external/{segment}")


EXTERNAL_IDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)


@given(EXTERNAL_IDS.filter(lambda external_id: external_id not in {".", ".."}))
def test_every_external_id_is_one_segment_that_means_it_alone(external_id: str) -> None:
    targets: list[bytes] = []

    def answer(request: httpx.Request) -> httpx.Response:
        targets.append(request.url.raw_path)
        return httpx.Response(200, json={})

    asyncio.run(answered_by(answer).get_business(external_id))
    segment = targets[0].decode().removeprefix("/v1/business/by-external/")
    assert "/" not in segment
    assert unquote(segment, errors="strict") == external_id


@pytest.mark.parametrize("external_id", ["", ".", "..", "a\n", "\x7f", "\x85", "x" * 129, "\ud800"])
async def test_a_bad_external_id_is_not_asked_for(external_id: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError(request)

    with pytest.raises(InvalidBusinessError):
        await answered_by(answer).get_business(external_id)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 409, 429, 500, 503])
async def test_no_status_is_an_error(status: int) -> None:
    api = answered_by(lambda _request: httpx.Response(status))
    assert (await api.get_business("a")).status == status
    assert (await api.post_business(Business.from_json(RECORD), idempotency_key="k")).status == status


@pytest.mark.parametrize("fault", NOT_SENT)
async def test_a_request_that_was_not_sent_is_a_connect_error(fault: type[httpx.TransportError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise fault("why", request=request)

    with pytest.raises(ApiConnectError, match=rf"could not be reached: {fault.__name__}: why") as caught:
        await answered_by(answer).get_business("a")
    assert isinstance(caught.value.__cause__, fault)


@pytest.mark.parametrize(
    "fault",
    [
        httpx.ReadError,
        httpx.WriteError,
        httpx.CloseError,
        httpx.ReadTimeout,
        httpx.WriteTimeout,
        httpx.RemoteProtocolError,
        httpx.DecodingError,
        httpx.TooManyRedirects,
    ],
)
async def test_every_other_fault_leaves_it_open_whether_the_api_has_acted(fault: type[httpx.RequestError]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise fault("", request=request)

    with pytest.raises(ApiInterruptedError, match=rf"gave no whole response: {fault.__name__}$"):
        await answered_by(answer).get_business("a")


@pytest.mark.parametrize(
    "serve",
    [
        pytest.param(answering_once(b""), id="closed"),
        pytest.param(answering_once(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), id="truncated"),
        pytest.param(answering_once(b"junk\r\n\r\n"), id="garbage"),
        pytest.param(answering_once(response(b"text", "Content-Encoding: gzip")), id="not the encoding"),
        pytest.param(never_answer, id="never answered"),
        pytest.param(garbage_in_body, id="broken chunk"),
    ],
)
async def test_a_post_that_was_read_and_not_wholly_answered_has_an_unknown_fate(serve: Serve) -> None:
    async with RawServer(serve) as server, calling(server.url) as api:
        with pytest.raises(ApiInterruptedError):
            await api.post_business(Business.from_json(RECORD), idempotency_key="k")
        assert len(server.requests) == 1


async def test_a_response_that_drips_ends_with_the_time_for_the_whole_call() -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            await connection.send(b"x")
            await let_pass(PATIENT / 10)

    async with RawServer(serve) as server, calling(server.url) as api:
        with pytest.raises(ApiInterruptedError, match="TimeoutError"):
            await api.get_business("a")


async def test_a_post_that_gets_no_connection_in_time_was_not_sent() -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = create_client(timeout=SHORT, max_connections=1, tls=tls)
    # Before the end of a call that may take as long: here it may take longer, since a busy machine sees both at once.
    assert client.timeout.pool == POOL_SHARE * SHORT < SHORT
    async with RawServer(hold) as server, BusinessApi(client, server.url, timeout=PATIENT) as api:
        held = asyncio.create_task(client.get(server.url, timeout=PATIENT))
        async with asyncio.timeout(PATIENT):
            await server.came.wait()
        with pytest.raises(ApiConnectError, match="ConnectTimeout"):
            await api.post_business(Business.from_json(RECORD), idempotency_key="k")
        assert len(server.requests) == 1
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held


async def test_nothing_listens_is_a_connect_error() -> None:
    async with RawServer(hold) as server:
        url = server.url
    async with calling(url) as api:
        with pytest.raises(ApiConnectError, match="ConnectError"):
            await api.post_business(Business.from_json(RECORD), idempotency_key="k")


async def test_cancelling_a_call_is_no_fault_of_the_api() -> None:
    async with RawServer(hold) as server, calling(server.url) as api:
        call = asyncio.create_task(api.get_business("a"))
        async with asyncio.timeout(PATIENT):
            await server.came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


# With its access token


@asynccontextmanager
async def authenticated(url: str, grant: NumberedGrant) -> AsyncIterator[BusinessApi]:
    provider = TokenProvider(grant)
    async with calling(url, auth=BearerAuth(provider)) as api:
        yield api
    await provider.aclose()


async def test_a_refused_token_is_renewed_and_the_same_record_sent_with_the_same_key() -> None:
    async def serve(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            is_old = request.values("authorization") == ["Bearer token-1"]
            await connection.send(UNAUTHORIZED if is_old else response(b"{}", status="201 Created"))

    async with RawServer(serve) as server, authenticated(server.url, NumberedGrant()) as api:
        answer = await api.post_business(Business.from_json(RECORD), idempotency_key="k")
        first, second = server.requests
    assert answer.status == 201
    assert [first.values("authorization"), second.values("authorization")] == [["Bearer token-1"], ["Bearer token-2"]]
    assert first.body == second.body
    assert first.values("idempotency-key") == second.values("idempotency-key") == ["k"]


async def test_a_connection_that_breaks_on_the_second_token_leaves_the_fate_unknown() -> None:
    async def serve(connection: Connection) -> None:
        await connection.read_request()
        await connection.send(UNAUTHORIZED)
        await connection.read_request()

    async with RawServer(serve) as server, authenticated(server.url, NumberedGrant()) as api:
        with pytest.raises(ApiInterruptedError):
            await api.post_business(Business.from_json(RECORD), idempotency_key="k")
        assert len(server.requests) == 2


async def test_without_a_token_nothing_is_sent() -> None:
    grant = NumberedGrant()
    grant.failure = TokenUnavailableError("the token endpoint is down")
    async with RawServer(hold) as server, authenticated(server.url, grant) as api:
        with pytest.raises(TokenUnavailableError, match="down"):
            await api.get_business("a")
        assert server.connections == 0


@pytest.mark.parametrize("body", [b"token-1 is bad", b'{"detail":"token-1"}', b'{"detail":"\\u0074oken-1"}'])
async def test_an_error_does_not_repeat_the_token(body: bytes) -> None:
    echo = response(body, status="403 Forbidden")
    async with RawServer(answering(echo)) as server, authenticated(server.url, NumberedGrant()) as api:
        answer = await api.get_business("a")
    assert answer.problem is not None
    assert "token-1" not in repr(answer)
    assert "[redacted]" in (answer.problem.detail or "")


async def test_no_fault_shows_the_token() -> None:
    echo = answering_once(b"HTTP/1.1 200 OK\r\nx: Bearer token-1\x00\r\n\r\n")
    async with RawServer(echo) as server, authenticated(server.url, NumberedGrant()) as api:
        with pytest.raises(ApiUnavailableError) as caught:
            await api.get_business("a")
    assert "token-1" not in "".join(traceback.format_exception(caught.value))
