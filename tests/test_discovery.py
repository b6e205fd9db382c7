from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from shared.auth.client_authentication import ClientSecret
from shared.auth.client_credentials import ClientCredentialsGrant, Discovery, configuration_url
from shared.errors import SettingsError, TokenUnavailableError
from tests.fakes.token_server import DROPPED, Answer, Request, TokenServer, json_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

DOCUMENT = "/.well-known/openid-configuration"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as open_client:
        yield open_client


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


def configuration(server: TokenServer, issuer: str = "", token_endpoint: object = None) -> Answer:
    return json_answer({"issuer": issuer or server.origin, "token_endpoint": token_endpoint or server.url})


@pytest.mark.parametrize(
    ("issuer", "url"),
    [
        ("https://login.example", "https://login.example/.well-known/openid-configuration"),
        ("https://login.example/", "https://login.example/.well-known/openid-configuration"),
        ("https://login.example/realms/a", "https://login.example/realms/a/.well-known/openid-configuration"),
        ("https://login.example/realms/a/", "https://login.example/realms/a/.well-known/openid-configuration"),
    ],
)
def test_the_document_stands_below_the_issuer_with_or_without_a_path_or_a_slash(issuer: str, url: str) -> None:
    assert configuration_url(issuer) == url


@pytest.mark.parametrize("configured", ["", "/", "/realms/a", "/realms/a/"])
@pytest.mark.parametrize("slash", ["", "/"])
async def test_finds_the_endpoint_however_the_issuer_ends(
    client: httpx.AsyncClient, server: TokenServer, configured: str, slash: str
) -> None:
    issuer = server.origin + configured
    server.queue.append(configuration(server, issuer.removesuffix("/") + slash))

    assert await Discovery(client, issuer).token_endpoint() == server.url

    (request,) = server.requests
    assert (request.method, request.target) == ("GET", configured.removesuffix("/") + DOCUMENT)
    assert "authorization" not in request.headers


async def test_asks_at_first_use_and_keeps_what_it_found(client: httpx.AsyncClient, server: TokenServer) -> None:
    discovery = Discovery(client, server.origin)
    assert server.requests == []
    server.queue.append(configuration(server))

    assert await discovery.token_endpoint() == await discovery.token_endpoint() == server.url
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        DROPPED,
        Answer(404),
        Answer(429),
        Answer(500),
        Answer(302, headers={"Location": "/elsewhere"}),
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(body=b"{}"),
        Answer(body=b'{"issuer": "' + b"x" * 70_000),
    ],
    ids=["dropped", "404", "429", "500", "redirect", "html", "list", "empty", "oversized"],
)
async def test_a_failure_is_unavailable_and_not_kept(
    client: httpx.AsyncClient, server: TokenServer, trouble: Answer
) -> None:
    discovery = Discovery(client, server.origin)
    server.queue.extend([trouble, configuration(server)])

    with pytest.raises(TokenUnavailableError, match="issuer"):
        await discovery.token_endpoint()
    assert await discovery.token_endpoint() == server.url


async def test_a_server_in_trouble_says_when_to_come_back(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(json_answer({}, 503, Retry_After="9"))
    with pytest.raises(TokenUnavailableError) as caught:
        await Discovery(client, server.origin).token_endpoint()
    assert (caught.value.status, caught.value.retry_after) == (503, 9.0)
    assert str(caught.value) == "No access token can be had: the issuer is in trouble: it answered 503"


async def test_a_configuration_of_another_issuer_is_refused(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(configuration(server, "https://evil.example\r\n"))
    with pytest.raises(TokenUnavailableError, match=r"that of another one, https://evil\.example$"):
        await Discovery(client, server.origin).token_endpoint()


@pytest.mark.parametrize(
    ("endpoint", "problem"),
    [
        ("http://login.example/token", "must be https"),
        ("https://user:pass@login.example/token", "user name or a password"),
        ("/token", "not an absolute URL"),
        (7, "no token_endpoint"),
        (["https://login.example/token"], "no token_endpoint"),
    ],
)
async def test_an_endpoint_that_would_leak_the_secret_is_refused(
    client: httpx.AsyncClient, server: TokenServer, endpoint: object, problem: str
) -> None:
    server.queue.append(configuration(server, token_endpoint=endpoint))
    with pytest.raises(TokenUnavailableError, match=problem):
        await Discovery(client, server.origin).token_endpoint()


@pytest.mark.parametrize(
    "issuer", ["http://login.example", "login.example", "https://a:b@login.example", "https://login.example/?a=b"]
)
async def test_an_unusable_issuer_is_a_settings_error(client: httpx.AsyncClient, issuer: str) -> None:
    with pytest.raises(SettingsError, match="the issuer is not usable"):
        Discovery(client, issuer)


def respond(server: TokenServer) -> None:
    def answer(request: Request) -> Answer | None:
        return configuration(server) if request.target == DOCUMENT else None

    server.respond = answer


async def test_the_grant_asks_the_endpoint_that_was_found(client: httpx.AsyncClient, server: TokenServer) -> None:
    respond(server)
    grant = ClientCredentialsGrant(client, Discovery(client, server.origin), ClientSecret("relay", lambda: "s3cr3t"))

    assert (await grant.request_token()).value == "token-1"
    assert (await grant.request_token()).value == "token-2"

    assert [request.target for request in server.requests] == [DOCUMENT, "/token", "/token"]


async def test_the_grants_cache_key_names_the_issuer(client: httpx.AsyncClient) -> None:
    secret = ClientSecret("relay", lambda: "s3cr3t")
    keys = [
        ClientCredentialsGrant(client, Discovery(client, issuer), secret).cache_key
        for issuer in ("https://one.example", "https://two.example")
    ] + [ClientCredentialsGrant(client, "https://one.example", secret).cache_key]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "trouble", [Answer(404), Answer(405), Answer(410), DROPPED], ids=["not-found", "not-allowed", "gone", "dropped"]
)
async def test_an_endpoint_that_has_moved_is_looked_for_again(
    client: httpx.AsyncClient, server: TokenServer, trouble: Answer
) -> None:
    grant = ClientCredentialsGrant(client, Discovery(client, server.origin), ClientSecret("relay", lambda: "s3cr3t"))
    old, new = (configuration(server, token_endpoint=server.origin + path) for path in ("/old", "/new"))
    server.queue.extend([old, trouble, new])
    with pytest.raises(TokenUnavailableError):
        await grant.request_token()

    assert (await grant.request_token()).value == "token-1"

    assert [request.target for request in server.requests] == [DOCUMENT, "/old", DOCUMENT, "/new"]


@pytest.mark.parametrize("trouble", [Answer(500), Answer(429), Answer(body=b"{}")], ids=["500", "429", "nonsense"])
async def test_an_endpoint_in_trouble_is_kept(client: httpx.AsyncClient, server: TokenServer, trouble: Answer) -> None:
    grant = ClientCredentialsGrant(client, Discovery(client, server.origin), ClientSecret("relay", lambda: "s3cr3t"))
    server.queue.extend([configuration(server), trouble])
    with pytest.raises(TokenUnavailableError):
        await grant.request_token()
    await grant.request_token()
    assert [request.target for request in server.requests] == [DOCUMENT, "/token", "/token"]
