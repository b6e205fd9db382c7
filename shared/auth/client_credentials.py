"""The client credentials grant (RFC 6749 section 4.4) for any token endpoint, named or discovered.

The client proves who it is by a secret, by an assertion that it signs, or by a federated token. A file with one of them
is read for every token request: it can change while the process runs.
"""

from __future__ import annotations

import asyncio
import base64
import codecs
import logging
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from urllib.parse import quote_plus

from shared.auth.redaction import LEAST_SECRET
from shared.auth.token_endpoint import access_token_from, discover, endpoint_problem, exchange
from shared.errors import CredentialError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.token_endpoint import AccessToken
    from shared.settings.reader import SettingReader

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

SECRETS = ("CLIENT_SECRET", "CLIENT_SECRET_FILE")
ASSERTIONS = ("CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE")
TARGETS = ("SCOPE", "RESOURCE", "AUDIENCE")

_METHODS = ("client_secret_basic", "client_secret_post", "private_key_jwt")  # RFC 7591 section 2
# RFC 7518 section 3.1, RFC 8037, RFC 9864
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519")
_OF_A_KEY = ("CLIENT_KEY_ID", "CLIENT_KEY_ALGORITHM", "CLIENT_ASSERTION_AUDIENCE")
_TEXTS = (*SECRETS, *ASSERTIONS, "CLIENT_KEY_ID", *TARGETS)
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_UNAUTHORIZED = 401


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """The grant, and its settings. `prefix` begins their names; exactly one of `token_url` and `issuer` is set."""

    SOURCES: ClassVar = ("TOKEN_URL", "ISSUER")
    KEYS: ClassVar = (*SOURCES, "CLIENT_ID", "CLIENT_AUTH", *_TEXTS, *_OF_A_KEY)
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
        client_id = read.require("CLIENT_ID", "the token endpoint asks for it")
        uses = f"{read.name('CLIENT_AUTH')}={method}"
        if method != "private_key_jwt":
            read.require_one_of(SECRETS, f"{uses} needs")
            read.refuse((*ASSERTIONS, *_OF_A_KEY), f"{uses} does not use: private_key_jwt does")
        else:
            read.require_one_of(ASSERTIONS, f"{uses} needs")
            if read.has("FEDERATED_TOKEN_FILE"):
                read.refuse(_OF_A_KEY, "does nothing for a federated token: whoever signs it decides")
        issuer = read.url("ISSUER")
        # OpenID Connect Core draft 36 and FAPI 2.0 ask for the issuer, RFC 7523 section 3 for the token endpoint.
        named = ("issuer", "token_endpoint") if read.has("ISSUER") else ("token_endpoint",)
        audience = read.text("CLIENT_ASSERTION_AUDIENCE") or named[0]
        if audience not in named and endpoint_problem(audience):
            name = read.name("CLIENT_ASSERTION_AUDIENCE")
            read.complain(f"{name} must be issuer (with {read.name('ISSUER')}), token_endpoint or a URL")
        texts: dict[str, Any] = {key.lower(): read.text(key) for key in _TEXTS}
        return cls(
            prefix=read.name(""),
            client_id=client_id,
            token_url=read.url("TOKEN_URL", may_have_query=True),  # RFC 6749 section 3.2
            issuer=issuer,
            client_auth=method,
            client_key_algorithm=read.choice("CLIENT_KEY_ALGORITHM", _ALGORITHMS, "") or None,
            client_assertion_audience=audience,
            **texts,
        )

    @property
    def server(self) -> str | None:
        """The URL of the token endpoint or of the issuer that names it."""
        return self.token_url or self.issuer

    async def request_token(
        self, transport: httpx.AsyncBaseTransport, clock: Callable[[], float] = time.time
    ) -> AccessToken:
        """Request one access token. An issuer is asked for its token endpoint each time. `clock` is in POSIX seconds.

        Raises:
            TokenError: there is no token, or no credential.
        """
        url = issuer = self.token_url or ""
        if self.issuer:
            url, issuer = await discover(transport, self.issuer, f"{self.prefix}ISSUER")
        headers, proof, secrets = await usable(lambda: self._proof(url, issuer, clock()))
        wishes = {"scope": self.scope, "audience": self.audience, "resource": self.resource}
        form = {"grant_type": "client_credentials"} | {name: wish for name, wish in wishes.items() if wish} | proof
        setting = None if self.issuer else f"{self.prefix}TOKEN_URL"
        answer = await exchange(transport, "POST", url, setting=setting, headers=headers, data=form)
        error = answer.document().get("error", "invalid_client" if answer.status == _UNAUTHORIZED else "")
        if error == "invalid_client" and self.client_auth == "client_secret_basic":
            # Not all servers decode the form-encoding that RFC 6749 section 2.3.1 asks for, or take this method at all.
            hint = f"if id and secret are right, try {self.prefix}CLIENT_AUTH=client_secret_post"
            answer = replace(answer, hint=hint)
        return access_token_from(answer, secrets=secrets)

    def _proof(self, url: str, issuer: str, now: float) -> tuple[dict[str, str], dict[str, str], list[str]]:
        """Return the headers and the form that prove who the client is (RFC 6749 section 2.3), and their secrets."""
        credential = credential_in(
            self.client_secret, self.client_secret_file, self.client_certificate, self.federated_token_file
        )
        form = {"client_id": self.client_id}
        if self.client_auth == "client_secret_basic":
            # Both are form-encoded before they are joined: a colon in the client id would end it otherwise.
            joined = f"{quote_plus(self.client_id)}:{quote_plus(credential)}"
            basic = base64.b64encode(joined.encode()).decode()
            return {"Authorization": f"Basic {basic}"}, {}, [credential, basic]
        if self.client_auth == "client_secret_post":
            return {}, form | {"client_secret": credential}, [credential]
        assertion = credential
        if self.client_certificate is not None:
            from shared.auth.private_key_jwt import signed_assertion  # noqa: PLC0415, 50 ms that only its users pay

            audience = self.client_assertion_audience
            assertion = signed_assertion(
                credential,
                self.client_id,
                {"issuer": issuer, "token_endpoint": url}.get(audience, audience),
                key_id=self.client_key_id,
                algorithm=self.client_key_algorithm,
                now=now,
            )
        form |= {"client_assertion_type": _ASSERTION_TYPE, "client_assertion": assertion}
        return {}, form, [assertion]


def credential_in(secret: str | None, *files: str | None) -> str:
    """Return the text that is now in the one of the files that is named, without one the secret."""
    if file := next(filter(None, files), None):
        return text_in_file(file)
    if secret and len(secret) < LEAST_SECRET:
        logger.warning("client secret is too short to be redacted", extra={"least": LEAST_SECRET})
    return secret or ""


def text_in_file(file: str) -> str:
    """Read the text in a file, without white space around it; PowerShell writes UTF-16 and byte order marks."""
    octets = Path(file).read_bytes()
    is_utf16 = octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = octets.decode("utf-16" if is_utf16 else "utf-8-sig").strip()
    if not text:
        raise CredentialError("its file holds no text")
    return text


async def usable(read: Callable[[], _T]) -> _T:
    """Return what `read` makes of the credential in a worker thread; a TokenUnavailableError says why it cannot."""
    try:
        return await asyncio.to_thread(read)
    except OSError as exc:
        problem = f"cannot be read: {exc.strerror or type(exc).__name__}"
    except CredentialError as exc:
        problem = f"is not usable: {exc}"
    except (LookupError, ValueError) as exc:  # their text may hold the value, so it goes no further
        problem = f"is not usable: {type(exc).__name__}"
    raise TokenUnavailableError(f"the client's credential {problem}")  # out here, where it has no context to show
