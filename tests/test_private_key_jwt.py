from __future__ import annotations

import base64
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from shared.auth.client_credentials import ClientCredentials
from shared.auth.private_key_jwt import client_key_from_pem
from shared.client.transport import RelayTransport
from shared.errors import CredentialError, TokenRejectedError, TokenUnavailableError
from shared.settings.reader import SettingReader
from tests.fakes.certificates import certificate_pem, key_pem, rsa_key
from tests.fakes.token_server import Request, TokenServer, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from shared.auth.token_endpoint import AccessToken
    from tests.fakes.certificates import SigningKey

    Grant = Callable[[], Awaitable[AccessToken]]

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture
async def transport() -> AsyncIterator[RelayTransport]:
    async with RelayTransport(max_connections=10, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as opened:
        yield opened


@pytest.fixture
async def server() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "client.pem"


def grant(transport: httpx.AsyncBaseTransport, server: TokenServer, file: Path, **settings: str) -> Grant:
    own: dict[str, Any] = {"client_auth": "private_key_jwt", "client_certificate": str(file)} | settings
    made = ClientCredentials("CRM_", "relay", token_url=server.url, **own)
    return partial(made.request_token, transport, lambda: 1_750_000_000.9)


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
        (ec.generate_private_key(ec.SECP521R1()), "ES512"),
        (Ed25519PrivateKey.generate(), "EdDSA"),
    ],
    ids=["rsa", "p-256", "p-384", "p-521", "ed25519"],
)
async def test_signs_an_assertion_for_the_token_endpoint(
    transport: RelayTransport, server: TokenServer, file: Path, key: SigningKey, algorithm: str
) -> None:
    file.write_bytes(key_pem(key))
    requesting = grant(transport, server, file)

    assert (await requesting()).value == "token-1"

    (request,) = server.requests
    form = request.form
    assert list(form) == ["grant_type", "client_id", "client_assertion_type", "client_assertion"]
    assert (form["client_id"], form["client_assertion_type"]) == ("relay", TYPE)
    assert "authorization" not in request.headers
    claims = claims_of(request, key, algorithm, server.url)
    jti = claims.pop("jti")
    assert claims == {"iss": "relay", "sub": "relay", "aud": server.url, "iat": 1_750_000_000, "exp": 1_750_000_060}
    assert len(jti) >= 32
    assert jwt.get_unverified_header(form["client_assertion"]) == {"alg": algorithm, "typ": "JWT"}


async def test_names_the_key_where_a_certificate_or_a_key_id_is_there(
    transport: RelayTransport, server: TokenServer, file: Path
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certificate_pem(key)
    file.write_bytes(key_pem(key) + certificate)
    await grant(transport, server, file, client_key_id="key-7")()

    header = jwt.get_unverified_header(server.requests[0].form["client_assertion"])
    octets = x509.load_pem_x509_certificate(certificate).fingerprint(SHA256())
    thumbprint = base64.urlsafe_b64encode(octets).decode().rstrip("=")
    assert header == {"alg": "ES256", "typ": "JWT", "kid": "key-7", "x5t#S256": thumbprint}


@pytest.mark.parametrize(
    ("settings", "audience"),
    [
        ({}, "https://relay.example/issuer"),
        ({"CLIENT_ASSERTION_AUDIENCE": "issuer"}, "https://relay.example/issuer"),
        ({"CLIENT_ASSERTION_AUDIENCE": "token_endpoint"}, "https://relay.example/token"),
        ({"CLIENT_ASSERTION_AUDIENCE": "https://other.example/"}, "https://other.example/"),
        ({"ISSUER": "", "TOKEN_URL": "https://relay.example/token"}, "https://relay.example/token"),
    ],
)
async def test_the_audience_is_the_issuer_unless_there_is_none_or_a_setting_decides(
    file: Path, settings: dict[str, str], audience: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    file.write_bytes(key_pem(key))
    sent: list[Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            document = {"issuer": "https://relay.example/issuer", "token_endpoint": "https://relay.example/token"}
            return httpx.Response(200, json=document)
        sent.append(Request("POST", request.url.path, {}, request.content))
        return httpx.Response(200, json={"access_token": "token-1"})

    issuer = {"ISSUER": "https://relay.example/issuer/", "CLIENT_ID": "relay", "CLIENT_CERTIFICATE": str(file)}
    read = SettingReader(issuer | {"CLIENT_AUTH": "private_key_jwt"} | settings)
    await ClientCredentials.from_settings(read).request_token(httpx.MockTransport(answer))
    assert read.problems == []
    assert claims_of(sent[0], key, "ES256", audience)["aud"] == audience


@pytest.mark.parametrize(
    ("key", "algorithm"), [(rsa_key(), "PS256"), (rsa_key(), "RS512"), (Ed25519PrivateKey.generate(), "Ed25519")]
)
async def test_the_algorithm_can_be_chosen(
    transport: RelayTransport, server: TokenServer, file: Path, key: SigningKey, algorithm: str
) -> None:
    file.write_bytes(key_pem(key))
    await grant(transport, server, file, client_key_algorithm=algorithm)()
    header, content, signature = server.requests[0].form["client_assertion"].split(".")
    assert jwt.get_unverified_header(f"{header}.{content}.{signature}")["alg"] == algorithm
    checks = jwt.algorithms.get_default_algorithms()[{"Ed25519": "EdDSA"}.get(algorithm, algorithm)]
    octets = jwt.utils.base64url_decode(signature)
    assert checks.verify(f"{header}.{content}".encode(), checks.prepare_key(key.public_key()), octets)


async def test_an_algorithm_that_the_key_has_not_names_those_it_has(
    transport: RelayTransport, server: TokenServer, file: Path
) -> None:
    file.write_bytes(key_pem(ec.generate_private_key(ec.SECP384R1())))
    with pytest.raises(TokenUnavailableError, match="its key signs with ES384, not with ES256"):
        await grant(transport, server, file, client_key_algorithm="ES256")()


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "cannot be read: No such file"), (b"x", "it holds no PEM private key")]
)
async def test_a_file_without_a_key_is_unavailable_until_it_is_mended(
    transport: RelayTransport, server: TokenServer, file: Path, content: bytes | None, problem: str
) -> None:
    requesting = grant(transport, server, file)
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TokenUnavailableError, match=f"the client's credential .*{problem}"):
        await requesting()
    assert server.requests == []

    file.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    assert (await requesting()).value == "token-1"


async def test_an_echoed_assertion_is_redacted(transport: RelayTransport, server: TokenServer, file: Path) -> None:
    file.write_bytes(key_pem(ec.generate_private_key(ec.SECP256R1())))
    server.respond = lambda request: refusal("invalid_client", f"bad {request.form['client_assertion']}")
    with pytest.raises(TokenRejectedError) as caught:
        await grant(transport, server, file)()
    assert caught.value.description == "bad [redacted]"


@pytest.fixture(scope="module")
def key() -> SigningKey:
    return rsa_key()


def test_takes_the_certificate_that_belongs_to_the_key_out_of_a_chain(key: SigningKey) -> None:
    pem = certificate_pem(key)
    chain = certificate_pem(Ed25519PrivateKey.generate()) + pem + key_pem(key)
    assert client_key_from_pem(chain.decode())[1] == x509.load_pem_x509_certificate(pem)


def encrypted(key: SigningKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


UNUSABLE: dict[str, tuple[Callable[[SigningKey], bytes], str]] = {
    "nothing": (lambda _key: b"", "no PEM private key"),
    "certificate-alone": (certificate_pem, "no PEM private key"),
    "encrypted": (encrypted, "encrypted"),
    "broken-key": (lambda _key: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a broken block"),
    "broken-certificate": (
        lambda key: key_pem(key) + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "a broken block",
    ),
    "foreign-certificate": (
        lambda key: key_pem(key) + certificate_pem(Ed25519PrivateKey.generate()),
        "none of its certificates belongs",
    ),
    "key-for-no-signature": (
        lambda _key: X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "no algorithm for",
    ),
    "unknown-curve": (lambda _key: key_pem(ec.generate_private_key(ec.BrainpoolP256R1())), "no algorithm for"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_file_says_why_and_shows_nothing_of_the_key(key: SigningKey, kind: str) -> None:
    make, problem = UNUSABLE[kind]
    pem = make(key)
    with pytest.raises(CredentialError, match=problem) as caught:
        client_key_from_pem(pem.decode())
    assert not any(line in str(caught.value) for line in pem.decode().splitlines() if len(line) > 3)
