from __future__ import annotations

import base64
import gzip
import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shared.auth.client_credentials import ClientCredentials, text_in_file
from shared.auth.token_endpoint import MAX_BODY, AccessToken
from shared.client.transport import RelayTransport
from shared.errors import TokenRejectedError, TokenUnavailableError
from tests.fakes.token_server import DROPPED, Answer, TokenServer, json_answer, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Grant = Callable[[], Awaitable[AccessToken]]

SECRET = "s3cr3t:/+ä"
DOCUMENT = "/.well-known/openid-configuration"


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


@pytest.fixture
async def transport() -> AsyncIterator[RelayTransport]:
    # To load the certificates of the internet's authorities would take longer than most of the tests.
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with RelayTransport(max_connections=10, tls=tls, max_body=MAX_BODY) as opened:
        yield opened


def grant(transport: httpx.AsyncBaseTransport, token_url: str | None, **settings: str) -> Grant:
    own: dict[str, Any] = {"client_id": "relay", "client_secret": SECRET} | settings
    return partial(ClientCredentials("CRM_API_", token_url=token_url, **own).request_token, transport)


async def test_basic_sends_form_encoded_credentials_in_the_header_and_none_in_the_form(
    transport: RelayTransport, server: TokenServer
) -> None:
    requesting = grant(transport, server.url, client_id="re:lay ü")
    assert await requesting() == AccessToken("token-1", 3600.0)
    (request,) = server.requests
    assert (request.method, request.target, request.body) == ("POST", "/token", b"grant_type=client_credentials")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert (request.headers["accept"], request.headers["accept-encoding"]) == ("application/json", "identity")
    scheme, _, encoded = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded) == b"re%3Alay+%C3%BC:s3cr3t%3A%2F%2B%C3%A4"


async def test_post_sends_the_credentials_and_all_wishes_in_the_form_and_no_header(
    transport: RelayTransport, server: TokenServer
) -> None:
    wishes: dict[str, Any] = {"scope": "a b", "audience": "https://api/", "resource": "x&y"}
    await grant(transport, server.url, client_auth="client_secret_post", **wishes)()
    (request,) = server.requests
    assert request.body == (
        b"grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fapi%2F&resource=x%26y"
        b"&client_id=relay&client_secret=s3cr3t%3A%2F%2B%C3%A4"
    )
    assert "authorization" not in request.headers


@pytest.mark.parametrize("status", [301, 307, 308, 404, 405, 410])
async def test_a_url_that_is_no_token_endpoint_says_which_setting_to_check(
    transport: RelayTransport, server: TokenServer, status: int
) -> None:
    server.queue.append(Answer(status, headers={"Location": server.url}))
    with pytest.raises(TokenUnavailableError, match=f"it answered {status}; check CRM_API_TOKEN_URL"):
        await grant(transport, server.url)()
    assert len(server.requests) == 1


@pytest.mark.parametrize("answer", [json_answer({}, 503, Retry_After="42"), refusal("invalid_client", status=401)])
async def test_a_server_in_trouble_says_when_to_come_back(
    transport: RelayTransport, server: TokenServer, answer: Answer
) -> None:
    server.queue.append(Answer(answer.status, answer.body, {"Retry-After": "42"}))
    with pytest.raises((TokenUnavailableError, TokenRejectedError)) as caught:
        await grant(transport, server.url)()
    assert (caught.value.status, caught.value.retry_after) == (answer.status, 42.0)


async def test_a_refusal_carries_the_servers_words_without_the_secret_they_echo(
    transport: RelayTransport, server: TokenServer
) -> None:
    encoded = base64.b64encode(b"relay:s3cr3t%3A%2F%2B%C3%A4").decode()
    server.queue.append(refusal("invalid_scope", f"not {SECRET}, s3cr3t%3A%2F%2B%C3%A4, {encoded}"))
    with pytest.raises(TokenRejectedError) as caught:
        await grant(transport, server.url)()
    assert caught.value.description == "not [redacted], [redacted], [redacted]"


@pytest.mark.parametrize("answer", [refusal("invalid_client", status=400), Answer(401, b"no")])
async def test_a_refusal_of_basic_credentials_names_the_other_method(
    transport: RelayTransport, server: TokenServer, answer: Answer
) -> None:
    for secret, method, is_named in (
        ("a+b/c=", "client_secret_basic", True),
        ("a+b/c=", "client_secret_post", False),
    ):
        server.queue.append(answer)
        with pytest.raises((TokenRejectedError, TokenUnavailableError)) as caught:
            await grant(transport, server.url, client_secret=secret, client_auth=method)()
        assert ("try CRM_API_CLIENT_AUTH=client_secret_post" in str(caught.value)) == is_named


@pytest.mark.parametrize(
    "answer",
    [
        DROPPED,
        Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Answer(raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
        Answer(body=b"{}", headers={"Content-Encoding": "gzip"}),
        Answer(body=b"{}", headers={"Content-Encoding": "br"}),
        Answer(body=b'{"access_token":"' + b"x" * 70_000 + b'"}'),
        Answer(body=b"<html>Welcome to the hotel's network</html>"),
        Answer(204),
        json_answer({"token_type": "Bearer", "expires_in": 3600}),
    ],
    ids=["dropped", "not-http", "truncated", "bad-gzip", "brotli", "oversized", "html", "no-content", "no-token"],
)
async def test_nonsense_is_unavailable_and_not_kept(
    transport: RelayTransport, server: TokenServer, answer: Answer
) -> None:
    requesting = grant(transport, server.url)
    server.queue.append(answer)
    with pytest.raises(TokenUnavailableError):
        await requesting()
    assert (await requesting()).value == "token-1"


@pytest.mark.parametrize("codings", [1, 2])
async def test_a_body_that_unpacks_to_gigabytes_is_not_unpacked(
    transport: RelayTransport, server: TokenServer, codings: int
) -> None:
    bomb = gzip.compress(bytes(100_000_000), 1)
    encoding = "gzip"
    if codings == 2:
        bomb, encoding = gzip.compress(bomb, 9), "gzip, gzip"
    server.queue.append(Answer(body=bomb, headers={"Content-Encoding": encoding}))
    with pytest.raises(TokenUnavailableError, match=r"more than 65536 bytes|content encoding is"):
        await grant(transport, server.url)()


async def test_a_compressed_answer_that_nobody_asked_for_is_read(
    transport: RelayTransport, server: TokenServer
) -> None:
    server.queue.append(
        Answer(body=gzip.compress(b'{"access_token":"zipped"}'), headers={"Content-Encoding": "x-gzip"})
    )
    assert (await grant(transport, server.url)()).value == "zipped"


async def test_a_closed_port_is_unavailable(transport: RelayTransport, server: TokenServer) -> None:
    await server.__aexit__()
    with pytest.raises(TokenUnavailableError, match="the token endpoint cannot be reached: "):
        await grant(transport, server.url)()


async def test_a_secret_in_a_file_is_read_again_for_every_request(
    transport: RelayTransport, server: TokenServer, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    requesting = grant(transport, server.url, client_secret_file=str(file), client_auth="client_secret_post")
    for secret in ("old-secret", "new-secret"):
        file.write_text(f"{secret}\n")
        await requesting()
    assert [request.form["client_secret"] for request in server.requests] == ["old-secret", "new-secret"]


async def test_a_secret_that_cannot_be_read_is_unavailable(
    transport: RelayTransport, server: TokenServer, tmp_path: Path
) -> None:
    with pytest.raises(TokenUnavailableError, match="the client's credential cannot be read: No such file"):
        await grant(transport, server.url, client_secret_file=str(tmp_path / "none"))()
    assert server.requests == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_a_secret(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(f"{SECRET}\r\n".encode(encoding))
    assert text_in_file(str(file)) == SECRET


@pytest.mark.parametrize("content", [b"", b" \n", b"\xef\xbb\xbf", b"\x80\x81"])
def test_a_file_without_text_is_no_secret(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"its file holds no text|can't decode"):
        text_in_file(str(file))


async def test_a_secret_too_short_to_be_redacted_is_warned_of(
    transport: RelayTransport, server: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.queue.append(refusal("invalid_scope", "abcdef"))
    with pytest.raises(TokenRejectedError, match="abcdef"):
        await grant(transport, server.url, client_secret="abc")()
    assert "client secret is too short to be redacted" in caplog.messages


@pytest.mark.parametrize(
    "echo",
    [
        b"HTTP/1.1 200 OK\r\nX-Echo\x01: %s\r\n\r\n",
        b"HTTP/1.1 abc %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%s\r\nxx",
    ],
    ids=["header", "status-line", "content-length", "chunk"],
)
async def test_no_error_and_none_of_its_causes_repeats_what_a_broken_server_echoes(
    transport: RelayTransport, server: TokenServer, echo: bytes
) -> None:
    server.respond = lambda request: Answer(raw=echo % request.headers["authorization"].encode())
    with pytest.raises(TokenUnavailableError) as caught:
        await grant(transport, server.url)()
    sent = server.requests[0].headers["authorization"].removeprefix("Basic ")
    error: BaseException | None = caught.value
    while error is not None:
        assert sent not in repr(error)
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("kind", [httpx.ConnectError, httpx.ProxyError])
async def test_who_cannot_be_reached_is_named_in_the_words_of_the_transport(kind: type[httpx.TransportError]) -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise kind("the proxy proxy:1 answered 407 to CONNECT", request=request)

    with pytest.raises(TokenUnavailableError, match="cannot be reached: the proxy proxy:1 answered 407") as caught:
        await grant(httpx.MockTransport(fail), "https://login.example/token")()
    assert caught.value.__context__ is None


async def test_no_secret_and_no_token_is_shown_by_a_repr_or_a_debug_log(
    transport: RelayTransport, server: TokenServer, caplog: pytest.LogCaptureFixture
) -> None:
    requesting = grant(transport, server.url, client_secret="s3cr3t")
    with caplog.at_level(logging.DEBUG):
        token = await requesting()
    encoded = base64.b64encode(b"relay:s3cr3t").decode()
    for text in [caplog.text, *map(repr, (requesting, token))]:
        assert not any(secret in text for secret in ("s3cr3t", encoded, "token-1"))


async def test_a_federated_token_is_read_again_for_every_request(
    transport: RelayTransport, server: TokenServer, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    requesting = grant(transport, server.url, client_auth="private_key_jwt", federated_token_file=str(file))
    for content in (None, b""):
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(TokenUnavailableError, match="the client's credential"):
            await requesting()
    assert server.requests == []
    for assertion in ("first.assertion.a", "second.assertion.b"):
        file.write_text(f"{assertion}\n")
        await requesting()
    assert server.requests[0].body == (
        b"grant_type=client_credentials&client_id=relay"
        b"&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        b"&client_assertion=first.assertion.a"
    )
    assert server.requests[1].form["client_assertion"] == "second.assertion.b"


class TestDiscovery:
    """The endpoint is the one that the issuer names."""

    async def test_asks_the_issuer_for_each_token(self, transport: RelayTransport, server: TokenServer) -> None:
        server.respond = lambda request: configuration(server) if request.target == DOCUMENT else None
        requesting = grant(transport, None, issuer=server.origin)
        assert server.requests == []
        assert [(await requesting()).value for _ in range(2)] == ["token-1", "token-2"]
        assert [request.target for request in server.requests] == [DOCUMENT, "/token"] * 2
        assert "authorization" not in server.requests[0].headers

    @pytest.mark.parametrize("configured", ["", "/", "/realms/a", "/realms/a/"])
    @pytest.mark.parametrize("slash", ["", "/"])
    async def test_finds_the_endpoint_however_the_issuer_ends(
        self, transport: RelayTransport, server: TokenServer, configured: str, slash: str
    ) -> None:
        issuer = server.origin + configured
        server.queue.append(configuration(server, issuer.removesuffix("/") + slash))
        assert (await grant(transport, None, issuer=issuer)()).value == "token-1"
        assert server.requests[0].target == configured.removesuffix("/") + DOCUMENT

    @pytest.mark.parametrize(
        "trouble",
        [
            DROPPED,
            Answer(429),
            Answer(302, headers={"Location": "/elsewhere"}),
            Answer(body=b"[]"),
            Answer(body=b"{}"),
            Answer(body=b'{"issuer": "' + b"x" * 70_000),
            Answer(body=gzip.compress(bytes(1_000_000)), headers={"Content-Encoding": "gzip"}),
        ],
        ids=["dropped", "429", "redirect", "list", "empty", "oversized", "bomb"],
    )
    async def test_a_failure_is_unavailable_and_not_kept(
        self, transport: RelayTransport, server: TokenServer, trouble: Answer
    ) -> None:
        requesting = grant(transport, None, issuer=server.origin)
        server.queue.extend([trouble, configuration(server)])
        with pytest.raises(TokenUnavailableError, match="the issuer"):
            await requesting()
        assert (await requesting()).value == "token-1"

    async def test_trouble_names_the_setting_and_when_to_come_back(
        self, transport: RelayTransport, server: TokenServer
    ) -> None:
        server.queue.extend([json_answer({}, 503, Retry_After="9"), Answer(404)])
        with pytest.raises(TokenUnavailableError, match=r"in trouble: it answered 503$") as caught:
            await grant(transport, None, issuer=server.origin)()
        assert (caught.value.status, caught.value.retry_after) == (503, 9.0)
        with pytest.raises(TokenUnavailableError, match=r"it answered 404; check CRM_API_ISSUER$"):
            await grant(transport, None, issuer=server.origin)()

    async def test_a_configuration_of_another_issuer_is_refused(
        self, transport: RelayTransport, server: TokenServer
    ) -> None:
        server.queue.append(configuration(server, "https://evil.example\r\n"))
        with pytest.raises(TokenUnavailableError, match=r"that of another one, https://evil\.example$"):
            await grant(transport, None, issuer=server.origin)()

    @pytest.mark.parametrize(
        ("endpoint", "problem"),
        [
            ("http://login.example/token", "must be https"),
            ("https://user:pass@login.example/token", "user name or a password"),
            ("/token", "not an absolute URL"),
            (["https://login.example/token"], "not an absolute URL"),
        ],
    )
    async def test_an_endpoint_that_would_leak_the_secret_is_refused(
        self, transport: RelayTransport, server: TokenServer, endpoint: object, problem: str
    ) -> None:
        server.queue.append(configuration(server, token_endpoint=endpoint))
        with pytest.raises(TokenUnavailableError, match=problem):
            await grant(transport, None, issuer=server.origin)()


def configuration(server: TokenServer, issuer: str = "", token_endpoint: object = None) -> Answer:
    return json_answer({"issuer": issuer or server.origin, "token_endpoint": token_endpoint or server.url})
