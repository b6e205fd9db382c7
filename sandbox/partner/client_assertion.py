"""Client authentication with a signed JWT: `private_key_jwt` of OpenID Connect, RFC 7523 sections 2.2 and 3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

if TYPE_CHECKING:
    from collections.abc import Sequence

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")


def public_key(pem: str) -> RSAPublicKey | EllipticCurvePublicKey:
    """Give the RSA or EC public key of a PEM that holds one, or a certificate.

    Raises:
        ValueError: the PEM holds neither.
    """
    is_certificate = "-----BEGIN CERTIFICATE-----" in pem
    key = load_pem_x509_certificate(pem.encode()).public_key() if is_certificate else load_pem_public_key(pem.encode())
    if not isinstance(key, RSAPublicKey | EllipticCurvePublicKey):
        raise ValueError(f"Expected an RSA or an EC key, not {type(key).__name__}")  # noqa: TRY004 - the PEM's content
    return key


def assertion_fault(
    assertion: str,
    *,
    client_id: str,
    key: RSAPublicKey | EllipticCurvePublicKey,
    audiences: Sequence[str],
    seen: set[str],
) -> str | None:
    """Tell what is wrong with the assertion, None where nothing is; its `jti` is put into `seen` and good only once."""
    try:
        claims: dict[str, Any] = jwt.decode(
            assertion,
            key,
            algorithms=list(ALGORITHMS),
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
