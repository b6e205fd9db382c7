from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import jwt
import pytest

from shared.auth.entra import EntraGrant
from shared.auth.managed_identity import ManagedIdentityGrant
from shared.errors import TokenUnavailableError
from shared.grants import create_grant, token_server
from shared.settings import Settings
from tests.fakes.certificates import certificate_pem, key_pem, rsa_key
from tests.fakes.token_server import TokenServer, json_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from shared.auth.access_token import TokenGrant

COMMON = {"BUSINESS_API_URL": "https://api.example", "BUSINESS_API_SCOPE": "records"}
CLIENT = {**COMMON, "BUSINESS_API_CLIENT_ID": "relay"}


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as server:
        yield server


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as client:
        yield client


def _grant(client: httpx.AsyncClient, environ: dict[str, str]) -> TokenGrant:
    return create_grant(Settings.from_environ(environ).token, client)


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_token_url_and_a_secret_are_the_client_credentials_grant(
    server: TokenServer, client: httpx.AsyncClient, method: str
) -> None:
    environ = {
        **CLIENT,
        "BUSINESS_API_TOKEN_URL": server.url,
        "BUSINESS_API_CLIENT_SECRET": "secret",
        "BUSINESS_API_CLIENT_AUTH": method,
        "BUSINESS_API_AUDIENCE": "the-audience",
        "BUSINESS_API_RESOURCE": "https://resource.example",
    }

    token = await _grant(client, environ).request_token()

    (request,) = server.requests
    assert token.value == "token-1"
    expected = {
        "grant_type": "client_credentials",
        "scope": "records",
        "audience": "the-audience",
        "resource": "https://resource.example",
    }
    if method == "client_secret_post":
        assert request.form == {**expected, "client_id": "relay", "client_secret": "secret"}
    else:
        assert request.form == expected
        assert request.headers["authorization"].startswith("Basic ")


async def test_a_secret_in_a_file_is_read_again_for_every_request(
    server: TokenServer, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    environ = {
        **CLIENT,
        "BUSINESS_API_TOKEN_URL": server.url,
        "BUSINESS_API_CLIENT_SECRET_FILE": str(file),
        "BUSINESS_API_CLIENT_AUTH": "client_secret_post",
    }
    grant = _grant(client, environ)
    for secret in ("first\n", " sécond "):
        file.write_text(secret, encoding="utf-8")
        await grant.request_token()

    assert [request.form["client_secret"] for request in server.requests] == ["first", "sécond"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file"),
        (b" \n", "not usable: its file holds no text"),
        (b"\xff\xfes3cr3t", "not usable: its file holds no text"),
    ],
)
async def test_a_file_without_a_secret_is_told_at_the_token_request(
    server: TokenServer, client: httpx.AsyncClient, tmp_path: Path, content: bytes | None, problem: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    environ = {**CLIENT, "BUSINESS_API_TOKEN_URL": server.url, "BUSINESS_API_CLIENT_SECRET_FILE": str(file)}

    with pytest.raises(TokenUnavailableError, match=f"the client secret .*{problem}"):
        await _grant(client, environ).request_token()

    assert server.requests == []


@pytest.mark.parametrize(
    ("source", "server"),
    [
        ({"TOKEN_URL": "https://login.example/token"}, "https://login.example/token"),
        ({"ISSUER": "https://login.example"}, "https://login.example"),
        ({"TENANT_ID": "contoso"}, "https://login.microsoftonline.com"),
    ],
)
def test_the_server_of_the_tokens_is_the_one_that_the_grant_asks(source: dict[str, str], server: str) -> None:
    environ = CLIENT | {"BUSINESS_API_CLIENT_SECRET": "s"} | {f"BUSINESS_API_{k}": v for k, v in source.items()}
    assert token_server(Settings.from_environ(environ).token) == server


def test_the_server_of_a_managed_identity_is_on_this_machine() -> None:
    assert token_server(Settings.from_environ({**COMMON, "BUSINESS_API_MANAGED_IDENTITY": "system"}).token) is None


async def test_an_issuer_is_discovered(server: TokenServer, client: httpx.AsyncClient) -> None:
    server.queue.append(json_answer({"issuer": server.origin, "token_endpoint": f"{server.origin}/found"}))
    environ = {**CLIENT, "BUSINESS_API_ISSUER": server.origin, "BUSINESS_API_CLIENT_SECRET": "secret"}

    await _grant(client, environ).request_token()

    assert [request.target for request in server.requests] == ["/.well-known/openid-configuration", "/found"]


async def test_private_key_jwt_signs_with_the_certificates_key(
    server: TokenServer, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    key = rsa_key()
    pem = tmp_path / "client.pem"
    pem.write_bytes(key_pem(key) + certificate_pem(key))
    environ = {
        **CLIENT,
        "BUSINESS_API_TOKEN_URL": server.url,
        "BUSINESS_API_CLIENT_AUTH": "private_key_jwt",
        "BUSINESS_API_CLIENT_CERTIFICATE": str(pem),
        "BUSINESS_API_CLIENT_KEY_ID": "key-7",
    }

    await _grant(client, environ).request_token()

    assert jwt.get_unverified_header(server.requests[0].form["client_assertion"])["kid"] == "key-7"


async def test_private_key_jwt_sends_a_federated_token_as_it_is(
    server: TokenServer, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("federated.assertion.1")
    environ = {
        **CLIENT,
        "BUSINESS_API_TOKEN_URL": server.url,
        "BUSINESS_API_CLIENT_AUTH": "private_key_jwt",
        "BUSINESS_API_FEDERATED_TOKEN_FILE": str(file),
    }

    await _grant(client, environ).request_token()

    assert server.requests[0].form["client_assertion"] == "federated.assertion.1"


@pytest.mark.parametrize(
    ("setting", "method"),
    [
        ("BUSINESS_API_CLIENT_SECRET", "secret"),
        ("BUSINESS_API_CLIENT_SECRET_FILE", "secret"),
        ("BUSINESS_API_CLIENT_CERTIFICATE", "certificate"),
        ("BUSINESS_API_FEDERATED_TOKEN_FILE", "federated_token"),
    ],
)
async def test_a_tenant_is_asked_through_msal_with_its_credential(
    client: httpx.AsyncClient, setting: str, method: str
) -> None:
    grant = _grant(client, {**CLIENT, "BUSINESS_API_TENANT_ID": "contoso", setting: "value"})

    assert isinstance(grant, EntraGrant)
    assert method in grant.cache_key
    assert "contoso" in grant.cache_key
    assert "records" in grant.cache_key


@pytest.mark.parametrize(("identity", "named"), [("system", False), ("System", False), ("a-client-id", True)])
async def test_a_managed_identity_is_the_systems_or_a_named_one(
    client: httpx.AsyncClient, identity: str, *, named: bool
) -> None:
    grant = _grant(client, {**COMMON, "BUSINESS_API_MANAGED_IDENTITY": identity})

    assert isinstance(grant, ManagedIdentityGrant)
    assert (identity in grant.cache_key) is named


async def test_a_missing_key_file_is_told_at_the_token_request(
    server: TokenServer, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    environ = {
        **CLIENT,
        "BUSINESS_API_TOKEN_URL": server.url,
        "BUSINESS_API_CLIENT_AUTH": "private_key_jwt",
        "BUSINESS_API_CLIENT_CERTIFICATE": str(tmp_path / "missing.pem"),
    }

    with pytest.raises(TokenUnavailableError, match="cannot be read"):
        await _grant(client, environ).request_token()

    assert server.requests == []
