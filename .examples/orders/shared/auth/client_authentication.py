"""How a client proves to the token endpoint who it is (RFC 6749 section 2.3), and reading its credentials."""

from __future__ import annotations

import asyncio
import base64
import codecs
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote_plus

from shared.auth.redaction import LEAST_SECRET
from shared.errors import CredentialError, TokenRejectedError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from shared.auth.access_token import AccessToken

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class ClientProof:
    """What one token request carries to prove who the client is.

    `credential` is what the proof was made from: proofs are equal unless the credentials were rotated. `secrets` are
    all the strings that no error text may repeat. `hint` says why a server may refuse a proof that is right.
    """

    credential: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    secrets: tuple[str, ...] = field(default=(), repr=False, compare=False)
    hint: str | None = field(default=None, compare=False)


def secret_proof(client_id: str, secret: str, method: str, setting: str) -> ClientProof:
    """Return the proof that a secret is, in the Authorization header (`client_secret_basic`) or in the form.

    `setting` is the app setting that chooses the method (RFC 6749 section 2.3.1).
    """
    if len(secret) < LEAST_SECRET:
        logger.warning("client secret is too short to be redacted", extra={"least": LEAST_SECRET})
    if method == "client_secret_post":
        return ClientProof(secret, form={"client_id": client_id, "client_secret": secret}, secrets=(secret,))
    # Both are form-encoded before they are joined: a colon in the client id would end it otherwise.
    encoded = quote_plus(client_id), quote_plus(secret)
    basic = base64.b64encode(":".join(encoded).encode()).decode()
    hint = (
        "its id or secret has characters that client_secret_basic form-encodes, which some servers do not decode: "
        f"try {setting}=client_secret_post"
    )
    return ClientProof(
        secret,
        headers={"Authorization": f"Basic {basic}"},
        secrets=(secret, basic),
        hint=None if encoded == (client_id, secret) else hint,
    )


def assertion_proof(credential: str, client_id: str, assertion: str) -> ClientProof:
    """Return the proof that an assertion is, made from `credential` (RFC 7523 section 2.2)."""
    form = {"client_id": client_id, "client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
    return ClientProof(credential, form=form, secrets=(assertion,))


def read_secret(secret: str | None, file: str | None) -> str:
    """Return the client secret: a file can change while the process runs, its environment cannot."""
    return secret or "" if file is None else text_in_file(file)


def federated_assertion(file: str) -> str:
    """Read the assertion in a file (workload identity), which someone else signs and replaces before it expires.

    Raises:
        OSError: the file cannot be read.
        CredentialError: it holds no token.
    """
    assertion = text_in_file(file)
    if not assertion.isascii() or any(c.isspace() for c in assertion):
        raise CredentialError("it does not hold one token")
    return assertion


def text_in_file(file: str) -> str:
    """Read the text in a file, without white space around it. A byte order mark, which PowerShell writes, is no text.

    Raises:
        OSError: the file cannot be read.
        CredentialError: it is empty, or no text.
    """
    octets = Path(file).read_bytes()
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if octets.startswith(mark)), "utf-8")
    # What is not in the encoding becomes a character that no secret has.
    text = octets.decode(encoding, errors="replace").strip()
    if not text or "\N{REPLACEMENT CHARACTER}" in text:
        raise CredentialError("its file holds no text")
    return text


async def request_with(
    read: Callable[[], _T], name: str, request: Callable[[_T], Awaitable[AccessToken]]
) -> AccessToken:
    """Request a token with the credential as it is now, and once more if a refused one has been rotated meanwhile.

    `read` runs in a worker thread. `name` is the credential's in errors.

    Raises:
        TokenRejectedError: the server blames the client's configuration.
        TokenUnavailableError: there is no credential or no token.
    """
    credential = await _read(read, name)
    try:
        return await request(credential)
    except TokenRejectedError as exc:
        if exc.error != "invalid_client":
            raise
        rotated = await _read(read, name)
        if rotated == credential:
            raise
    return await request(rotated)


async def _read(read: Callable[[], _T], name: str) -> _T:
    try:
        return await asyncio.to_thread(read)
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror or type(exc).__name__}"
    except CredentialError as exc:
        problem = f"is not usable: {exc}"
    except (LookupError, ValueError) as exc:  # their text may hold the value, so it goes no further
        problem = f"is not usable: {type(exc).__name__}"
    raise TokenUnavailableError(f"{name} {problem}")  # out here, where it has no context to show
