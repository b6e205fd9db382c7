"""Client authentication by a signed assertion instead of a secret (RFC 7523 section 2.2)."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

import jwt

from shared.auth.client_authentication import ClientProof, CredentialError, read_credential
from shared.auth.client_certificate import client_certificate_from_pem

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LIFETIME = 60  # seconds: the most that the strictest profile (FAPI 2.0) lets a server accept, clocks apart


class PrivateKeyJwt:
    """Client authentication `private_key_jwt`: an assertion signed with the client's own key, a fresh one each time.

    `path` is a PEM file with the private key and, if there is one, its certificate. It is read for every token
    request, so that a rotated key is picked up. `key_id` becomes the assertion's `kid` where the server needs one;
    `now` gives POSIX seconds.
    """

    method = "private_key_jwt"

    def __init__(
        self, client_id: str, path: Path, *, key_id: str | None = None, now: Callable[[], float] = time.time
    ) -> None:
        self.client_id = client_id
        self._path = path
        self._key_id = key_id
        self._now = now

    async def proof(self, token_endpoint: str) -> ClientProof:
        """Sign an assertion for one request to `token_endpoint`.

        Raises:
            TokenUnavailableError: the file cannot be read, or holds no usable key.
        """
        return await read_credential(lambda: self._signed(token_endpoint), "the client certificate file")

    def _signed(self, token_endpoint: str) -> ClientProof:
        pem = self._path.read_bytes()
        own = client_certificate_from_pem(pem)
        issued_at = int(self._now())
        claims = {
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": token_endpoint,
            "jti": str(uuid.uuid4()),
            "iat": issued_at,
            "exp": issued_at + _LIFETIME,
        }
        named = {"kid": self._key_id, "x5t#S256": own.thumbprint}
        headers = {name: value for name, value in named.items() if value}
        assertion = jwt.encode(claims, own.key, algorithm=own.algorithm, headers=headers)
        return _assertion_proof(pem, self.client_id, assertion)


class FederatedToken:
    """Client authentication by an assertion that someone else signs and keeps fresh in a file (workload identity).

    The file is read for every token request: whoever writes it replaces it long before its content expires.
    """

    method = "federated_token"

    def __init__(self, client_id: str, path: Path) -> None:
        self.client_id = client_id
        self._path = path

    async def proof(self, token_endpoint: str) -> ClientProof:  # noqa: ARG002 - its issuer has named the audience
        """Take the assertion out of the file.

        Raises:
            TokenUnavailableError: the file cannot be read, or is empty.
        """
        assertion = await read_credential(lambda: federated_assertion(self._path), "the federated token file")
        return _assertion_proof(assertion, self.client_id, assertion)


def federated_assertion(path: Path) -> str:
    """Read the assertion in a federated token file.

    Raises:
        OSError: the file cannot be read.
        CredentialError: it holds no token.
    """
    assertion = path.read_text("ascii", errors="replace").strip()
    if not assertion or not assertion.isascii() or any(c.isspace() for c in assertion):
        raise CredentialError("it does not hold one token")
    return assertion


def _assertion_proof(credential: str | bytes, client_id: str, assertion: str) -> ClientProof:
    form = {"client_id": client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
    return ClientProof(credential, form=form, secrets=(assertion,))
