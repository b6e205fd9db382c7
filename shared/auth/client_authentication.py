"""How a client proves to the token endpoint who it is (RFC 6749 section 2.3), and reading its credentials."""

from __future__ import annotations

import asyncio
import base64
import codecs
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import quote_plus

from shared.auth.redaction import LEAST_SECRET
from shared.errors import CredentialError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shared.auth.token_endpoint import Endpoint

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class ClientProof:
    """What one token request carries to prove who the client is.

    `credential` is what the proof was made from: another one means that the credentials were rotated. `secrets` are
    all the strings that no error text may repeat. `hint` says why a server may refuse a proof that is right.
    """

    credential: str | bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    hint: str | None = None


class ClientAuthentication(Protocol):
    """A way to prove who the client is; it makes a new proof for every token request."""

    @property
    def client_id(self) -> str:
        """The client identifier (RFC 6749 section 2.2)."""

    @property
    def method(self) -> str:
        """The registered name of the way (RFC 7591 section 2: `token_endpoint_auth_method`)."""

    async def proof(self, endpoint: Endpoint) -> ClientProof:
        """Make the proof for one token request from the credentials as they are now.

        Raises:
            TokenUnavailableError: the credentials cannot be read.
        """


class ClientSecret:
    """Client authentication by a secret, in the Authorization header (`client_secret_basic`) or in the form.

    `read_secret` returns the secret as it is now. It runs in a worker thread, once for each token request, so that a
    rotated secret is picked up without a restart. `setting` is the app setting that chooses the method.
    """

    def __init__(self, client_id: str, read_secret: Callable[[], str], method: str, setting: str) -> None:
        self.client_id = client_id
        self.method = method
        self._read_secret = read_secret
        self._setting = setting
        self._has_warned = False

    async def proof(self, endpoint: Endpoint) -> ClientProof:  # noqa: ARG002, the same for any
        """Make the proof for one token request (RFC 6749 section 2.3.1).

        Raises:
            TokenUnavailableError: the secret cannot be read.
        """
        secret = await read_credential(self._read_secret, "the client secret")
        if len(secret) < LEAST_SECRET and not self._has_warned:
            self._has_warned = True
            logger.warning("client secret is too short to be redacted", extra={"least": LEAST_SECRET})
        if self.method == "client_secret_post":
            return ClientProof(secret, form={"client_id": self.client_id, "client_secret": secret}, secrets=(secret,))
        # Both are form-encoded before they are joined: a colon in the client id would end it otherwise.
        encoded = quote_plus(self.client_id), quote_plus(secret)
        basic = base64.b64encode(":".join(encoded).encode()).decode()
        hint = None
        if encoded != (self.client_id, secret):
            hint = (
                "its id or secret has characters that client_secret_basic form-encodes, which some servers do not "
                f"decode: try {self._setting}=client_secret_post"
            )
        return ClientProof(secret, headers={"Authorization": f"Basic {basic}"}, secrets=(secret, basic), hint=hint)


class FederatedToken:
    """Client authentication by an assertion that someone else signs and keeps fresh in a file (workload identity).

    The file is read for every token request: whoever writes it replaces it long before its content expires.
    """

    method = "federated_token"

    def __init__(self, client_id: str, path: Path) -> None:
        self.client_id = client_id
        self._path = path

    async def proof(self, endpoint: Endpoint) -> ClientProof:  # noqa: ARG002, its issuer has named the audience
        """Take the assertion from the file.

        Raises:
            TokenUnavailableError: the file cannot be read, or is empty.
        """
        assertion = await read_credential(lambda: federated_assertion(self._path), "the federated token file")
        return assertion_proof(assertion, self.client_id, assertion)


def assertion_proof(credential: str | bytes, client_id: str, assertion: str) -> ClientProof:
    """Return the proof that an assertion is, made from `credential` (RFC 7523 section 2.2)."""
    form = {"client_id": client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
    return ClientProof(credential, form=form, secrets=(assertion,))


def federated_assertion(path: Path) -> str:
    """Read the assertion in a federated token file.

    Raises:
        OSError: the file cannot be read.
        CredentialError: it holds no token.
    """
    assertion = text_in_file(path)
    if not assertion.isascii() or any(c.isspace() for c in assertion):
        raise CredentialError("it does not hold one token")
    return assertion


def text_in_file(path: Path) -> str:
    """Read the text in a file, without white space around it. A byte order mark, which PowerShell writes, is no text.

    Raises:
        OSError: the file cannot be read.
        CredentialError: it is empty, or no text.
    """
    octets = path.read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if octets.startswith(mark)), "utf-8")
    # What is not in the encoding becomes a character that no secret has.
    text = octets.decode(encoding, errors="replace").strip()
    if not text or "\N{REPLACEMENT CHARACTER}" in text:
        raise CredentialError("its file holds no text")
    return text


async def read_credential(read: Callable[[], _T], name: str) -> _T:
    """Return what `read` returns, run in a worker thread.

    Raises:
        TokenUnavailableError: `read` raised OSError, LookupError or ValueError; the text has `name`, and the words of a
            CredentialError.
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
