"""The client credentials grant (RFC 6749 section 4.4) for any token endpoint, named or discovered.

The client proves who it is by a secret, by an assertion that it signs, or by a federated token.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self
from urllib.parse import urlencode

from shared.auth.access_token import access_token_from
from shared.auth.client_authentication import (
    assertion_proof,
    federated_assertion,
    read_secret,
    request_with,
    secret_proof,
    text_in_file,
)
from shared.auth.token_endpoint import GONE, Endpoint, discover, endpoint_problem, exchange
from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.auth.client_authentication import ClientProof
    from shared.settings.reader import SettingReader

# RFC 7591 section 2 names the methods.
_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")
_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"),  # RFC 7518 section 3.1
    *("EdDSA", "Ed25519"),  # RFC 8037, RFC 9864
)
_SECRETS = ("CLIENT_SECRET", "CLIENT_SECRET_FILE")
_ASSERTIONS = ("CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE")
_OF_A_KEY = ("CLIENT_KEY_ID", "CLIENT_KEY_ALGORITHM", "CLIENT_ASSERTION_AUDIENCE")


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The settings of this grant. `prefix` begins their names; exactly one of `token_url` and `issuer` is set."""

    SOURCES: ClassVar = ("TOKEN_URL", "ISSUER")
    KEYS: ClassVar = (
        *SOURCES,
        *("CLIENT_ID", "CLIENT_AUTH", *_SECRETS, *_ASSERTIONS, *_OF_A_KEY, "SCOPE", "AUDIENCE", "RESOURCE"),
    )
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
            read.require_one_of(_SECRETS, f"{uses} needs")
            read.refuse((*_ASSERTIONS, *_OF_A_KEY), f"{uses} does not use: private_key_jwt does")
        else:
            read.require_one_of(_ASSERTIONS, f"{uses} needs")
            if read.text("FEDERATED_TOKEN_FILE"):
                read.refuse(_OF_A_KEY, "does nothing for a federated token: whoever signs it decides")
        token_url, issuer = read.url("TOKEN_URL", may_have_query=True), read.url("ISSUER")  # RFC 6749 section 3.2
        keys = (*_SECRETS, *_ASSERTIONS, "CLIENT_KEY_ID", "SCOPE", "AUDIENCE", "RESOURCE")
        texts: dict[str, Any] = {key.lower(): read.text(key) for key in keys}
        return cls(
            prefix=read.name(""),
            client_id=read.text("CLIENT_ID") or "",
            token_url=token_url,
            issuer=issuer,
            client_auth=method,
            client_key_algorithm=read.choice("CLIENT_KEY_ALGORITHM", _ALGORITHMS, "") or None,
            client_assertion_audience=_assertion_audience(read, issuer),
            **texts,
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

    def proof(self, endpoint: Endpoint, now: float) -> ClientProof:
        """Read the credential and make the proof for one token request, in a worker thread; `now` is POSIX seconds."""
        if self.client_auth != "private_key_jwt":
            secret = read_secret(self.client_secret, self.client_secret_file)
            return secret_proof(self.client_id, secret, self.client_auth, f"{self.prefix}CLIENT_AUTH")
        if self.client_certificate is None:
            assertion = credential = federated_assertion(self.federated_token_file or "")
        else:
            from shared.auth.private_key_jwt import signed_assertion  # noqa: PLC0415, 50 ms that only its users pay

            credential = text_in_file(self.client_certificate)
            audience = self.client_assertion_audience
            assertion = signed_assertion(
                credential,
                self.client_id,
                {"issuer": endpoint.issuer or endpoint.url, "token_endpoint": endpoint.url}.get(audience, audience),
                key_id=self.client_key_id,
                algorithm=self.client_key_algorithm,
                now=now,
            )
        return assertion_proof(credential, self.client_id, assertion)


def _assertion_audience(read: SettingReader, issuer: str | None) -> str:
    """Return "issuer", "token_endpoint" or the audience itself.

    OpenID Connect Core draft 36 and FAPI 2.0 ask for the issuer, RFC 7523 section 3 for the token endpoint.
    """
    audience = read.checked_text("CLIENT_ASSERTION_AUDIENCE")
    name = read.name("CLIENT_ASSERTION_AUDIENCE")
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
    issuer is asked for its token endpoint at the first request. `timeout` is seconds for one HTTP request from connect
    to the last byte. `now` returns an aware time.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: ClientCredentials,
        *,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._settings = settings
        wishes = {"scope": settings.scope, "audience": settings.audience, "resource": settings.resource}
        self._form = {"grant_type": "client_credentials"} | {name: wish for name, wish in wishes.items() if wish}
        self._timeout = timeout
        self._now = now
        self._endpoint = Endpoint(settings.token_url) if settings.token_url else None

    @property
    def cache_key(self) -> str:
        """Names the whole request, with no secret in it."""
        settings = self._settings
        where = settings.token_url or {"issuer": settings.issuer}
        return json.dumps([where, settings.method, settings.client_id, self._form])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002, none is kept here
        """Request one access token, and once more if the refused credentials have been rotated meanwhile."""
        settings = self._settings
        endpoint = self._endpoint
        if endpoint is None:
            endpoint = self._endpoint = await discover(
                self._client, settings.issuer or "", f"{settings.prefix}ISSUER", self._timeout, self._now
            )
        name = f"the {settings.method.removesuffix('_basic').removesuffix('_post')} of the client"
        try:
            return await request_with(
                lambda: settings.proof(endpoint, self._now().timestamp()),
                name,
                lambda proof: self._exchange(endpoint, proof),
            )
        except TokenUnavailableError as exc:
            # No answer at all, or one that says that the endpoint is gone: its issuer may name another by now.
            if settings.issuer is not None and (exc.status is None or exc.status in GONE):
                self._endpoint = None
            raise

    async def _exchange(self, endpoint: Endpoint, proof: ClientProof) -> AccessToken:
        answer = await exchange(
            self._client,
            "POST",
            endpoint.url,
            setting=None if self._settings.issuer else f"{self._settings.prefix}TOKEN_URL",
            headers={"Content-Type": "application/x-www-form-urlencoded", **proof.headers},
            content=urlencode(self._form | dict(proof.form)).encode("ascii"),
            timeout=self._timeout,
        )
        if answer.status == 401 or answer.document().get("error") == "invalid_client":  # noqa: PLR2004, RFC 6749 section 5.2
            answer = replace(answer, hint=proof.hint)
        return access_token_from(answer, now=self._now(), secrets=proof.secrets)
