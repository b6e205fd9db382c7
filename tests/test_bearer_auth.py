from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import httpx
import pytest

from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.errors import TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

API = "https://api.example/business/"


class Api(httpx.AsyncBaseTransport):
    """An API that refuses some tokens and keeps what it got: method, URL, Authorization and body of each request."""

    def __init__(self, refused: Sequence[str] = (), challenge: str = 'Bearer error="invalid_token"') -> None:
        self.refused = {f"Bearer {token}" for token in refused}
        self.challenges = [challenge]
        self.status = 401
        self.requests: list[tuple[str, str, str | None, bytes]] = []
        self.redirects: dict[str, tuple[int, str]] = {}

    @property
    def tokens(self) -> list[str | None]:
        return [authorization for _, _, authorization, _ in self.requests]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        authorization = request.headers.get("authorization")
        assert isinstance(request.stream, httpx.AsyncByteStream)
        body = b"".join([chunk async for chunk in request.stream])
        self.requests.append((request.method, str(request.url), authorization, body))
        if str(request.url) in self.redirects:
            status, location = self.redirects[str(request.url)]
            return httpx.Response(status, headers={"location": location})
        if authorization is None or authorization in self.refused:
            headers = [("www-authenticate", value) for value in self.challenges]
            return httpx.Response(self.status, headers=headers, text="no")
        return httpx.Response(201, text="created")


def client_of(
    api: httpx.AsyncBaseTransport, grant: NumberedGrant, *, follow_redirects: bool = False
) -> httpx.AsyncClient:
    auth = BearerAuth(TokenProvider(grant), origin=API)
    return httpx.AsyncClient(transport=api, auth=auth, follow_redirects=follow_redirects)


async def stream() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def test_attaches_the_access_token_to_every_request() -> None:
    grant, api = NumberedGrant(), Api()
    async with client_of(api, grant) as client:
        for _ in range(3):
            assert (await client.post(API, json={})).status_code == 201
    assert api.tokens == ["Bearer token-1"] * 3
    assert grant.requests == 1


async def test_renews_once_when_the_api_refuses_the_token_and_sends_the_same_request_again() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    async with client_of(api, grant) as client:
        response = await client.put(API, content=b'{"name":"x"}', headers={"Idempotency-Key": "k"})
    assert response.status_code == 201
    assert api.requests == [
        ("PUT", API, "Bearer token-1", b'{"name":"x"}'),
        ("PUT", API, "Bearer token-2", b'{"name":"x"}'),
    ]
    assert grant.requests == 2


async def test_the_second_refusal_is_the_callers() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1", "token-2", "token-3"])
    async with client_of(api, grant) as client:
        response = await client.get(API)
    assert (response.status_code, response.text) == (401, "no")
    assert api.tokens == ["Bearer token-1", "Bearer token-2"]


async def test_a_revocation_fails_no_call_and_costs_one_request() -> None:
    grant, api = NumberedGrant(latency=0.01), Api()
    async with client_of(api, grant) as client:
        await client.get(API)
        api.refused.add("Bearer token-1")
        responses = await asyncio.gather(*(client.post(API, json={}) for _ in range(300)))
    assert {response.status_code for response in responses} == {201}
    assert grant.requests == 2


@pytest.mark.unmeasured
@in_virtual_time
async def test_stray_refusals_cost_renewals_and_fail_no_call_for_want_of_a_token() -> None:
    grant, sent = NumberedGrant(latency=0.05), [0]

    async def answer(request: httpx.Request) -> httpx.Response:
        sent[0] += 1
        status = 401 if sent[0] % 50 == 0 else 200
        await asyncio.sleep(0.01)
        return httpx.Response(status, request=request)

    provider = TokenProvider(grant, clock=lambda: asyncio.get_running_loop().time(), jitter=lambda: 0.0)
    statuses: list[int] = []
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(answer), auth=BearerAuth(provider, origin=API)
    ) as client:

        async def call_on() -> None:
            while asyncio.get_running_loop().time() < 2:
                statuses.append((await client.get(API)).status_code)

        await asyncio.gather(*(call_on() for _ in range(16)))
    assert statuses.count(200) > 1_250  # of 3,200 without a single refusal; 16 at a time wait for at most a second
    assert statuses.count(401) < len(statuses) / 1000  # refused twice
    assert grant.requests <= 6


async def test_a_refusal_is_recognized_without_reading_its_body() -> None:
    """A body may unpack to gigabytes: whoever sends the requests reads it, within limits."""
    read: list[int] = []

    async def body() -> AsyncIterator[bytes]:
        read.append(1)
        yield b""

    flow = BearerAuth(TokenProvider(NumberedGrant()), origin=API).async_auth_flow(httpx.Request("GET", API))
    await anext(flow)
    assert (await flow.asend(httpx.Response(401, content=body()))).headers["authorization"] == "Bearer token-2"
    await flow.aclose()
    assert read == []


@pytest.mark.parametrize(
    ("status", "challenges", "refused"),
    [
        (401, [], True),
        (401, ["garbage =="], True),
        (401, ['Bearer realm="a"; error=insufficient_scope scope="b c"'], False),
        (401, ["bearer ERROR=INVALID_TOKEN"], True),
        (401, ['Bearer error="expired_token"'], True),
        (401, ["Bearer error=token_expired"], True),
        (401, ["Bearer error=unauthorized"], True),
        (401, ["Bearer error=invalid_request"], True),
        (401, ["Bearer error=insufficient_scope"], False),
        (401, ["Bearer error='insufficient_scope'"], False),
        (401, ["Negotiate", 'Bearer error="insufficient_scope"'], False),
        (401, ["Bearer error=insufficient_scope", "Bearer error=invalid_token"], True),
        (401, ['Bearer error_description="no error=insufficient_scope"'], True),
        (401, ["Bearer error='expired', Basic error=insufficient_scope"], True),
        (403, ['Bearer error="invalid_token"'], True),
        (403, ["Bearer error=insufficient_scope"], False),
        (403, ["Bearer"], False),
        (403, [], False),
        (400, ["Bearer error=invalid_token"], False),
        (407, ["Bearer error=invalid_token"], False),
    ],
)
async def test_renews_where_a_new_token_may_help(status: int, challenges: list[str], *, refused: bool) -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    api.status, api.challenges = status, challenges
    async with client_of(api, grant) as client:
        assert (await client.get(API)).status_code == (201 if refused else status)
    assert grant.requests == (2 if refused else 1)


async def test_a_streamed_body_is_not_sent_twice_but_the_next_request_has_another_token() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    async with client_of(api, grant) as client:
        assert (await client.post(API, content=stream())).status_code == 401
        assert grant.requests == 1
        assert (await client.post(API, content=stream())).status_code == 201
    assert api.tokens == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize(
    "failure", [TokenUnavailableError("503", status=503, retry_after=7), TokenRejectedError("invalid_client")]
)
async def test_no_request_goes_out_without_its_token(failure: Exception) -> None:
    grant, api = NumberedGrant(), Api()
    grant.failure = failure
    async with client_of(api, grant) as client:
        with pytest.raises(type(failure), match=r"503|invalid_client"):
            await client.post(API, json={})
    assert api.requests == []


async def test_a_401_is_not_the_apis_answer_when_the_token_cannot_be_renewed() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    flow = BearerAuth(TokenProvider(grant), origin=API).async_auth_flow(httpx.Request("GET", API))
    await anext(flow)
    grant.failure = TokenUnavailableError("the token endpoint answered 503", status=503, retry_after=7)
    with pytest.raises(TokenUnavailableError, match="answered 503") as caught:
        await flow.asend(httpx.Response(401))
    assert caught.value.retry_after == pytest.approx(7, abs=0.5)
    assert api.requests == []


async def test_no_token_goes_to_another_origin_on_a_redirect_and_its_401_renews_nothing() -> None:
    grant, api = NumberedGrant(), Api()
    api.redirects[API] = (307, "https://evil.example/steal")
    async with client_of(api, grant, follow_redirects=True) as client:
        assert (await client.post(API, json={})).status_code == 401
    assert [(url, token) for _, url, token, _ in api.requests] == [
        (API, "Bearer token-1"),
        ("https://evil.example/steal", None),
    ]
    assert grant.requests == 1


@pytest.mark.parametrize(
    "url", ["https://evil.example/", "http://api.example/", "https://api.example:8443/", "https://api.example.evil/"]
)
async def test_a_request_to_another_origin_is_an_error_and_is_not_sent(url: str) -> None:
    api = Api()
    async with client_of(api, NumberedGrant()) as client:
        with pytest.raises(ValueError, match=r"the access token is for https://api\.example, not for http"):
            await client.get(url)
        assert api.requests == []
        assert (await client.get("https://API.example:443/x")).status_code == 201


def test_a_synchronous_client_is_refused() -> None:
    auth = BearerAuth(TokenProvider(NumberedGrant()), origin=API)
    with (
        httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200)), auth=auth) as client,
        pytest.raises(RuntimeError, match=r"needs an httpx\.AsyncClient"),
    ):
        client.get(API)


async def test_no_token_shows_in_a_log_a_repr_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1", "token-2"])
    with caplog.at_level(logging.DEBUG):
        async with client_of(api, grant) as client:
            response = await client.get(API)
            with pytest.raises(ValueError, match="not for") as elsewhere:
                await client.get("https://evil.example/")
    shown = [repr(response.request), repr(response.request.headers), repr(elsewhere.value)]
    shown += [str(vars(record)) for record in caplog.records]
    assert caplog.records
    assert not [text for text in shown if "token-" in text]
