"""Client authentication `private_key_jwt`: the client's own key in a PEM text, and what it signs (RFC 7523)."""

from __future__ import annotations

import base64
import json
import re
import uuid
from dataclasses import dataclass, field

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID
from jwt.algorithms import OKPAlgorithm

from shared.errors import CredentialError

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey

_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}  # RFC 7518 section 3.4
_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
# The algorithms that PyJWT knows, and its EdDSA under the name of RFC 9864.
_JWS = jwt.PyJWS()
_JWS.register_algorithm("Ed25519", OKPAlgorithm())
_LIFETIME = 60  # seconds: the most that the strictest profile (FAPI 2.0) lets a server accept, clocks apart


def signed_assertion(  # noqa: PLR0913, the parts of an assertion, each by its own name
    pem: str, client_id: str, audience: str, *, key_id: str | None, algorithm: str | None, now: float
) -> str:
    """Sign an assertion with the client's key in a PEM text (RFC 7523 section 3).

    `key_id` becomes its `kid` if the server needs one. `algorithm` is a JWS name, None for the key's usual one. `now`
    is in POSIX seconds.

    Raises:
        CredentialError: the text holds no usable key.
    """
    own = client_certificate_from_pem(pem, algorithm)
    times = {"iat": int(now), "exp": int(now) + _LIFETIME}
    claims = {"iss": client_id, "sub": client_id, "aud": audience, "jti": str(uuid.uuid4()), **times}
    headers = {name: value for name, value in (("kid", key_id), ("x5t#S256", own.thumbprint)) if value}
    return _JWS.encode(json.dumps(claims).encode(), own.key, own.algorithm, headers)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The key that signs for a client, its PEM block, its certificate if there is one, and its JWS algorithm."""

    key: PrivateKey = field(repr=False)
    key_pem: bytes = field(repr=False)
    certificate: x509.Certificate | None
    algorithm: str

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as a PEM block, nothing without a certificate."""
        return self.certificate.public_bytes(Encoding.PEM) if self.certificate else b""

    @property
    def thumbprint(self) -> str | None:
        """The certificate's SHA-256 in base64url (RFC 7515 section 4.1.8: `x5t#S256`), None without a certificate."""
        if self.certificate is None:
            return None
        return base64.urlsafe_b64encode(self.certificate.fingerprint(SHA256())).rstrip(b"=").decode()


def client_certificate_from_pem(pem: str, algorithm: str | None = None) -> ClientCertificate:
    """Read a PEM text's one private key and, out of any certificates, the one that belongs to it.

    `algorithm` is the JWS algorithm to sign with, None for the key's usual one.

    Raises:
        CredentialError: there is no such key, it is encrypted, too weak or does not fit the algorithm, or no
            certificate belongs to it.
    """
    blocks = [(match[1], match[0].encode()) for match in _BLOCK.finditer(pem)]
    keys = [block for label, block in blocks if label.endswith("PRIVATE KEY")]
    if len(keys) != 1:
        raise CredentialError(f"it has {len(keys)} PEM private keys where one is needed")
    try:
        key = load_pem_private_key(keys[0], password=None)
        certificates = [x509.load_pem_x509_certificate(block) for label, block in blocks if label == "CERTIFICATE"]
    except TypeError as exc:  # what cryptography raises for a key that needs a password
        raise CredentialError("its private key is encrypted; it must not be") from exc
    except ValueError as exc:
        raise CredentialError("its PEM blocks do not hold what they say") from exc
    if not isinstance(key, PrivateKey):
        raise CredentialError(f"its private key is of an unusable kind, {type(key).__name__}")
    certificate = next((one for one in certificates if one.public_key() == key.public_key()), None)
    if certificates and certificate is None:
        raise CredentialError("none of its certificates belongs to its private key")
    algorithms = _algorithms(key, certificate)
    if algorithm is not None and algorithm not in algorithms:
        raise CredentialError(f"its key signs with {', '.join(algorithms)}, not with {algorithm}")
    return ClientCertificate(key, keys[0], certificate, algorithm or algorithms[0])


def _algorithms(key: PrivateKey, certificate: x509.Certificate | None) -> tuple[str, ...]:
    """Return the JWS algorithms that a key can sign with, the usual one first."""
    if isinstance(key, Ed25519PrivateKey):
        return ("EdDSA", "Ed25519")  # RFC 9864 has deprecated the first, which more servers know
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in _CURVES:
            raise CredentialError(f"its private key is on the curve {key.curve.name}, which JWS has no algorithm for")
        return (_CURVES[key.curve.name],)
    if key.key_size < _MIN_RSA_BITS:
        raise CredentialError(f"its RSA key has {key.key_size} bits; {_MIN_RSA_BITS} are the least")
    if certificate is not None and certificate.public_key_algorithm_oid == PublicKeyAlgorithmOID.RSASSA_PSS:
        return ("PS256", "PS384", "PS512")
    return ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
