from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import threading
from typing import TYPE_CHECKING

import httpx
import httpx_aiohttp
import pytest

from shared.auth.access_token import AccessToken
from shared.auth.client_authentication import ClientSecret, SecretMethod
from shared.auth.client_credentials import ClientCredentialsGrant
from shared.errors import SettingsError, TokenRejectedError, TokenUnavailableError
from tests.fakes.token_server import DROPPED, Answer, TokenServer, json_answer, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

SECRET = "s3cr3t:/+ä"


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


@pytest.fixture(params=["httpx", "aiohttp"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx_aiohttp.AiohttpTransport() if request.param == "aiohttp" else httpx.AsyncHTTPTransport()
    async with httpx.AsyncClient(transport=transport) as open_client:
        yield open_client


def basic(client_id: str = "relay", secret: str = SECRET) -> ClientSecret:
    return ClientSecret(client_id, lambda: secret)


def grant(  # noqa: PLR0913 - the members of a token request
    client: httpx.AsyncClient,
    server: TokenServer,
    authentication: ClientSecret | None = None,
    *,
    scope: str | None = None,
    audience: str | None = None,
    resource: str | None = None,
    timeout: float = 10.0,
) -> ClientCredentialsGrant:
    return ClientCredentialsGrant(
        client,
        server.url,
        authentication or basic(),
        scope=scope,
        audience=audience,
        resource=resource,
        timeout=timeout,
    )


class RotatedSecret:
    """Gives the next of its secrets at each reading, the last one from then on."""

    def __init__(self, *secrets: str) -> None:
        self.secrets = secrets
        self.readings = 0

    def __call__(self) -> str:
        self.readings += 1
        return self.secrets[min(self.readings, len(self.secrets)) - 1]


def test_a_token_endpoint_that_would_leak_the_secret_is_a_settings_error() -> None:
    for url in ("http://login.example/token", "https://user:pass@login.example/token", "login.example", "https://[/"):
        with pytest.raises(SettingsError, match="token endpoint is not usable") as caught:
            ClientCredentialsGrant(httpx.AsyncClient(), url, basic())
        assert "pass@" not in str(caught.value)


async def test_basic_sends_form_encoded_credentials_in_the_header_and_none_in_the_form(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    token = await grant(client, server, basic("re:lay ü")).request_token()

    assert token == AccessToken("token-1", 3600.0)
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/token")
    assert request.body == b"grant_type=client_credentials"
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    scheme, _, encoded = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded) == b"re%3Alay+%C3%BC:s3cr3t%3A%2F%2B%C3%A4"


async def test_post_sends_the_credentials_in_the_form_and_no_header(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    authentication = ClientSecret("relay", lambda: SECRET, "client_secret_post")
    await grant(client, server, authentication, scope="a b").request_token()

    (request,) = server.requests
    assert request.body == (
        b"grant_type=client_credentials&scope=a+b&client_id=relay&client_secret=s3cr3t%3A%2F%2B%C3%A4"
    )
    assert "authorization" not in request.headers


async def test_scope_audience_and_resource_are_sent_to_the_byte(client: httpx.AsyncClient, server: TokenServer) -> None:
    wishing = grant(client, server, scope="a b", audience="https://api/", resource="urn:x&y")
    await wishing.request_token()

    assert server.requests[0].body == (
        b"grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fapi%2F&resource=urn%3Ax%26y"
    )


async def test_every_call_is_one_token_request_whatever_token_was_refused(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    requesting = grant(client, server)

    first = await requesting.request_token()
    second = await requesting.request_token(refused=first)

    assert (first.value, second.value) == ("token-1", "token-2")
    assert len(server.requests) == 2


async def test_the_cache_key_names_every_part_of_the_request_and_no_secret() -> None:
    endpoints = ("https://one.example/token", "https://two.example/token")
    methods: tuple[SecretMethod, ...] = ("client_secret_basic", "client_secret_post")
    wishes = (None, "x", "y")
    async with httpx.AsyncClient() as client:
        keys = [
            ClientCredentialsGrant(
                client,
                endpoint,
                ClientSecret(client_id, lambda: SECRET, method),
                scope=scope,
                audience=audience,
                resource=resource,
            ).cache_key
            for endpoint, method, client_id, scope, audience, resource in itertools.product(
                endpoints, methods, ("a", "b"), wishes, wishes, wishes
            )
        ]
    assert len(set(keys)) == len(keys) == 216
    assert not any("s3cr3t" in key for key in keys)


class _LoudAuth(httpx.Auth):
    """Stands for BearerAuth on the same client: it would ask for a token to request a token."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = "Bearer of-the-api"
        yield request


async def test_the_clients_own_authentication_is_not_used(server: TokenServer) -> None:
    async with httpx.AsyncClient(auth=_LoudAuth(), follow_redirects=True) as client:
        await grant(client, server).request_token()
    assert server.requests[0].headers["authorization"].startswith("Basic ")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed_even_by_a_client_that_follows(server: TokenServer, status: int) -> None:
    async with TokenServer() as elsewhere, httpx.AsyncClient(follow_redirects=True) as client:
        server.queue.append(Answer(status, headers={"Location": elsewhere.url}))
        with pytest.raises(TokenUnavailableError, match=str(status)):
            await grant(client, server).request_token()
        assert elsewhere.requests == []
    assert len(server.requests) == 1


async def test_a_server_in_trouble_says_when_to_come_back(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(json_answer({}, 503, Retry_After="42"))
    with pytest.raises(TokenUnavailableError) as caught:
        await grant(client, server).request_token()
    assert (caught.value.status, caught.value.retry_after) == (503, 42.0)


async def test_a_server_in_trouble_may_name_an_http_date(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(json_answer({}, 429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT"))
    with pytest.raises(TokenUnavailableError) as caught:
        await grant(client, server).request_token()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after > 1e9


async def test_a_refusal_carries_the_servers_words_without_the_secret_they_echo(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    encoded = base64.b64encode(b"relay:s3cr3t%3A%2F%2B%C3%A4").decode()
    server.queue.append(refusal("invalid_scope", f"not {SECRET}, s3cr3t%3A%2F%2B%C3%A4, {encoded}"))
    with pytest.raises(TokenRejectedError) as caught:
        await grant(client, server).request_token()
    assert caught.value.description == "not [redacted], [redacted], [redacted]"


@pytest.mark.parametrize(
    "answer",
    [
        DROPPED,
        Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"),
        Answer(body=b'{"access_token":"' + b"x" * 70_000 + b'"}'),
        Answer(body=b"<html>Welcome to the hotel's network</html>"),
        Answer(204),
        json_answer({"token_type": "Bearer", "expires_in": 3600}),
    ],
    ids=["dropped", "not-http", "truncated", "bad-gzip", "oversized", "html", "no-content", "no-token"],
)
async def test_nonsense_is_unavailable_and_not_kept(
    client: httpx.AsyncClient, server: TokenServer, answer: Answer
) -> None:
    requesting = grant(client, server)
    server.queue.append(answer)
    with pytest.raises(TokenUnavailableError):
        await requesting.request_token()
    assert (await requesting.request_token()).value == "token-1"


async def test_a_closed_port_is_unavailable(client: httpx.AsyncClient, server: TokenServer) -> None:
    await server.__aexit__()
    with pytest.raises(TokenUnavailableError, match="cannot be reached: "):
        await grant(client, server).request_token()


async def test_plain_http_where_tls_is_spoken_is_unavailable(client: httpx.AsyncClient) -> None:
    async def refuse_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse_tls, "127.0.0.1", 0) as plain:
        port = plain.sockets[0].getsockname()[1]
        requesting = ClientCredentialsGrant(client, f"https://127.0.0.1:{port}/token", basic())
        with pytest.raises(TokenUnavailableError, match="cannot be reached"):
            await requesting.request_token()


async def test_a_hung_server_is_given_up_after_the_timeout(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(Answer(after=asyncio.Event()))
    with pytest.raises(TokenUnavailableError, match=r"did not answer within 0\.2 s"):
        await grant(client, server, timeout=0.2).request_token()


async def test_a_server_that_drips_is_given_up_after_the_timeout_too(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    server.queue.append(Answer(body=b" " * 60_000, drips=True))
    with pytest.raises(TokenUnavailableError, match=r"did not answer within 0\.3 s"):
        await grant(client, server, timeout=0.3).request_token()


async def test_a_cancelled_request_stays_cancelled(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(Answer(after=asyncio.Event()))
    flight = asyncio.create_task(grant(client, server).request_token())
    await server.came.wait()
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight


async def test_a_rotated_secret_is_read_again_when_the_old_one_is_refused(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    secrets = RotatedSecret("old", "new")
    requesting = grant(client, server, ClientSecret("relay", secrets, "client_secret_post"))
    server.queue.append(refusal("invalid_client", status=401))

    assert (await requesting.request_token()).value == "token-1"
    assert (await requesting.request_token()).value == "token-2"

    assert [request.form["client_secret"] for request in server.requests] == ["old", "new", "new"]
    assert secrets.readings == 3


async def test_an_unchanged_secret_is_not_sent_twice(client: httpx.AsyncClient, server: TokenServer) -> None:
    server.queue.append(refusal("invalid_client", "who are you?", status=401))
    with pytest.raises(TokenRejectedError, match=r"invalid_client \(who are you\?\)"):
        await grant(client, server).request_token()
    assert len(server.requests) == 1


async def test_a_rotated_secret_that_is_refused_too_ends_it(client: httpx.AsyncClient, server: TokenServer) -> None:
    requesting = grant(client, server, ClientSecret("relay", RotatedSecret("old", "new")))
    server.queue.extend([refusal("invalid_client"), refusal("invalid_client", "neither")])
    with pytest.raises(TokenRejectedError, match="neither"):
        await requesting.request_token()
    assert len(server.requests) == 2


async def test_another_refusal_does_not_read_the_secret_again(client: httpx.AsyncClient, server: TokenServer) -> None:
    secrets = RotatedSecret("old", "new")
    server.queue.append(refusal("invalid_scope"))
    with pytest.raises(TokenRejectedError, match="invalid_scope"):
        await grant(client, server, ClientSecret("relay", secrets)).request_token()
    assert (secrets.readings, len(server.requests)) == (1, 1)


@pytest.mark.parametrize("trouble", [FileNotFoundError(2, "No such file"), KeyError(SECRET), ValueError(SECRET)])
async def test_a_secret_that_cannot_be_read_is_unavailable_and_unnamed(
    client: httpx.AsyncClient, server: TokenServer, trouble: Exception
) -> None:
    def read() -> str:
        raise trouble

    with pytest.raises(TokenUnavailableError, match="the client secret") as caught:
        await grant(client, server, ClientSecret("relay", read)).request_token()
    assert SECRET not in str(caught.value)
    assert server.requests == []


async def test_the_secret_is_read_at_first_use_and_off_the_event_loop(
    client: httpx.AsyncClient, server: TokenServer
) -> None:
    threads = []

    def read() -> str:
        threads.append(threading.current_thread())
        return SECRET

    requesting = grant(client, server, ClientSecret("relay", read))
    assert threads == []
    await requesting.request_token()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


@pytest.mark.parametrize(
    "echo",
    [
        b"HTTP/1.1 200 OK\r\nX-Echo\x01: %s\r\n\r\n",
        b"GARBAGE %s\r\n\r\n",
        b"HTTP/1.1 abc %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\nxx",
    ],
    ids=["header", "no-http", "status-line", "content-length", "chunk"],
)
async def test_no_error_and_none_of_its_causes_repeats_what_a_broken_server_echoes(
    client: httpx.AsyncClient, server: TokenServer, echo: bytes
) -> None:
    server.respond = lambda request: Answer(raw=echo % request.headers["authorization"].encode())
    with pytest.raises(TokenUnavailableError) as caught:
        await grant(client, server).request_token()
    sent = server.requests[0].headers["authorization"].removeprefix("Basic ")
    error: BaseException | None = caught.value
    while error is not None:
        assert sent not in repr(error)
        error = error.__cause__ or error.__context__


async def test_the_password_of_a_proxy_is_in_no_error(server: TokenServer) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no way through http://user:p4ssw0rd@proxy:1", request=request)

    async with httpx.AsyncClient(transport=httpx.MockTransport(fail)) as client:
        with pytest.raises(TokenUnavailableError, match="no way through http://proxy:1") as caught:
            await grant(client, server).request_token()
    assert caught.value.__context__ is None


async def test_no_secret_and_no_token_is_shown_by_a_repr_or_a_debug_log(
    client: httpx.AsyncClient, server: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    authentication = basic(secret="s3cr3t")
    requesting = grant(client, server, authentication)
    with caplog.at_level(logging.DEBUG):
        token = await requesting.request_token()
    proof = await authentication.proof(server.url)
    shown = [caplog.text, *map(repr, (requesting, authentication, proof, token))]
    encoded = base64.b64encode(b"relay:s3cr3t").decode()
    for text in shown:
        assert "s3cr3t" not in text
        assert encoded not in text
        assert "token-1" not in text
