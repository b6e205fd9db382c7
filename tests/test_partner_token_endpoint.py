"""The partner's token endpoint and discovery document, over real sockets."""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote_plus

import httpx
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.partner.client_authentication import ASSERTION_TYPE, public_key
from tests.fakes.certificates import rsa_key
from tests.partner_client import CREDENTIALS, running_partner

if TYPE_CHECKING:
    from tests.partner_client import PartnerClient

Key: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | str
CLIENT_ID, CLIENT_SECRET = CREDENTIALS
RSA_KEY = rsa_key()
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def public_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def certificate_pem(key: rsa.RSAPrivateKey) -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def assertion(
    partner: PartnerClient, *, key: Key = EC_KEY, algorithm: str = "ES256", without: str = "", **claims: object
) -> str:
    all_claims: dict[str, object] = {
        "iss": CLIENT_ID,
        "sub": CLIENT_ID,
        "aud": f"{partner.base_url}/auth/token",
        "exp": time.time() + 60,
        "jti": "1",
        **claims,
    }
    all_claims.pop(without, None)
    return jwt.encode(all_claims, key, algorithm=algorithm)


async def post_assertion(partner: PartnerClient, value: str, **form: str) -> httpx.Response:
    return await partner.http.post(
        "/auth/token",
        data={
            "grant_type": "client_credentials",
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": value,
            **form,
        },
    )


async def test_issues_a_token_to_a_client_with_basic_credentials() -> None:
    async with running_partner(token_lifetime=120) as partner:
        response = await partner.request_token()

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert body.pop("access_token").startswith("sandbox-access-token-")
    assert body == {"token_type": "Bearer", "expires_in": 120}


async def test_issues_another_token_each_time() -> None:
    async with running_partner() as partner:
        assert await partner.token() != await partner.token()
        assert (await partner.counters())["tokens_issued"] == 2


async def test_form_decodes_basic_credentials() -> None:
    async with running_partner(client_id="a:b c", client_secret="p%+ä&:=") as partner:
        encoded = base64.b64encode(f"{quote_plus('a:b c')}:{quote_plus('p%+ä&:=')}".encode()).decode()
        response = await partner.http.post(
            "/auth/token", data={"grant_type": "client_credentials"}, headers={"Authorization": f"basic {encoded}"}
        )

    assert response.status_code == 200


async def test_issues_a_token_to_a_client_with_its_secret_in_the_body() -> None:
    async with running_partner() as partner:
        response = await partner.http.post(
            "/auth/token",
            data={
                "grant_type": "client_credentials",
                "client_id": CLIENT_ID,
                "client_secret": CLIENT_SECRET,
            },
        )
        tokens = (await partner.control.get("/sandbox/tokens")).json()

    assert response.status_code == 200
    assert tokens[0]["clientAuth"] == "client_secret_post"


async def test_records_what_was_asked_for_but_no_token() -> None:
    async with running_partner() as partner:
        response = await partner.http.post(
            "/auth/token",
            content="grant_type=client_credentials&scope=read+write&audience=a1&audience=a2&resource=urn%3Ar&empty=",
            headers={"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"},
            auth=httpx.BasicAuth(*CREDENTIALS),
        )
        tokens = await partner.control.get("/sandbox/tokens")

    assert response.json()["scope"] == "read write"
    assert response.json()["access_token"] not in tokens.text
    assert tokens.json() == [
        {
            "partner": "CARRIER_API",
            "number": 1,
            "clientAuth": "client_secret_basic",
            "scope": "read write",
            "audience": ["a1", "a2"],
            "resource": ["urn:r"],
            "expired": False,
            "revoked": False,
            "used": 0,
        }
    ]


@pytest.mark.parametrize(("expires_in", "expected"), [("number", 90), ("string", "90"), ("omitted", None)])
async def test_names_the_lifetime_as_configured(expires_in: str, expected: object) -> None:
    async with running_partner(token_lifetime=90, expires_in=expires_in) as partner:
        body = (await partner.request_token()).json()

    assert body.get("expires_in") == expected


async def test_takes_only_configured_scopes() -> None:
    async with running_partner(scopes=frozenset({"read", "write"})) as partner:
        good = await partner.request_token(scope="write read")
        bad = await partner.request_token(scope="read admin")
        counters = await partner.counters()

    assert good.status_code == 200
    assert (bad.status_code, bad.json()["error"]) == (400, "invalid_scope")
    assert counters["token_outcomes"] == {"issued": 1, "invalid_scope": 1}


@pytest.mark.parametrize(
    ("content", "content_type", "error"),
    [
        ("scope=a", "application/x-www-form-urlencoded", "invalid_request"),
        ("grant_type=", "application/x-www-form-urlencoded", "invalid_request"),
        ("grant_type=password", "application/x-www-form-urlencoded", "unsupported_grant_type"),
        ("grant_type=a&grant_type=b", "application/x-www-form-urlencoded", "invalid_request"),
        ("grant_type=client_credentials&scope=%22", "application/x-www-form-urlencoded", "invalid_scope"),
        ("grant_type=client_credentials&scope=a++b", "application/x-www-form-urlencoded", "invalid_scope"),
        ("grant_type=client_credentials&client_id=else", "application/x-www-form-urlencoded", "invalid_request"),
        ("grant_type=client_credentials&client_secret=x", "application/x-www-form-urlencoded", "invalid_request"),
        ("grant_type=client_credentials", "text/plain", "invalid_request"),
        ('{"grant_type": "client_credentials"}', "application/json", "invalid_request"),
        (b"grant_type=\xff", "application/x-www-form-urlencoded", "invalid_request"),
        ("grant_type=%ff", "application/x-www-form-urlencoded", "invalid_request"),
        ("client_assertion=x&grant_type=a", "application/x-www-form-urlencoded", "invalid_request"),
    ],
)
async def test_refuses_a_bad_request_with_the_error_of_the_rfc(
    content: str | bytes, content_type: str, error: str
) -> None:
    async with running_partner() as partner:
        response = await partner.http.post(
            "/auth/token",
            content=content,
            headers={"Content-Type": content_type},
            auth=httpx.BasicAuth(*CREDENTIALS),
        )
        counters = await partner.counters()

    assert (response.status_code, response.json()["error"]) == (400, error)
    assert response.headers["cache-control"] == "no-store"
    assert counters["token_requests"] == 1
    assert counters["token_outcomes"] == {error: 1}
    assert counters["tokens_issued"] == 0


@pytest.mark.parametrize(
    ("authorization", "form"),
    [
        (None, {}),
        (None, {"client_id": CLIENT_ID}),
        (None, {"client_id": CLIENT_ID, "client_secret": "wrong"}),
        (None, {"client_secret": CLIENT_SECRET}),
        (None, {"client_id": "else", "client_secret": CLIENT_SECRET}),
        ("Basic " + base64.b64encode(f"{CLIENT_ID}:wrong".encode()).decode(), {}),
        ("Basic " + base64.b64encode(f"else:{CLIENT_SECRET}".encode()).decode(), {}),
        ("Basic " + base64.b64encode(CLIENT_ID.encode()).decode(), {}),
        ("Basic " + base64.b64encode(b"\xff:\xff").decode(), {}),
        ("Basic " + base64.b64encode(b"%ff:x").decode(), {}),
        ("Basic ***", {}),
        ("Bearer x", {}),
    ],
)
async def test_refuses_an_unknown_client_with_401(authorization: str | None, form: dict[str, str]) -> None:
    async with running_partner() as partner:
        response = await partner.http.post(
            "/auth/token",
            data={"grant_type": "client_credentials", **form},
            headers={} if authorization is None else {"Authorization": authorization},
        )
        counters = await partner.counters()

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert response.headers["www-authenticate"] == 'Basic realm="sandbox"'
    assert counters["token_outcomes"] == {"invalid_client": 1}


@pytest.mark.parametrize(
    ("pem", "key", "algorithm"),
    [
        (public_pem(RSA_KEY), RSA_KEY, "RS256"),
        (public_pem(RSA_KEY), RSA_KEY, "PS256"),
        (certificate_pem(RSA_KEY), RSA_KEY, "RS512"),
        (public_pem(EC_KEY), EC_KEY, "ES256"),
    ],
)
async def test_issues_a_token_to_a_client_with_a_signed_assertion(pem: str, key: Key, algorithm: str) -> None:
    async with running_partner(client_public_key=pem) as partner:
        response = await post_assertion(partner, assertion(partner, key=key, algorithm=algorithm))
        tokens = (await partner.control.get("/sandbox/tokens")).json()

    assert response.status_code == 200
    assert tokens[0]["clientAuth"] == "private_key_jwt"


async def test_takes_the_issuer_as_the_audience_of_an_assertion() -> None:
    async with running_partner(client_public_key=public_pem(EC_KEY)) as partner:
        response = await post_assertion(
            partner, assertion(partner, aud=[partner.base_url, "urn:else"]), client_id=CLIENT_ID
        )

    assert response.status_code == 200


async def test_takes_an_assertion_only_once() -> None:
    async with running_partner(client_public_key=public_pem(EC_KEY)) as partner:
        value = assertion(partner)
        assert (await post_assertion(partner, value)).status_code == 200

        response = await post_assertion(partner, value)

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")
    assert "used before" in response.json()["error_description"]


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "else"},
        {"sub": "else"},
        {"aud": "urn:else"},
        {"exp": 1_000},
        {"without": "jti"},
        {"without": "exp"},
        {"key": ec.generate_private_key(ec.SECP256R1())},
        {"key": RSA_KEY, "algorithm": "RS256"},
        {"key": "s" * 64, "algorithm": "HS256"},
        {"key": "", "algorithm": "none"},
    ],
)
async def test_refuses_a_bad_assertion(changes: dict[str, Any]) -> None:
    async with running_partner(client_public_key=public_pem(EC_KEY)) as partner:
        response = await post_assertion(partner, assertion(partner, **changes))

    assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


async def test_refuses_an_assertion_of_another_type_client_or_without_a_key() -> None:
    async with running_partner(client_public_key=public_pem(EC_KEY)) as partner:
        other_type = await post_assertion(partner, assertion(partner), client_assertion_type="urn:else")
        other_client = await post_assertion(partner, assertion(partner), client_id="else")
    async with running_partner() as partner:
        no_key = await post_assertion(partner, assertion(partner))

    assert (other_type.status_code, other_type.json()["error"]) == (400, "invalid_request")
    assert (other_client.status_code, other_client.json()["error"]) == (401, "invalid_client")
    assert (no_key.status_code, no_key.json()["error"]) == (401, "invalid_client")


def test_a_public_key_must_be_of_rsa_or_an_elliptic_curve() -> None:
    with pytest.raises(ValueError, match=r"Expected an RSA or an EC key, not .*Ed25519"):
        public_key(public_pem(ed25519.Ed25519PrivateKey.generate()))
    with pytest.raises(ValueError, match="Expected a key on the curve"):
        public_key(public_pem(ec.generate_private_key(ec.SECP256K1())))


async def test_the_discovery_document_names_the_token_endpoint_under_the_host_that_was_asked() -> None:
    async with running_partner() as partner:
        response = await partner.http.get("/.well-known/openid-configuration")
        port = partner.address[1]
        by_name = await partner.http.get("/.well-known/openid-configuration", headers={"Host": f"localhost:{port}"})
        counters = await partner.counters()

    assert response.status_code == 200
    document = response.json()
    assert document["issuer"] == partner.base_url
    assert document["token_endpoint"] == f"{partner.base_url}/auth/token"
    assert document["token_endpoint_auth_methods_supported"] == ["client_secret_basic", "client_secret_post"]
    assert "scopes_supported" not in document
    assert by_name.json()["issuer"] == f"http://localhost:{port}/carrier-api"
    assert counters["discovery_requests"] == 2
    assert counters["discovery_outcomes"] == {"200": 2}


async def test_the_discovery_document_names_what_is_configured() -> None:
    async with running_partner(client_public_key=public_pem(EC_KEY), scopes=frozenset({"b", "a"})) as partner:
        document = (await partner.http.get("/.well-known/openid-configuration")).json()

    assert document["scopes_supported"] == ["a", "b"]
    assert "private_key_jwt" in document["token_endpoint_auth_methods_supported"]
    assert document["token_endpoint_auth_signing_alg_values_supported"] == ["ES256"]
