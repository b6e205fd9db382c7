"""Client authentication with a signed JWT: `private_key_jwt` of OpenID Connect, RFC 7523 sections 2.2 and 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

if TYPE_CHECKING:
    from collections.abc import Sequence

ClientKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
# RFC 7518 section 3.4: each algorithm has its own curve.
_EC_ALGORITHMS = {"secp256r1": ("ES256",), "secp384r1": ("ES384",), "secp521r1": ("ES512",)}


def public_key(pem: str) -> ClientKey:
    """Give the RSA or EC public key of a PEM that holds one, or a certificate.

    Raises:
        ValueError: the PEM holds neither, or a key on a curve that JWTs do not know.
    """
    is_certificate = "-----BEGIN CERTIFICATE-----" in pem
    key = load_pem_x509_certificate(pem.encode()).public_key() if is_certificate else load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise ValueError(f"Expected an RSA or an EC key, not {type(key).__name__}")  # noqa: TRY004 - the PEM's content
    if not algorithms(key):
        raise ValueError("Expected a key on the curve P-256, P-384 or P-521")
    return key


def algorithms(key: ClientKey) -> tuple[str, ...]:
    """Give the names of the algorithms (RFC 7518) with which such a key signs."""
    return _RSA_ALGORITHMS if isinstance(key, RSAPublicKey) else _EC_ALGORITHMS.get(key.curve.name, ())


def assertion_fault(
    assertion: str,
    *,
    client_id: str,
    key: ClientKey,
    audiences: Sequence[str],
    seen: set[str],
) -> str | None:
    """Tell what is wrong with the assertion, None where nothing is; its `jti` is put into `seen` and good only once."""
    try:
        claims: dict[str, Any] = jwt.decode(
            assertion,
            key,
            algorithms=algorithms(key),
            audience=list(audiences),
            issuer=client_id,
            subject=client_id,
            options={"require": ["iss", "sub", "aud", "exp", "jti"]},
        )
    except jwt.PyJWTError as exc:
        return f"The client assertion is not good: {exc}"
    if claims["jti"] in seen:
        return "The client assertion was used before"
    seen.add(claims["jti"])
    return None
