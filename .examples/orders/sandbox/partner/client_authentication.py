"""How a client proves at the token endpoint who it is (RFC 6749 section 2.3, and RFC 7523 for `private_key_jwt`)."""

from __future__ import annotations

import base64
import binascii
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import unquote_plus

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandbox.partner.call import Call
    from sandbox.partner.state import PartnerConfig, Site

ClientKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# RFC 7518 section 3.4: each algorithm has its own curve.
_EC_ALGORITHMS = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}
ClientAuth: TypeAlias = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]


class TokenRequestError(Exception):
    """The token request is refused; `error` is the code of RFC 6749 section 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(f"{error}: {description}")
        self.error = error
        self.description = description


def public_key(pem: str) -> ClientKey:
    """Return the RSA or EC public key of a PEM that holds one, or a certificate.

    Raises:
        ValueError: the PEM holds neither, or a key on a curve that JWTs do not know.
    """
    is_certificate = "-----BEGIN CERTIFICATE-----" in pem
    key = load_pem_x509_certificate(pem.encode()).public_key() if is_certificate else load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise ValueError(f"Expected an RSA or an EC key, not {type(key).__name__}")  # noqa: TRY004, the PEM's content
    if not algorithms(key):
        raise ValueError("Expected a key on the curve P-256, P-384 or P-521")
    return key


def algorithms(key: ClientKey) -> tuple[str, ...]:
    """Return the names of the algorithms (RFC 7518) with which such a key signs."""
    return _RSA_ALGORITHMS if isinstance(key, RSAPublicKey) else _EC_ALGORITHMS.get(key.curve.name, ())


def authenticate(call: Call, form: Mapping[str, str], config: PartnerConfig) -> ClientAuth:
    """Return the method by which the client has proved to be the partner's.

    Raises:
        TokenRequestError: it has not ("invalid_client"), or it used two methods at once ("invalid_request").
    """
    authorization = call.header("authorization")
    methods = [authorization is not None, "client_secret" in form, "client_assertion" in form]
    if sum(methods) > 1:
        raise TokenRequestError("invalid_request", "More than one way of client authentication is used")
    if authorization is not None:
        client_id, secret = _basic_credentials(authorization)
        if form.get("client_id", client_id) != client_id:
            raise TokenRequestError("invalid_request", "client_id is not the one of the Authorization header")
        _check_secret(client_id, secret, call.site)
        return "client_secret_basic"
    if "client_secret" in form:
        _check_secret(form.get("client_id", ""), form["client_secret"], call.site)
        return "client_secret_post"
    if "client_assertion" in form:
        _check_assertion(call, form, config)
        return "private_key_jwt"
    raise TokenRequestError("invalid_client", "No client authentication")


def _basic_credentials(authorization: str) -> tuple[str, str]:
    """Return client id and secret, form-decoded as RFC 6749 section 2.3.1 says."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise TokenRequestError("invalid_client", f"The authentication scheme {scheme!r} is not supported")
    try:
        credentials = base64.b64decode(encoded.strip(), validate=True).decode()
        client_id, colon, secret = credentials.partition(":")
        if not colon:
            raise ValueError("no colon")  # noqa: TRY301, one message for all that is malformed
        return unquote_plus(client_id, errors="strict"), unquote_plus(secret, errors="strict")
    except (ValueError, binascii.Error) as exc:
        raise TokenRequestError("invalid_client", "The Basic credentials are malformed") from exc


def _check_secret(client_id: str, secret: str, site: Site) -> None:
    known = compare_digest(client_id.encode(), site.client_id.encode())
    if not compare_digest(secret.encode(), site.client_secret.encode()) or not known:
        raise TokenRequestError("invalid_client", "Unknown client or wrong secret")


def _check_assertion(call: Call, form: Mapping[str, str], config: PartnerConfig) -> None:
    """Check an assertion; its `jti` is good only once."""
    client_id = call.site.client_id
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise TokenRequestError("invalid_request", f"client_assertion_type must be {ASSERTION_TYPE}")
    if config.client_public_key is None:
        raise TokenRequestError("invalid_client", "No public key is configured for the client")
    if form.get("client_id", client_id) != client_id:
        raise TokenRequestError("invalid_client", "Unknown client")
    key = public_key(config.client_public_key)
    try:
        claims: dict[str, Any] = jwt.decode(
            form["client_assertion"],
            key,
            algorithms=algorithms(key),
            audience=[call.base_url, f"{call.base_url}/auth/token"],
            issuer=client_id,
            subject=client_id,
            options={"require": ["iss", "sub", "aud", "exp", "jti"]},
        )
    except jwt.PyJWTError as exc:
        raise TokenRequestError("invalid_client", f"The client assertion is not good: {exc}") from exc
    if claims["jti"] in call.site.seen_assertions:
        raise TokenRequestError("invalid_client", "The client assertion was used before")
    call.site.seen_assertions.add(claims["jti"])
