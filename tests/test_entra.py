from __future__ import annotations

import asyncio
import base64
import dataclasses
import logging
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from shared.auth.entra import Entra
from shared.auth.token_endpoint import MAX_BODY, AccessToken
from shared.client.transport import RelayTransport
from shared.errors import TokenRejectedError, TokenUnavailableError
from tests.fakes.certificates import certificate_pem, key_pem, rsa_key
from tests.fakes.tls import tls_server
from tests.fakes.token_server import DROPPED, Answer, Request, TokenServer, json_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    Grant = Callable[[], Coroutine[None, None, AccessToken]]

TENANT = "11111111-2222-3333-4444-555555555555"
DOCUMENT = f"/{TENANT}/v2.0/.well-known/openid-configuration"
TOKEN = f"/{TENANT}/oauth2/v2.0/token"
SETTINGS = Entra(TENANT, "relay", client_secret="s3cr3t", resource="https://api.example")


class Login:
    """Microsoft Entra on loopback TLS: serves the tenant's metadata, and numbers its tokens."""

    def __init__(self, server: TokenServer, trusted: Path) -> None:
        self.server = server
        tls = ssl.create_default_context(cafile=trusted)
        self.transport = RelayTransport(max_connections=10, tls=tls, max_body=MAX_BODY)
        server.respond = self.respond

    @property
    def token_requests(self) -> list[Request]:
        return [request for request in self.server.requests if request.target == TOKEN]

    def respond(self, request: Request) -> Answer | None:
        if request.target != DOCUMENT:
            return None
        issuer = f"{self.server.origin}/{TENANT}/v2.0"
        endpoints = dict.fromkeys(("token_endpoint", "authorization_endpoint"), self.server.origin + TOKEN)
        return json_answer({"issuer": issuer} | endpoints)

    def grant(self, **settings: Any) -> Grant:  # noqa: ANN401, whatever Entra has
        if {"client_certificate", "federated_token_file"} & settings.keys():
            settings["client_secret"] = None
        made = dataclasses.replace(SETTINGS, authority=self.server.origin, **settings)
        return partial(made.request_token, self.transport)


async def end_of_all_threads() -> None:
    """Wait for the loop's worker threads, which can take no more work then."""
    async with asyncio.timeout(5):
        await asyncio.get_running_loop().shutdown_default_executor()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return tls_server(tmp_path_factory.mktemp("tls"))


@pytest.fixture
async def entra(tls: tuple[Any, Path]) -> AsyncIterator[Login]:
    context, trusted = tls
    async with TokenServer(tls=context) as server:
        running = Login(server, trusted)
        async with running.transport:
            yield running


async def test_a_secret_is_sent_in_the_form(entra: Login) -> None:
    token = await entra.grant()()

    assert token == AccessToken("token-1", 3600.0)
    (request,) = entra.token_requests
    assert request.method == "POST"
    assert request.form == {
        "client_id": "relay",
        "grant_type": "client_credentials",
        "client_info": "1",
        "client_secret": "s3cr3t",
        "scope": "https://api.example/.default",
    }


@pytest.mark.parametrize(
    ("asked", "scope"),
    [
        ({"resource": "https://api.example/"}, "https://api.example//.default"),
        ({"audience": "api://relay", "resource": None}, "api://relay/.default"),
        ({"scope": "api://a/.default", "audience": "api://b"}, "api://a/.default"),
    ],
)
async def test_the_scope_is_the_one_named_or_the_default_of_what_is_named(
    entra: Login, asked: dict[str, Any], scope: str
) -> None:
    await entra.grant(**asked)()
    assert entra.token_requests[0].form["scope"] == scope


async def test_no_cache_of_msal_answers_for_the_server(entra: Login) -> None:
    grant = entra.grant()
    first = await grant()
    second = await grant()
    third = await grant()

    assert [token.value for token in (first, second, third)] == ["token-1", "token-2", "token-3"]
    assert len(entra.token_requests) == 3


async def test_a_certificate_signs_a_fresh_assertion_for_each_request(entra: Login, tmp_path: Path) -> None:
    key = rsa_key()
    certificate = certificate_pem(key)
    file = tmp_path / "client.pem"
    file.write_bytes(key_pem(key) + certificate)
    grant = entra.grant(client_certificate=str(file))
    await grant()
    await grant()

    identifiers = set()
    for request in entra.token_requests:
        assertion = request.form["client_assertion"]
        assert request.form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert "client_secret" not in request.form
        claims = jwt.decode(assertion, key.public_key(), ["PS256"], audience=entra.server.origin + TOKEN)
        assert (claims["iss"], claims["sub"]) == ("relay", "relay")
        thumbprint = jwt.get_unverified_header(assertion)["x5t#S256"]
        own = x509.load_pem_x509_certificate(certificate).fingerprint(SHA256())
        assert base64.urlsafe_b64decode(thumbprint + "==") == own
        identifiers.add(claims["jti"])
    assert len(identifiers) == 2


async def test_a_certificate_that_is_refused_is_a_rejection_that_does_not_show_its_assertion(
    entra: Login, tmp_path: Path
) -> None:
    key = rsa_key()
    file = tmp_path / "client.pem"
    file.write_bytes(key_pem(key) + certificate_pem(key))

    def refuse_it(request: Request) -> Answer | None:
        echo = f"AADSTS700027: not {request.form.get('client_assertion')}"
        return entra.respond(request) or json_answer({"error": "invalid_client", "error_description": echo}, 401)

    entra.server.respond = refuse_it
    with pytest.raises(TokenRejectedError) as caught:
        await entra.grant(client_certificate=str(file))()
    assert caught.value.description == "AADSTS700027: not [redacted]"


def rsa_without_certificate() -> bytes:
    return key_pem(rsa_key())


def elliptic_with_certificate() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key_pem(key) + certificate_pem(key)


@pytest.mark.parametrize("make", [rsa_without_certificate, elliptic_with_certificate])
async def test_a_certificate_file_that_entra_has_no_use_for_is_unavailable(
    entra: Login, tmp_path: Path, make: Callable[[], bytes]
) -> None:
    file = tmp_path / "client.pem"
    file.write_bytes(make())
    with pytest.raises(TokenUnavailableError, match="the client's credential is not usable: Microsoft Entra needs"):
        await entra.grant(client_certificate=str(file))()
    assert entra.server.requests == []


@pytest.mark.parametrize("setting", ["client_certificate", "federated_token_file", "client_secret_file"])
async def test_a_missing_file_is_unavailable(entra: Login, tmp_path: Path, setting: str) -> None:
    with pytest.raises(TokenUnavailableError, match="the client's credential cannot be read: No such file"):
        await entra.grant(**{setting: str(tmp_path / "none")})()


async def grant_metadata(entra: Login) -> None:
    """Queue the metadata first, so that what is queued after it answers the token request."""
    answer = entra.respond(Request("GET", DOCUMENT, {}, b""))
    assert answer
    entra.server.queue.append(answer)


def refuse(error: str, description: str, status: int) -> Answer:
    return json_answer({"error": error, "error_description": description, "error_codes": [7]}, status)


@pytest.mark.parametrize(
    ("error", "description", "status"),
    [
        ("invalid_client", "AADSTS7000215: Invalid client secret provided.", 401),
        ("invalid_client", "AADSTS7000222: The provided client secret keys are expired.", 401),
        ("unauthorized_client", "AADSTS700016: Application was not found in the directory.", 400),
        ("invalid_scope", "AADSTS70011: The provided scope is not valid.", 400),
    ],
)
async def test_every_refusal_of_the_client_is_a_rejection(
    entra: Login, error: str, description: str, status: int
) -> None:
    await grant_metadata(entra)
    entra.server.queue.append(refuse(error, description, status))
    with pytest.raises(TokenRejectedError) as caught:
        await entra.grant()()
    assert (caught.value.error, caught.value.description, caught.value.status) == (error, description, status)
    assert len(entra.token_requests) == 1


async def test_an_unknown_tenant_or_resource_is_named(entra: Login) -> None:
    entra.server.queue.append(refuse("invalid_tenant", "AADSTS90002: Tenant not found.", 400))
    with pytest.raises(TokenUnavailableError, match="error invalid_tenant; AADSTS90002: Tenant not found"):
        await entra.grant()()


@pytest.mark.parametrize("status", [404, 429, 503])
@pytest.mark.parametrize("at", ["metadata", "token"])
async def test_a_server_in_trouble_is_unavailable_until_it_recovers(entra: Login, status: int, at: str) -> None:
    grant = entra.grant()
    if at == "token":
        await grant_metadata(entra)
    entra.server.queue.append(json_answer({"error": "temporarily_unavailable"}, status, Retry_After="33"))
    with pytest.raises(TokenUnavailableError, match=f"it answered {status}; error temporarily") as caught:
        await grant()
    assert (caught.value.status, caught.value.retry_after) == (status, 33.0)
    assert (await grant()).value == "token-1"


@pytest.mark.parametrize(
    "answer",
    [
        DROPPED,
        Answer(raw=b"SSH-2.0-OpenSSH_9.2\r\n"),
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(400, body=b"<html>"),
        Answer(302, headers={"Location": "https://127.0.0.1:1/"}),
        Answer(body=b'{"access_token":"' + b"x" * 70_000 + b'"}'),
        json_answer({"token_type": "Bearer"}),
        json_answer({"access_token": "a\r\nb", "expires_in": 3600}),
        json_answer({"access_token": "a", "expires_in": 3600, "token_type": "pop"}),
    ],
    ids=[
        "dropped",
        "not-http",
        "html",
        "list",
        "html-400",
        "redirect",
        "oversized",
        "no-token",
        "token-for-no-header",
        "no-bearer",
    ],
)
@pytest.mark.parametrize("at", ["metadata", "token"])
async def test_nonsense_is_unavailable_and_not_kept(entra: Login, answer: Answer, at: str) -> None:
    grant = entra.grant()
    if at == "token":
        await grant_metadata(entra)
    entra.server.queue.append(answer)
    with pytest.raises(TokenUnavailableError):
        await grant()
    assert (await grant()).value == "token-1"


async def test_a_request_that_nobody_waits_for_any_more_sends_no_token_request(entra: Login) -> None:
    await entra.grant()()  # so that MSAL is imported already
    entra.server.came.clear()
    released = asyncio.Event()
    metadata = entra.respond(Request("GET", DOCUMENT, {}, b""))
    assert metadata
    entra.server.queue.append(dataclasses.replace(metadata, after=released))
    flight = asyncio.create_task(entra.grant()())
    await entra.server.came.wait()
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight
    released.set()
    await end_of_all_threads()
    assert len(entra.token_requests) == 1


async def test_no_secret_and_no_token_is_shown_by_a_repr_an_error_or_a_debug_log(
    entra: Login, caplog: pytest.LogCaptureFixture
) -> None:
    grant = entra.grant()
    with caplog.at_level(logging.DEBUG):
        token = await grant()
        await grant_metadata(entra)
        entra.server.queue.append(Answer(body=b'{"access_token": "token-9", '))
        with pytest.raises(TokenUnavailableError) as caught:
            await grant()
    for text in (caplog.text, repr(grant), repr(SETTINGS), repr(token), str(caught.value)):
        assert "s3cr3t" not in text
        assert "token-1" not in text
        assert "token-9" not in text


async def test_a_failure_of_msal_before_any_answer_shows_its_type_alone(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cr3t")
    settings = dataclasses.replace(SETTINGS, client_secret_file=str(file), authority="ftp://s3cr3t")
    with pytest.raises(TokenUnavailableError, match="MSAL failed with ValueError") as caught:
        await settings.request_token(httpx.MockTransport(lambda _: httpx.Response(500)))
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__context__ is None
