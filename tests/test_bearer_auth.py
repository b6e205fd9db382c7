from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx
import pytest

from shared.auth.access_token import AccessToken
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.errors import TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

API = "https://api.example/business/"


class Api(httpx.AsyncBaseTransport):
    """An API that refuses some tokens and keeps what it got: method, URL, Authorization and body of each request."""

    def __init__(self, refused: Sequence[str] = (), challenge: str | None = 'Bearer error="invalid_token"') -> None:
        self.refused = {f"Bearer {token}" for token in refused}
        self.challenges = [] if challenge is None else [challenge]
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
            return httpx.Response(401, headers=[("www-authenticate", value) for value in self.challenges], text="no")
        return httpx.Response(201, text="created")


def client_of(api: Api, auth: httpx.Auth, *, follow_redirects: bool = False) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=api, auth=auth, follow_redirects=follow_redirects)


async def stream() -> AsyncIterator[bytes]:
    yield b"one"
    yield b"two"


async def test_attaches_the_access_token_to_every_request() -> None:
    grant, api = NumberedGrant(), Api()
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        for _ in range(3):
            assert (await client.post(API, json={})).status_code == 201
    assert api.tokens == ["Bearer token-1"] * 3
    assert grant.requests == 1


async def test_renews_once_when_the_api_refuses_the_token_and_sends_the_same_request_again() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        response = await client.put(API, content=b'{"name":"x"}', headers={"Idempotency-Key": "k"})
    assert response.status_code == 201
    assert api.requests == [
        ("PUT", API, "Bearer token-1", b'{"name":"x"}'),
        ("PUT", API, "Bearer token-2", b'{"name":"x"}'),
    ]
    assert grant.refused == [None, AccessToken("token-1", 3600.0)]


async def test_the_second_401_is_the_callers() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1", "token-2", "token-3"])
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        response = await client.get(API)
    assert (response.status_code, response.text) == (401, "no")
    assert api.tokens == ["Bearer token-1", "Bearer token-2"]


async def test_a_revocation_fails_no_call_and_costs_one_request() -> None:
    grant, api = NumberedGrant(latency=0.01), Api()
    provider = TokenProvider(grant)
    async with client_of(api, BearerAuth(provider)) as client:
        await client.get(API)
        api.refused.add("Bearer token-1")
        responses = await asyncio.gather(*(client.post(API, json={}) for _ in range(300)))
    assert {response.status_code for response in responses} == {201}
    assert grant.requests == 2
    assert set(api.tokens) == {"Bearer token-1", "Bearer token-2"}


async def test_a_newer_token_that_another_call_has_renewed_is_used_without_a_request() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    provider = TokenProvider(grant)
    auth = BearerAuth(provider)
    flow = auth.async_auth_flow(httpx.Request("GET", API))
    first = await anext(flow)
    assert first.headers["authorization"] == "Bearer token-1"
    async with client_of(api, auth) as client:
        await client.get(API)
    replayed = await flow.asend(httpx.Response(401, request=first))
    assert replayed.headers["authorization"] == "Bearer token-2"
    assert grant.requests == 2
    await flow.aclose()


@pytest.mark.parametrize(
    ("challenge", "renewed"),
    [
        (None, True),
        ("Bearer", True),
        ('Bearer realm="api"', True),
        ('Bearer error="invalid_token", error_description="The access token expired"', True),
        ("Bearer error=invalid_token", True),
        ('Basic realm="x", Bearer error="invalid_token"', True),
        ('Bearer error="insufficient_scope", scope="a b"', False),
        ('Bearer error="invalid_request"', False),
        ('Basic realm="error=\\"invalid_token\\"", Bearer error="insufficient_scope"', False),
    ],
)
async def test_renews_unless_the_challenge_names_another_error(challenge: str | None, *, renewed: bool) -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"], challenge=challenge)
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        response = await client.get(API)
    assert response.status_code == (201 if renewed else 401)
    assert grant.requests == (2 if renewed else 1)


async def test_all_www_authenticate_lines_are_read() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"], challenge="Negotiate")
    api.challenges.append('Bearer error="insufficient_scope"')
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        assert (await client.get(API)).status_code == 401
    assert grant.requests == 1


@pytest.mark.parametrize("status", [200, 400, 403, 407, 500])
async def test_only_a_401_is_about_the_token(status: int) -> None:
    grant = NumberedGrant()
    transport = httpx.MockTransport(lambda _: httpx.Response(status, headers={"www-authenticate": "Bearer"}))
    async with httpx.AsyncClient(transport=transport, auth=BearerAuth(TokenProvider(grant))) as client:
        assert (await client.get(API)).status_code == status
    assert grant.requests == 1


async def test_a_streamed_body_is_not_sent_twice_but_the_next_request_has_another_token() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        assert (await client.post(API, content=stream())).status_code == 401
        assert grant.requests == 1
        assert (await client.post(API, content=stream())).status_code == 201
    assert [(token, body) for _, _, token, body in api.requests] == [
        ("Bearer token-1", b"onetwo"),
        ("Bearer token-2", b"onetwo"),
    ]


@pytest.mark.parametrize(
    "failure", [TokenUnavailableError("503", status=503, retry_after=7), TokenRejectedError("invalid_client")]
)
async def test_no_request_goes_out_without_its_token(failure: Exception) -> None:
    grant, api = NumberedGrant(), Api()
    grant.failure = failure
    async with client_of(api, BearerAuth(TokenProvider(grant))) as client:
        with pytest.raises(type(failure), match=r"503|invalid_client"):
            await client.post(API, json={})
    assert api.requests == []


async def test_a_401_is_not_the_apis_answer_when_the_token_cannot_be_renewed() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    provider = TokenProvider(grant)
    async with client_of(api, BearerAuth(provider)) as client:
        await provider.get_token()
        grant.failure = TokenUnavailableError("the token endpoint answered 503", status=503, retry_after=7)
        with pytest.raises(TokenUnavailableError, match="answered 503") as caught:
            await client.post(API, json={})
    assert caught.value.retry_after == pytest.approx(7, abs=0.5)
    assert api.tokens == ["Bearer token-1"]


async def test_no_token_goes_to_another_origin_on_a_redirect_and_its_401_renews_nothing() -> None:
    grant, api = NumberedGrant(), Api()
    api.redirects[API] = (307, "https://evil.example/steal")
    async with client_of(api, BearerAuth(TokenProvider(grant)), follow_redirects=True) as client:
        response = await client.post(API, json={})
    assert response.status_code == 401
    assert [(url, token) for _, url, token, _ in api.requests] == [
        (API, "Bearer token-1"),
        ("https://evil.example/steal", None),
    ]
    assert grant.requests == 1


async def test_a_post_that_was_done_and_redirected_is_not_done_again_for_a_401() -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1"])
    api.redirects[API] = (303, "https://api.example/business/1")
    async with client_of(api, BearerAuth(TokenProvider(grant)), follow_redirects=True) as client:
        assert (await client.post(API, json={})).status_code == 401
    assert [(method, url) for method, url, _, _ in api.requests] == [
        ("POST", API),
        ("GET", "https://api.example/business/1"),
    ]


@pytest.mark.parametrize(
    "url", ["https://evil.example/", "http://api.example/", "https://api.example:8443/", "https://api.example.evil/"]
)
async def test_a_request_to_another_origin_is_an_error_and_is_not_sent(url: str) -> None:
    api = Api()
    async with client_of(api, BearerAuth(TokenProvider(NumberedGrant()))) as client:
        await client.get(API)
        with pytest.raises(ValueError, match=r"the access token is for https://api\.example:443, not for http"):
            await client.get(url)
    assert len(api.requests) == 1


async def test_the_origin_can_be_named_beforehand() -> None:
    api = Api()
    async with client_of(api, BearerAuth(TokenProvider(NumberedGrant()), origin="https://api.example/v2")) as client:
        with pytest.raises(ValueError, match="not for"):
            await client.get("https://evil.example/")
        assert (await client.get("https://API.example:443/x")).status_code == 201


def test_a_synchronous_client_is_refused() -> None:
    api = httpx.MockTransport(lambda _: httpx.Response(200))
    with (
        httpx.Client(transport=api, auth=BearerAuth(TokenProvider(NumberedGrant()))) as client,
        pytest.raises(RuntimeError, match=r"needs an httpx\.AsyncClient"),
    ):
        client.get(API)


async def test_no_token_shows_in_a_log_a_repr_or_an_error(caplog: pytest.LogCaptureFixture) -> None:
    grant, api = NumberedGrant(), Api(refused=["token-1", "token-2"])
    provider = TokenProvider(grant)
    auth = BearerAuth(provider)
    with caplog.at_level(logging.DEBUG):
        async with client_of(api, auth) as client:
            response = await client.get(API)
            grant.again = AccessToken("token-1")
            with pytest.raises(TokenUnavailableError) as unavailable:
                await client.get(API)
            with pytest.raises(ValueError, match="not for") as elsewhere:
                await client.get("https://evil.example/")
    shown = [repr(auth), repr(response), repr(response.request), repr(response.request.headers)]
    shown += [repr(unavailable.value), repr(elsewhere.value), *(str(vars(record)) for record in caplog.records)]
    assert caplog.records
    assert not [text for text in shown if "token-" in text]


@pytest.mark.parametrize(("challenge", "requests"), [("Bearer error=insufficient_scope", 1), ("Bearer", 2)])
async def test_without_an_httpx_client_renews_unless_the_challenge_names_another_error(
    challenge: str, requests: int
) -> None:
    grant = NumberedGrant()
    sent: list[str] = []

    @dataclass
    class Refusal:
        headers: dict[str, str]
        status: int = 401

    async def send(authorization: str) -> Refusal:
        sent.append(authorization)
        return Refusal({"www-authenticate": challenge})

    answer = await BearerAuth(TokenProvider(grant)).send(send)
    assert answer.status == 401
    assert sent == ["Bearer token-1", "Bearer token-2"][:requests]
    assert grant.requests == requests


@contextlib.asynccontextmanager
async def http_server(answer: Callable[[str, str], tuple[str, str]]) -> AsyncIterator[str]:
    """Serve on a loopback socket, keeping connections: (path, Authorization) -> (status line, body)."""

    connections: list[asyncio.Task[None] | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                headers = dict(line.split(": ", 1) for line in head.lower().splitlines()[1:] if line)
                status, body = answer(head.split()[1], headers.get("authorization", ""))
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        # The client has closed its connections by now.
        await asyncio.gather(*(connection for connection in connections if connection is not None))


async def test_the_renewal_may_need_the_only_connection_of_the_refused_request() -> None:
    def answer(path: str, authorization: str) -> tuple[str, str]:
        if path == "/token":
            return "200 OK", "token-from-the-same-pool"
        return ("200 OK", "done") if authorization == "bearer token-from-the-same-pool" else ("401 No", "x" * 70_000)

    async with (
        http_server(answer) as url,
        httpx.AsyncClient(limits=httpx.Limits(max_connections=1), timeout=5) as client,
    ):

        class PoolGrant:
            cache_key = "pool"

            async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
                if refused is None:
                    return AccessToken("token-old")
                return AccessToken((await client.get(f"{url}/token")).text)

        response = await client.get(f"{url}/api", auth=BearerAuth(TokenProvider(PoolGrant())))
    assert (response.status_code, response.text) == (200, "done")
