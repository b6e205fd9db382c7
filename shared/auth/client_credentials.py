"""The client credentials grant (RFC 6749 section 4.4) for any token endpoint, named or discovered.

The client proves who it is by a secret, by an assertion that it signs, or by a federated token.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import quote_plus, urlencode

from shared.auth.redaction import LEAST_SECRET
from shared.auth.token_endpoint import GONE, access_token_from, discover, endpoint_problem, exchange
from shared.errors import CredentialError, TokenRejectedError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from shared.auth.token_endpoint import AccessToken
    from shared.settings.reader import SettingReader

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

SECRETS = ("CLIENT_SECRET", "CLIENT_SECRET_FILE")
ASSERTIONS = ("CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE")
TARGETS = ("SCOPE", "RESOURCE", "AUDIENCE")

_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")  # RFC 7591 section 2
_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),  # RFC 7518 section 3.1
    *("EdDSA", "Ed25519"),  # RFC 8037, RFC 9864
)
_OF_A_KEY = ("CLIENT_KEY_ID", "CLIENT_KEY_ALGORITHM", "CLIENT_ASSERTION_AUDIENCE")
_TEXTS = ("CLIENT_ID", *SECRETS, *ASSERTIONS, "CLIENT_KEY_ID", *TARGETS)
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The settings of this grant. `prefix` begins their names; exactly one of `token_url` and `issuer` is set."""

    SOURCES: ClassVar = ("TOKEN_URL", "ISSUER")
    KEYS: ClassVar = (*SOURCES, "CLIENT_AUTH", *_TEXTS, *_OF_A_KEY)
    is_shareable: ClassVar = True

    prefix: str
    client_id: str
    token_url: str | None = None
    issuer: str | None = None
    client_auth: str = "client_secret_basic"
    client_secret: str | None = field(default=None, repr=False)
    client_secret_file: str | None = None
    client_certificate: str | None = None
    federated_token_file: str | None = None
    client_key_id: str | None = None
    client_key_algorithm: str | None = None
    client_assertion_audience: str = "token_endpoint"
    scope: str | None = None
    audience: str | None = None
    resource: str | None = None

    @classmethod
    def from_settings(cls, read: SettingReader) -> Self:
        """Read the settings; what is missing, wrong or contradictory is a problem of the reader's."""
        method = read.choice("CLIENT_AUTH", _METHODS, _METHODS[0])
        read.require("CLIENT_ID", "the token endpoint asks for it")
        uses = f"{read.name('CLIENT_AUTH')}={method}"
        if method != "private_key_jwt":
            read.require_one_of(SECRETS, f"{uses} needs")
            read.refuse((*ASSERTIONS, *_OF_A_KEY), f"{uses} does not use: private_key_jwt does")
        else:
            read.require_one_of(ASSERTIONS, f"{uses} needs")
            if read.text("FEDERATED_TOKEN_FILE"):
                read.refuse(_OF_A_KEY, "does nothing for a federated token: whoever signs it decides")
        texts: dict[str, Any] = {key.lower(): read.text(key) for key in _TEXTS}
        issuer = read.url("ISSUER")
        return cls(
            **texts | {"client_id": texts["client_id"] or ""},
            prefix=read.name(""),
            token_url=read.url("TOKEN_URL", may_have_query=True),  # RFC 6749 section 3.2
            issuer=issuer,
            client_auth=method,
            client_key_algorithm=read.choice("CLIENT_KEY_ALGORITHM", _ALGORITHMS, "") or None,
            client_assertion_audience=_assertion_audience(read, issuer),
        )

    @property
    def server(self) -> str | None:
        """The URL of the token endpoint or of the issuer that names it."""
        return self.token_url or self.issuer

    @property
    def method(self) -> str:
        """The way to authenticate (RFC 7591 section 2: `token_endpoint_auth_method`), or "federated_token"."""
        return self.client_auth if self.federated_token_file is None else "federated_token"

    def build(self, client: httpx.AsyncClient) -> ClientCredentialsGrant:
        """Return the grant."""
        return ClientCredentialsGrant(client, self)


def _assertion_audience(read: SettingReader, issuer: str | None) -> str:
    """Return "issuer", "token_endpoint" or the audience itself.

    OpenID Connect Core draft 36 and FAPI 2.0 ask for the issuer, RFC 7523 section 3 for the token endpoint.
    """
    audience, name = read.checked_text("CLIENT_ASSERTION_AUDIENCE"), read.name("CLIENT_ASSERTION_AUDIENCE")
    if audience is None:
        return "issuer" if issuer else "token_endpoint"
    if audience == "issuer" and not issuer:
        read.complain(f"{name}=issuer needs {read.name('ISSUER')}")
    elif audience not in {"issuer", "token_endpoint"} and endpoint_problem(audience):
        read.complain(f"{name} must be issuer, token_endpoint or a URL")
    return audience


class ClientCredentialsGrant:
    """Requests access tokens with the client credentials grant; a TokenGrant.

    `client` stays the caller's to close; its own authentication and redirects are not used for token requests. An
    issuer is asked for its token endpoint at the first request. `clock` returns POSIX seconds.
    """

    def __init__(
        self, client: httpx.AsyncClient, settings: ClientCredentials, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._client = client
        self._settings = settings
        wishes = {"scope": settings.scope, "audience": settings.audience, "resource": settings.resource}
        self._form = {"grant_type": "client_credentials"} | {name: wish for name, wish in wishes.items() if wish}
        self._clock = clock
        self._discovered: tuple[str, str] | None = None

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002, none is kept here
        """Request one access token, and once more if the refused credentials have been rotated meanwhile."""
        settings = self._settings
        if settings.issuer and self._discovered is None:
            self._discovered = await discover(self._client, settings.issuer, f"{settings.prefix}ISSUER")
        url, issuer = self._discovered or (settings.token_url or "", None)
        name = f"the {settings.method.removesuffix('_basic').removesuffix('_post')} of the client"
        try:
            return await request_with(
                lambda: _proof(settings, url, issuer or url, self._clock()),
                name,
                lambda proof: self._exchange(url, proof),
            )
        except TokenUnavailableError as exc:
            # No answer at all, or one that says that the endpoint is gone: its issuer may name another by now.
            if exc.status is None or exc.status in GONE:
                self._discovered = None
            raise

    async def _exchange(self, url: str, proof: ClientProof) -> AccessToken:
        answer = await exchange(
            self._client,
            "POST",
            url,
            setting=None if self._settings.issuer else f"{self._settings.prefix}TOKEN_URL",
            headers=proof.headers,
            content=urlencode(self._form | proof.form).encode("ascii"),
        )
        if answer.status == _UNAUTHORIZED or answer.document().get("error") == "invalid_client":  # RFC 6749 section 5.2
            answer = replace(answer, hint=proof.hint)
        return access_token_from(answer, secrets=proof.secrets)


@dataclass(frozen=True, slots=True)
class ClientProof:
    """What proves who the client is (RFC 6749 section 2.3); proofs made from the same credential are equal.

    No error text may repeat one of the `secrets`. `hint` says why a server may refuse a proof that is right.
    """

    credential: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False, compare=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    form: dict[str, str] = field(default_factory=dict, repr=False, compare=False)
    hint: str | None = field(default=None, compare=False)


def _proof(settings: ClientCredentials, url: str, issuer: str, now: float) -> ClientProof:
    """Read the credential and make the proof for one token request, in a worker thread; `now` is POSIX seconds."""
    if settings.client_auth != "private_key_jwt":
        return secret_proof(settings, read_secret(settings.client_secret, settings.client_secret_file))
    if settings.client_certificate is None:
        assertion = credential = text_in_file(settings.federated_token_file or "")
    else:
        from shared.auth.private_key_jwt import signed_assertion  # noqa: PLC0415, 50 ms that only its users pay

        credential = text_in_file(settings.client_certificate)
        audience = settings.client_assertion_audience
        assertion = signed_assertion(
            credential,
            settings.client_id,
            {"issuer": issuer, "token_endpoint": url}.get(audience, audience),
            key_id=settings.client_key_id,
            algorithm=settings.client_key_algorithm,
            now=now,
        )
    form = {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
    return ClientProof(credential, (assertion,), form={"client_id": settings.client_id, **form})


def secret_proof(settings: ClientCredentials, secret: str) -> ClientProof:
    """Put the secret into the Authorization header or into the form (RFC 6749 section 2.3.1)."""
    client_id = settings.client_id
    if len(secret) < LEAST_SECRET:
        logger.warning("client secret is too short to be redacted", extra={"least": LEAST_SECRET})
    if settings.client_auth == "client_secret_post":
        return ClientProof(secret, (secret,), form={"client_id": client_id, "client_secret": secret})
    # Both are form-encoded before they are joined: a colon in the client id would end it otherwise.
    encoded = quote_plus(client_id), quote_plus(secret)
    basic = base64.b64encode(":".join(encoded).encode()).decode()
    hint = (
        "its id or secret has characters that client_secret_basic form-encodes, which some servers do not decode: "
        f"try {settings.prefix}CLIENT_AUTH=client_secret_post"
    )
    return ClientProof(
        secret,
        (secret, basic),
        headers={"Authorization": f"Basic {basic}"},
        hint=None if encoded == (client_id, secret) else hint,
    )


def read_secret(secret: str | None, file: str | None) -> str:
    """Return the client secret: a file can change while the process runs, its environment cannot."""
    return secret or "" if file is None else text_in_file(file)


def text_in_file(file: str) -> str:
    """Read the text in a file, without white space around it and the byte order mark that Windows tools write."""
    text = Path(file).read_text(encoding="utf-8-sig").strip()
    if not text:
        raise CredentialError("its file holds no text")
    return text


async def request_with(
    read: Callable[[], _T], name: str, request: Callable[[_T], Awaitable[AccessToken]]
) -> AccessToken:
    """Request a token with the credential as it is now, and once more if a refused one has been rotated meanwhile.

    `read` runs in a worker thread. `name` is the credential's in errors, which are TokenErrors.
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
