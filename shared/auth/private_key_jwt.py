"""Client authentication `private_key_jwt`: the client's own key out of a PEM file, and what it signs (RFC 7523)."""

from __future__ import annotations

import base64
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import PublicKeyAlgorithmOID
from jwt.algorithms import OKPAlgorithm

from shared.auth.client_authentication import ClientProof, assertion_proof, read_credential, text_in_file
from shared.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shared.auth.token_endpoint import Endpoint

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}  # RFC 7518 section 3.4
_MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
# The algorithms that PyJWT knows, and its EdDSA under the name of RFC 9864.
_JWS = jwt.PyJWS()
_JWS.register_algorithm("Ed25519", OKPAlgorithm())
_LIFETIME = 60  # seconds: the most that the strictest profile (FAPI 2.0) lets a server accept, clocks apart


class PrivateKeyJwt:
    """Client authentication `private_key_jwt`: an assertion signed with the client's own key, a fresh one each time.

    `path` is a PEM file with the private key and, if there is one, its certificate. It is read for every token
    request, so that a rotated key is picked up. `key_id` becomes the assertion's `kid` if the server needs one.
    `audience` is "issuer", "token_endpoint" or the audience itself; `algorithm` is a JWS name, None for the key's
    usual one. `now` returns POSIX seconds.
    """

    method = "private_key_jwt"

    def __init__(  # noqa: PLR0913, the members of an assertion, each by its own name
        self,
        client_id: str,
        path: Path,
        *,
        key_id: str | None = None,
        audience: str = "token_endpoint",
        algorithm: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.client_id = client_id
        self._path = path
        self._key_id = key_id
        self._audience = audience
        self._algorithm = algorithm
        self._now = now

    async def proof(self, endpoint: Endpoint) -> ClientProof:
        """Sign an assertion for one request to `endpoint`.

        Raises:
            TokenUnavailableError: the file cannot be read, or holds no usable key.
        """
        return await read_credential(lambda: self._signed(endpoint), "the client certificate file")

    def _signed(self, endpoint: Endpoint) -> ClientProof:
        pem = text_in_file(self._path).encode()
        own = client_certificate_from_pem(pem, self._algorithm)
        issued_at = int(self._now())
        audiences = {"issuer": endpoint.issuer or endpoint.url, "token_endpoint": endpoint.url}
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": audiences.get(self._audience, self._audience),
            "jti": str(uuid.uuid4()),
            "iat": issued_at,
            "exp": issued_at + _LIFETIME,
        }
        named = {"kid": self._key_id, "x5t#S256": own.thumbprint}
        headers = {name: value for name, value in named.items() if value}
        assertion = _JWS.encode(json.dumps(claims).encode(), own.key, own.algorithm, headers)
        return assertion_proof(pem, self.client_id, assertion)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The key that signs for a client; `algorithm` is its JWS name (RFC 7518 section 3.1).

    `key_pem` is the key's PEM block; `certificate` belongs to the key, None where the file has the key alone.
    """

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


def client_certificate_from_pem(pem: bytes, algorithm: str | None = None) -> ClientCertificate:
    """Read a PEM file's one private key and, out of any certificates, the one that belongs to it.

    `algorithm` is the JWS algorithm to sign with, None for the key's usual one.

    Raises:
        CredentialError: there is no such key, it is encrypted, too weak or does not fit the algorithm, or no
            certificate belongs to it.
    """
    blocks = [(match[1], match[0]) for match in _BLOCK.finditer(pem)]
    keys = [block for label, block in blocks if label.endswith(b"PRIVATE KEY")]
    if len(keys) != 1:
        raise CredentialError(f"it has {len(keys)} PEM private keys where one is needed")
    try:
        key = load_pem_private_key(keys[0], password=None)
        certificates = [x509.load_pem_x509_certificate(block) for label, block in blocks if label == b"CERTIFICATE"]
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
