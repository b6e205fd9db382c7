"""The client credentials grant of Microsoft Entra, through MSAL."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from shared.auth.access_token import access_token_from
from shared.auth.client_authentication import federated_assertion, read_secret, request_with, text_in_file
from shared.errors import CredentialError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.auth.msal_http import MsalHttp, MsalResponse
    from shared.settings.reader import SettingReader

AUTHORITY = "https://login.microsoftonline.com"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")  # a GUID or a domain name
_CREDENTIALS = ("CLIENT_SECRET", "CLIENT_SECRET_FILE", "CLIENT_CERTIFICATE", "FEDERATED_TOKEN_FILE")
_TARGETS = ("SCOPE", "RESOURCE", "AUDIENCE")


@dataclass(frozen=True, slots=True)
class Entra:
    """The settings of this grant; exactly one credential is set, and at least one of the last three."""

    SOURCES: ClassVar = ("TENANT_ID",)
    KEYS: ClassVar = (*SOURCES, "CLIENT_ID", *_CREDENTIALS, *_TARGETS)
    is_shareable: ClassVar = True
    server: ClassVar = AUTHORITY

    tenant_id: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)
    client_secret_file: str | None = None
    client_certificate: str | None = None
    federated_token_file: str | None = None
    scope: str | None = None
    audience: str | None = None
    resource: str | None = None

    @classmethod
    def from_settings(cls, read: SettingReader) -> Self:
        """Read the settings; what is missing, wrong or contradictory is a problem of the reader's."""
        is_set = f"{read.name('TENANT_ID')} is set"
        if not _TENANT.fullmatch(read.checked_text("TENANT_ID") or "reference"):
            read.complain(f"{read.name('TENANT_ID')} must be a GUID or a domain name")
        read.require("CLIENT_ID", is_set)
        read.require_one_of(_CREDENTIALS, f"{is_set}, which needs")
        require_target(read, "TENANT_ID")
        texts: dict[str, Any] = {key.lower(): read.text(key) for key in (*_CREDENTIALS, *_TARGETS)}
        return cls(tenant_id=read.text("TENANT_ID") or "", client_id=read.text("CLIENT_ID") or "", **texts)

    def build(self, client: httpx.AsyncClient) -> EntraGrant:
        """Return the grant."""
        return EntraGrant(client, self)

    @property
    def method(self) -> str:
        """The kind of credential."""
        if self.client_certificate is not None:
            return "certificate"
        return "secret" if self.federated_token_file is None else "federated_token"

    def read_credential(self) -> str | dict[str, str]:
        """Read the secret itself, or a dictionary with members of MSAL's `client_credential`; for a worker thread."""
        if self.client_certificate is not None:
            return _certificate(self.client_certificate)
        if self.federated_token_file is not None:
            return {"client_assertion": federated_assertion(self.federated_token_file)}
        return read_secret(self.client_secret, self.client_secret_file)


def require_target(read: SettingReader, source: str) -> None:
    """Complain if nothing says what the token is for: Microsoft Entra issues none without."""
    if not any(read.text(target) for target in _TARGETS):
        read.complain(f"{read.name(source)} is set, so one of {', '.join(map(read.name, _TARGETS))} is needed")


def _certificate(file: str) -> dict[str, str]:
    from shared.auth.private_key_jwt import client_certificate_from_pem  # noqa: PLC0415, 50 ms, in a worker thread

    own = client_certificate_from_pem(text_in_file(file))
    if own.certificate is None or own.algorithm not in {"RS256", "PS256"}:
        raise CredentialError("Microsoft Entra needs an RSA key together with its certificate")
    return {"private_key": own.key_pem.decode(), "public_certificate": own.certificate_pem.decode()}


class EntraGrant:
    """Requests access tokens from Microsoft Entra with the client credentials grant; a TokenGrant.

    Each request has an MSAL client of its own, in a worker thread: MSAL's caches, of tokens as of refusals, can never
    answer for the server. The scope is `scope` or, without it, `<resource or audience>/.default`. `client` stays the
    caller's to close. `timeout` is seconds for one token request, from the tenant's metadata to the last byte.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: Entra,
        *,
        authority: str = AUTHORITY,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._settings = settings
        self._authority = f"{authority.removesuffix('/')}/{settings.tenant_id}"
        target = settings.resource or settings.audience
        self._scopes = settings.scope.split() if settings.scope else [f"{target}/.default"]
        self._timeout = timeout
        self._now = now
        self._metadata: dict[str, MsalResponse] = {}

    @property
    def cache_key(self) -> str:
        """Names the whole request, with no secret in it."""
        return json.dumps([self._authority, self._settings.client_id, self._settings.method, self._scopes])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002, none is kept here
        """Request one access token, and once more if the refused credential has been rotated meanwhile."""
        return await request_with(
            self._settings.read_credential, f"the {self._settings.method} of the client", self._ask
        )

    async def _ask(self, credential: str | dict[str, str]) -> AccessToken:
        def ask(http: MsalHttp) -> None:
            # It takes 130 ms to import, which only its users should pay, and not on the event loop.
            import msal  # type: ignore[import-untyped]  # noqa: PLC0415, see above; MSAL has no type hints

            app = msal.ConfidentialClientApplication(
                self._settings.client_id,
                client_credential=_for_msal(credential),
                authority=self._authority,
                instance_discovery=False,  # the authority is this app's own setting: nobody need vouch for it
                http_client=http,
            )
            app.acquire_token_for_client(self._scopes)

        from shared.auth.msal_http import MsalHttp  # noqa: PLC0415, it needs httpx, and settings are read without

        http = MsalHttp(self._client, "Microsoft Entra", timeout=self._timeout, metadata=self._metadata)
        await http.run(ask, self._now)
        return access_token_from(http.answer, now=self._now(), secrets=http.secrets)


def _for_msal(credential: str | dict[str, str]) -> object:
    if isinstance(credential, dict) and "client_assertion" in credential:
        return {"client_assertion": lambda: credential["client_assertion"]}  # MSAL warns of an assertion as a string
    return credential
