"""How a client proves to the token endpoint who it is (RFC 6749 section 2.3): by a secret, or by an assertion."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar
from urllib.parse import quote_plus

from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_T = TypeVar("_T")
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2


class CredentialError(ValueError):
    """A credential is not what it should be; the text says how and repeats nothing of it."""


@dataclass(frozen=True, slots=True)
class ClientProof:
    """What one token request carries to prove who the client is.

    `credential` is what the proof was made from: another one means that the credentials were rotated. `secrets` are
    all the strings that no error text may repeat.
    """

    credential: str | bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


class ClientAuthentication(Protocol):
    """A way to prove who the client is; it makes a new proof for every token request."""

    @property
    def client_id(self) -> str:
        """The client identifier (RFC 6749 section 2.2)."""

    @property
    def method(self) -> str:
        """The registered name of the way (RFC 7591 section 2: `token_endpoint_auth_method`)."""

    async def proof(self, token_endpoint: str) -> ClientProof:
        """Make the proof for one token request from the credentials as they are now.

        Raises:
            TokenUnavailableError: the credentials cannot be read.
        """


SecretMethod = Literal["client_secret_basic", "client_secret_post"]


class ClientSecret:
    """Client authentication by a secret: in the Authorization header (basic) or in the form (post).

    `read_secret` gives the secret as it is now. It runs in a worker thread, once for each token request, so that a
    rotated secret is picked up without a restart.
    """

    def __init__(
        self, client_id: str, read_secret: Callable[[], str], method: SecretMethod = "client_secret_basic"
    ) -> None:
        self.client_id = client_id
        self.method = method
        self._read_secret = read_secret

    async def proof(self, token_endpoint: str) -> ClientProof:  # noqa: ARG002 - the same for any
        """Make the proof for one token request (RFC 6749 section 2.3.1).

        Raises:
            TokenUnavailableError: the secret cannot be read.
        """
        secret = await read_credential(self._read_secret, "the client secret")
        if self.method == "client_secret_post":
            form = {"client_id": self.client_id, "client_secret": secret}
            return ClientProof(secret, form=form, secrets=(secret, quote_plus(secret)))
        # Both are form-encoded before they are joined: a colon in the client id would end it otherwise.
        pair = f"{quote_plus(self.client_id)}:{quote_plus(secret)}"
        basic = base64.b64encode(pair.encode()).decode()
        return ClientProof(
            secret, headers={"Authorization": f"Basic {basic}"}, secrets=(secret, quote_plus(secret), basic)
        )


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
        return assertion_proof(assertion, self.client_id, assertion)


def assertion_proof(credential: str | bytes, client_id: str, assertion: str) -> ClientProof:
    """Give the proof that an assertion is, made from `credential` (RFC 7523 section 2.2)."""
    form = {"client_id": client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
    return ClientProof(credential, form=form, secrets=(assertion,))


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


def secret_in_file(path: Path) -> str:
    """Read the client secret in a file, without the white space around it.

    Raises:
        OSError: the file cannot be read.
        CredentialError: it is empty, or no text.
    """
    # What is no UTF-8 becomes a character that no secret has.
    text = path.read_text("utf-8", errors="replace").strip()
    if not text or "\N{REPLACEMENT CHARACTER}" in text:
        raise CredentialError("its file holds no text")
    return text


async def read_credential(read: Callable[[], _T], name: str) -> _T:
    """Give what `read` gives, read in a worker thread.

    Raises:
        TokenUnavailableError: `read` raised OSError, LookupError or ValueError; the text has `name`, and of a
            CredentialError its words.
    """
    try:
        return await asyncio.to_thread(read)
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror or type(exc).__name__}"
    except CredentialError as exc:
        problem = f"is not usable: {exc}"
    except (LookupError, ValueError) as exc:  # their text may hold the value, so it goes no further
        problem = f"is not usable: {type(exc).__name__}"
    raise TokenUnavailableError(f"{name} {problem}")  # out here, where it has no context to show
