"""Client authentication `private_key_jwt`: the client's own key in a PEM text, and what it signs (RFC 7523)."""

from __future__ import annotations

import base64
import json
import uuid

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt.algorithms import OKPAlgorithm

from shared.errors import CredentialError

_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}  # RFC 7518 section 3.4
# The algorithms that PyJWT knows, and its EdDSA under the name of RFC 9864.
_JWS = jwt.PyJWS()
_JWS.register_algorithm("Ed25519", OKPAlgorithm())
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey
_LIFETIME = 60  # seconds: the most that the strictest profile (FAPI 2.0) lets a server accept, clocks apart


def signed_assertion(  # noqa: PLR0913, the parts of an assertion, each by its own name
    pem: str, client_id: str, audience: str, *, key_id: str | None, algorithm: str | None, now: float
) -> str:
    """Sign an assertion with the client's key in a PEM text (RFC 7523 section 3).

    `key_id` becomes its `kid` if the server needs one. `algorithm` is a JWS name, None for the key's usual one. `now`
    is in POSIX seconds.

    Raises:
        CredentialError: the text holds no usable key, or the key does not fit the algorithm.
    """
    key, certificate, algorithms = client_key_from_pem(pem)
    if algorithm is not None and algorithm not in algorithms:
        raise CredentialError(f"its key signs with {', '.join(algorithms)}, not with {algorithm}")
    times = {"iat": int(now), "exp": int(now) + _LIFETIME}
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": str(uuid.uuid4()), **times}
    headers = {"kid": key_id} if key_id else {}
    if certificate is not None:  # RFC 7515 section 4.1.8
        thumbprint = base64.urlsafe_b64encode(certificate.fingerprint(SHA256()))
        headers["x5t#S256"] = thumbprint.rstrip(b"=").decode()
    return _JWS.encode(json.dumps(claims).encode(), key, algorithm or algorithms[0], headers)


def client_key_from_pem(pem: str) -> tuple[PrivateKey, x509.Certificate | None, tuple[str, ...]]:
    """Return a PEM text's private key, the certificate that belongs to it, and its JWS algorithms, the usual one first.

    Raises:
        CredentialError: there is no key, it is encrypted, it signs no JWT, or no certificate belongs to it.
    """
    octets = pem.encode()
    try:
        key = load_pem_private_key(octets, password=None)
        certificates = x509.load_pem_x509_certificates(octets) if "BEGIN CERTIFICATE" in pem else []
    except TypeError as exc:  # what cryptography raises for a key that needs a password
        raise CredentialError("its private key is encrypted; it must not be") from exc
    except ValueError as exc:
        raise CredentialError("it holds no PEM private key, or a broken block") from exc
    if isinstance(key, rsa.RSAPrivateKey):
        algorithms: tuple[str, ...] = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
    elif isinstance(key, Ed25519PrivateKey):
        algorithms = ("EdDSA", "Ed25519")  # RFC 9864 has deprecated the first, which more servers know
    elif isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        algorithms = (_CURVES[key.curve.name],)
    else:
        raise CredentialError("its private key is of a kind that JWS has no algorithm for")
    certificate = next((one for one in certificates if one.public_key() == key.public_key()), None)
    if certificates and certificate is None:
        raise CredentialError("none of its certificates belongs to its private key")
    return key, certificate, algorithms
