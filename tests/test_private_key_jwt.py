from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.auth.client_authentication import FederatedToken
from shared.auth.client_credentials import ClientCredentialsGrant, Discovery
from shared.auth.private_key_jwt import PrivateKeyJwt, client_certificate_from_pem
from shared.errors import TokenRejectedError, TokenUnavailableError
from tests.fakes.certificates import certificate_pem, key_pem, rsa_key
from tests.fakes.token_server import Answer, Request, TokenServer, json_answer, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.certificates import SigningKey

NOW = 1_750_000_000.9
TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient() as open_client:
        yield open_client


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "client.pem"


def claims_of(request: Request, key: SigningKey, algorithm: str, audience: str) -> dict[str, Any]:
    """Verify the assertion as a server would, at the fixed time that the tests sign at."""
    options: Any = {"require": ["iss", "sub", "aud", "jti", "iat", "exp"], "verify_exp": False, "verify_iat": False}
    return jwt.decode(
        request.form["client_assertion"],
        key.public_key(),
        [algorithm],
        audience=audience,
        issuer="relay",
        options=options,
    )


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa_key(), "RS256"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["rsa", "p-256", "p-384", "ed25519"],
)
async def test_signs_an_assertion_for_the_token_endpoint(
    client: httpx.AsyncClient, server: TokenServer, file: Path, key: SigningKey, algorithm: str
) -> None:
    file.write_bytes(key_pem(key))
    grant = ClientCredentialsGrant(client, server.url, PrivateKeyJwt("relay", file, now=lambda: NOW), scope="a")

    assert (await grant.request_token()).value == "token-1"

    (request,) = server.requests
    form = request.form
    assert list(form) == ["grant_type", "scope", "client_id", "client_assertion_type", "client_assertion"]
    assert (form["client_id"], form["client_assertion_type"]) == ("relay", TYPE)
    assert "authorization" not in request.headers
    claims = claims_of(request, key, algorithm, server.url)
    jti = claims.pop("jti")
    assert claims == {"iss": "relay", "sub": "relay", "aud": server.url, "iat": 1_750_000_000, "exp": 1_750_000_060}
    assert len(jti) >= 32
    assert jwt.get_unverified_header(form["client_assertion"]) == {"alg": algorithm, "typ": "JWT"}


async def test_names_the_key_where_a_certificate_or_a_key_id_is_there(
    client: httpx.AsyncClient, server: TokenServer, file: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key_pem(key) + certificate_pem(key)
    file.write_bytes(pem)
    authentication = PrivateKeyJwt("relay", file, key_id="key-7")
    await ClientCredentialsGrant(client, server.url, authentication).request_token()

    header = jwt.get_unverified_header(server.requests[0].form["client_assertion"])
    thumbprint = client_certificate_from_pem(pem).thumbprint
    assert header == {"alg": "ES256", "typ": "JWT", "kid": "key-7", "x5t#S256": thumbprint}


async def test_every_request_has_a_fresh_assertion(client: httpx.AsyncClient, server: TokenServer, file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key_pem(key))
    times = iter([NOW, NOW + 100])
    grant = ClientCredentialsGrant(client, server.url, PrivateKeyJwt("relay", file, now=lambda: next(times)))
    await grant.request_token()
    await grant.request_token()

    first, second = (claims_of(request, key, "ES256", server.url) for request in server.requests)
    assert first["jti"] != second["jti"]
    assert second["exp"] - first["exp"] == 100


async def test_the_audience_is_the_endpoint_that_was_discovered(
    client: httpx.AsyncClient, server: TokenServer, file: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key_pem(key))
    endpoint = f"{server.origin}/other/token"
    server.queue.append(json_answer({"issuer": server.origin, "token_endpoint": endpoint}))
    grant = ClientCredentialsGrant(client, Discovery(client, server.origin), PrivateKeyJwt("relay", file))
    await grant.request_token()

    assert server.requests[1].target == "/other/token"
    assert claims_of(server.requests[1], key, "ES256", endpoint)["aud"] == endpoint


async def test_a_rotated_key_is_used_at_once_when_the_old_one_is_refused(
    client: httpx.AsyncClient, server: TokenServer, file: Path
) -> None:
    old, new = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    file.write_bytes(key_pem(old))

    def rotate(_request: Request) -> Answer | None:
        file.write_bytes(key_pem(new))
        return refusal("invalid_client", status=401) if len(server.requests) == 1 else None

    server.respond = rotate
    grant = ClientCredentialsGrant(client, server.url, PrivateKeyJwt("relay", file))

    assert (await grant.request_token()).value == "token-1"
    claims_of(server.requests[0], old, "ES256", server.url)
    claims_of(server.requests[1], new, "ES256", server.url)


async def test_an_unchanged_key_that_is_refused_is_not_tried_again(
    client: httpx.AsyncClient, server: TokenServer, file: Path
) -> None:
    file.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    server.queue.append(refusal("invalid_client", status=401))
    with pytest.raises(TokenRejectedError, match="invalid_client"):
        await ClientCredentialsGrant(client, server.url, PrivateKeyJwt("relay", file)).request_token()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read: No such file"), (b"", "0 PEM private keys where one is needed")]
)
async def test_a_file_without_a_key_is_unavailable_until_it_is_mended(
    client: httpx.AsyncClient, server: TokenServer, file: Path, content: bytes | None, problem: str
) -> None:
    grant = ClientCredentialsGrant(client, server.url, PrivateKeyJwt("relay", file))
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenUnavailableError, match=f"the client certificate file .*{problem}"):
        await grant.request_token()
    assert server.requests == []

    file.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    assert (await grant.request_token()).value == "token-1"


async def test_an_echoed_assertion_is_redacted(client: httpx.AsyncClient, server: TokenServer, file: Path) -> None:
    file.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    server.respond = lambda request: refusal("invalid_client", f"bad {request.form['client_assertion']}")
    with pytest.raises(TokenRejectedError) as caught:
        await ClientCredentialsGrant(client, server.url, PrivateKeyJwt("relay", file)).request_token()
    assert caught.value.description == "bad [redacted]"


async def test_a_federated_token_is_read_again_for_every_request(
    client: httpx.AsyncClient, server: TokenServer, file: Path
) -> None:
    grant = ClientCredentialsGrant(client, server.url, FederatedToken("relay", file), resource="urn:x")
    file.write_text("first.assertion.a\n")
    await grant.request_token()
    file.write_text("second.assertion.b")
    await grant.request_token()

    assert server.requests[0].body == (
        b"grant_type=client_credentials&resource=urn%3Ax&client_id=relay"
        b"&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer"
        b"&client_assertion=first.assertion.a"
    )
    assert server.requests[1].form["client_assertion"] == "second.assertion.b"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two tokens", b"caf\xc3\xa9"])
async def test_a_file_without_one_token_is_unavailable(
    client: httpx.AsyncClient, server: TokenServer, file: Path, content: bytes | None
) -> None:
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenUnavailableError, match="the federated token file"):
        await ClientCredentialsGrant(client, server.url, FederatedToken("relay", file)).request_token()
    assert server.requests == []


async def test_the_ways_to_authenticate_have_cache_keys_of_their_own(client: httpx.AsyncClient, file: Path) -> None:
    ways = (PrivateKeyJwt("relay", file), FederatedToken("relay", file))
    keys = {ClientCredentialsGrant(client, "https://login.example/token", way).cache_key for way in ways}
    assert len(keys) == 2
