from __future__ import annotations

import asyncio
import secrets
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from sandbox.sample import business
from shared.api.business import Business
from shared.client import Client, build_client
from shared.errors import ApiConnectError, SettingsError, TokenRejectedError, TokenUnavailableError
from shared.settings import Settings
from tests.fakes.raw_server import RawServer, answering, response
from tests.fakes.token_server import DROPPED, Answer, TokenServer, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.fakes.raw_server import Connection

CREATED = response(b"{}", status="201 Created")
BUSINESS = Business.from_json(business("a"))


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


@pytest.fixture
async def api() -> AsyncIterator[RawServer]:
    async with RawServer(answering(CREATED)) as running:
        yield running


def environ_of(tokens: TokenServer, api: RawServer, **changes: str) -> dict[str, str]:
    return {
        "BUSINESS_API_URL": api.url,
        "BUSINESS_API_TOKEN_URL": tokens.url,
        "BUSINESS_API_CLIENT_ID": "relay",
        "BUSINESS_API_CLIENT_SECRET": "first",
    } | {f"BUSINESS_API_{name}": value for name, value in changes.items()}


@asynccontextmanager
async def built(environ: Mapping[str, str]) -> AsyncIterator[Client]:
    client = await asyncio.to_thread(build_client, Settings.from_environ(environ), environ)
    try:
        yield client
    finally:
        await client.aclose()


async def test_a_client_posts_with_a_token_of_its_own_making(tokens: TokenServer, api: RawServer) -> None:
    async with built(environ_of(tokens, api, SCOPE="records")) as client:
        for key in ("1", "2"):
            assert (await client.api.post_business(BUSINESS, idempotency_key=key)).status == 201
    assert [request.values("authorization") for request in api.requests] == [["Bearer token-1"]] * 2
    assert [request.form["scope"] for request in tokens.requests] == ["records"]


async def test_building_a_client_asks_nobody(tokens: TokenServer, api: RawServer) -> None:
    async with built(environ_of(tokens, api)):
        pass
    assert (tokens.requests, api.connections) == ([], 0)


async def test_a_token_without_a_lifetime_has_that_of_the_settings(tokens: TokenServer, api: RawServer) -> None:
    tokens.expires_in = None
    async with built(environ_of(tokens, api, TOKEN_DEFAULT_LIFETIME="0.5")) as client, asyncio.timeout(20):
        while tokens.issued < 2:
            await client.api.get_business("a")


async def test_a_secret_rotated_in_its_file_is_used_without_a_restart(
    tokens: TokenServer, api: RawServer, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("first")
    environ = environ_of(tokens, api, CLIENT_AUTH="client_secret_post", CLIENT_SECRET="", CLIENT_SECRET_FILE=str(file))
    async with built(environ) as client:
        file.write_text("second")
        await client.api.get_business("a")
    assert [request.form["client_secret"] for request in tokens.requests] == ["second"]


async def test_a_token_server_that_hangs_is_no_fault_of_the_api(tokens: TokenServer, api: RawServer) -> None:
    tokens.queue.append(Answer(after=asyncio.Event()))
    async with built(environ_of(tokens, api, TIMEOUT="2")) as client:
        with pytest.raises(TokenUnavailableError):
            await client.api.post_business(BUSINESS, idempotency_key="k")
    assert api.connections == 0


async def test_a_token_is_renewed_while_the_one_connection_to_the_api_is_held(tokens: TokenServer) -> None:
    async def refuse_once(connection: Connection) -> None:
        challenge = 'WWW-Authenticate: Bearer error="invalid_token"'
        await connection.read_request()
        await connection.send(response(b"", challenge, status="401 Unauthorized"))
        await connection.read_request()
        await connection.send(CREATED)

    async with RawServer(refuse_once) as api:
        async with built(environ_of(tokens, api, MAX_CONNECTIONS="1")) as client:
            assert (await client.api.post_business(BUSINESS, idempotency_key="k")).status == 201
        assert api.connections == 1
    assert [request.values("authorization") for request in api.requests] == [["Bearer token-1"], ["Bearer token-2"]]


async def test_a_refusal_of_the_client_is_the_error_of_the_call(tokens: TokenServer, api: RawServer) -> None:
    tokens.queue.extend([refusal("invalid_client", status=401)] * 2)
    async with built(environ_of(tokens, api)) as client:
        with pytest.raises(TokenRejectedError, match="invalid_client"):
            await client.api.get_business("a")


async def test_a_broken_connection_to_the_token_endpoint_is_no_interrupted_call(
    tokens: TokenServer, api: RawServer
) -> None:
    tokens.queue.append(DROPPED)
    async with built(environ_of(tokens, api)) as client:
        with pytest.raises(TokenUnavailableError):
            await client.api.get_business("a")
    assert api.connections == 0


async def test_https_goes_through_the_proxy_and_plain_http_does_not(tokens: TokenServer, api: RawServer) -> None:
    async with RawServer(answering(response(status="403 Forbidden"))) as proxy:
        direct = environ_of(tokens, api) | {"HTTPS_PROXY": proxy.url, "HTTP_PROXY": proxy.url}
        async with built(direct) as client:
            assert (await client.api.get_business("a")).status == 201
        assert proxy.connections == 0
        async with built(direct | {"BUSINESS_API_TOKEN_URL": "https://login.invalid/token"}) as client:
            with pytest.raises(TokenUnavailableError):
                await client.api.get_business("a")
        async with built(direct | {"BUSINESS_API_URL": "https://api.invalid"}) as client:
            with pytest.raises(ApiConnectError, match="the proxy refuses to connect"):
                await client.api.get_business("a")
        assert [request.target for request in proxy.requests] == ["login.invalid:443", "api.invalid:443"]


async def test_a_token_store_that_is_not_there_stops_nothing(tokens: TokenServer, api: RawServer) -> None:
    store = {"TOKEN_STORE_URL": "unix:///nowhere/redis.sock", "TOKEN_STORE_KEY": secrets.token_urlsafe(32)}
    async with built(environ_of(tokens, api) | store) as client:
        assert (await client.api.get_business("a")).status == 201
    assert tokens.issued == 1


async def test_the_tokens_of_a_system_assigned_identity_are_not_shared(api: RawServer) -> None:
    store = {"TOKEN_STORE_URL": "unix:///nowhere/redis.sock", "TOKEN_STORE_KEY": secrets.token_urlsafe(32)}
    identity = {"BUSINESS_API_URL": api.url, "BUSINESS_API_SCOPE": "api://x"} | store
    async with built(identity | {"BUSINESS_API_MANAGED_IDENTITY": "system"}) as client:
        assert client.stored_grant is None
    async with built(identity | {"BUSINESS_API_MANAGED_IDENTITY": "client-7"}) as client:
        assert client.stored_grant is not None


async def test_all_clients_of_a_process_have_one_tls_context(tokens: TokenServer, api: RawServer) -> None:
    environ = environ_of(tokens, api)
    settings = Settings.from_environ(environ)
    clients = await asyncio.gather(*(asyncio.to_thread(build_client, settings, environ) for _ in range(4)))
    contexts = {id(client.token_client._transport._tls) for client in clients}  # type: ignore[attr-defined]  # noqa: SLF001 - it is seen nowhere else
    assert len(contexts) == 1
    for client in clients:
        await client.aclose()


async def test_a_wrong_proxy_is_a_problem_of_the_settings(tokens: TokenServer, api: RawServer) -> None:
    environ = environ_of(tokens, api) | {"BUSINESS_API_URL": "https://api.invalid", "HTTPS_PROXY": "socks5://p:1"}
    with pytest.raises(SettingsError, match="HTTPS_PROXY"):
        async with built(environ):
            pass


async def test_closing_a_client_ends_a_token_request_under_way(tokens: TokenServer, api: RawServer) -> None:
    tokens.queue.append(Answer(after=asyncio.Event()))
    async with built(environ_of(tokens, api)) as client, asyncio.timeout(20):
        call = asyncio.create_task(client.api.get_business("a"))
        await tokens.came.wait()
        await client.aclose()
        with pytest.raises(TokenUnavailableError):
            await call
    assert api.connections == 0
