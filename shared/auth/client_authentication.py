"""How a client proves to the token endpoint who it is (RFC 6749 section 2.3), and the two ways that use a secret."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar
from urllib.parse import quote_plus

from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")


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


async def read_credential(read: Callable[[], _T], name: str) -> _T:
    """Give what `read` gives, read in a worker thread.

    Raises:
        TokenUnavailableError: `read` raised OSError, LookupError or ValueError; the text has `name`, and of a
            CredentialError its words.
    """
    try:
        return await asyncio.to_thread(read)
    except OSError as exc:
        raise TokenUnavailableError(f"{name} cannot be read: {exc.strerror or type(exc).__name__}") from exc
    except CredentialError as exc:
        raise TokenUnavailableError(f"{name} is not usable: {exc}") from exc
    except (LookupError, ValueError) as exc:  # their text may hold the value, so it goes no further
        raise TokenUnavailableError(f"{name} is not usable: {type(exc).__name__}") from None
