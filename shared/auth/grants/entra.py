"""Access tokens of Microsoft Entra for an app with a client id, through MSAL."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.auth.client_authentication import CredentialError, federated_assertion, read_credential
from shared.auth.msal_http import MsalHttp
from shared.auth.token_response import access_token_from_response
from shared.errors import SettingsError, TokenRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.auth.msal_http import MsalResponse

AUTHORITY = "https://login.microsoftonline.com"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")  # a GUID or a domain name


@dataclass(frozen=True, slots=True)
class EntraCredential:
    """A way for an app to prove to Microsoft Entra who it is.

    `read` gives it as it is now, in a worker thread: the secret itself, or a dictionary with members of MSAL's
    `client_credential`, all of them strings.
    """

    method: str
    read: Callable[[], str | dict[str, str]]


def secret_credential(read_secret: Callable[[], str]) -> EntraCredential:
    """Give the credential that is a client secret, read for every token request."""
    return EntraCredential("secret", read_secret)


def certificate_credential(path: Path) -> EntraCredential:
    """Give the credential that is a PEM file with an RSA key and its certificate, read for every token request."""

    def read() -> dict[str, str]:
        from shared.auth.private_key_jwt import client_certificate_from_pem  # noqa: PLC0415 - 50 ms, in a worker thread

        own = client_certificate_from_pem(path.read_bytes())
        if own.certificate is None or own.algorithm not in {"RS256", "PS256"}:
            raise CredentialError("Microsoft Entra needs an RSA key together with its certificate")
        return {"private_key": own.key_pem.decode(), "public_certificate": own.certificate_pem.decode()}

    return EntraCredential("certificate", read)


def federated_credential(path: Path) -> EntraCredential:
    """Give the credential that is a federated assertion in a file, read for every token request."""
    return EntraCredential("federated_token", lambda: {"client_assertion": federated_assertion(path)})


class EntraGrant:
    """Requests access tokens from Microsoft Entra with the client credentials grant; a TokenGrant.

    Each request has an MSAL client of its own, in a worker thread: MSAL's caches, of tokens as of refusals, can so
    never answer for the server. The scope is `scope` or, without it, `<resource or audience>/.default`. `client` stays
    the caller's to close. `timeout` is seconds for one token request, from the tenant's metadata to the last byte.
    """

    def __init__(  # noqa: PLR0913 - the members of a token request, each by its own name
        self,
        client: httpx.AsyncClient,
        tenant_id: str,
        client_id: str,
        credential: EntraCredential,
        *,
        scope: str | None = None,
        audience: str | None = None,
        resource: str | None = None,
        authority: str = AUTHORITY,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        target = resource or audience
        problems = []
        if not _TENANT.fullmatch(tenant_id):
            problems.append("the tenant id is neither a GUID nor a domain name")
        if not scope and not target:
            problems.append("Microsoft Entra needs a scope, a resource or an audience")
        if problems:
            raise SettingsError(problems)
        self._client = client
        self._authority = f"{authority.removesuffix('/')}/{tenant_id}"
        self._client_id = client_id
        self._credential = credential
        self._scopes = scope.split() if scope else [f"{target}/.default"]
        self._timeout = timeout
        self._now = now
        self._metadata: dict[str, MsalResponse] = {}

    @property
    def cache_key(self) -> str:
        """Name the whole request, with no secret in it."""
        return json.dumps([self._authority, self._client_id, self._credential.method, self._scopes])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002 - none is kept here
        """Request one access token, and once more where the refused credential has been rotated meanwhile.

        Raises:
            TokenRejectedError: Microsoft Entra refuses the client or knows no such tenant, scope or resource.
            TokenUnavailableError: it cannot be reached, is in trouble or talks nonsense.
        """
        name = f"the {self._credential.method} of the client"
        credential = await read_credential(self._credential.read, name)
        try:
            return await self._ask(credential)
        except TokenRejectedError as exc:
            if exc.error != "invalid_client":
                raise
            rotated = await read_credential(self._credential.read, name)
            if rotated == credential:
                raise
        return await self._ask(rotated)

    async def _ask(self, credential: str | dict[str, str]) -> AccessToken:
        def ask(http: MsalHttp) -> None:
            # It takes 130 ms to import, which only who uses it should pay, and not on the event loop.
            import msal  # type: ignore[import-untyped]  # noqa: PLC0415 - see above; MSAL has no type hints

            app = msal.ConfidentialClientApplication(
                self._client_id,
                client_credential=_for_msal(credential),
                authority=self._authority,
                instance_discovery=False,  # the authority is this app's own setting: nobody need vouch for it
                http_client=http,
            )
            app.acquire_token_for_client(self._scopes)

        http = MsalHttp(self._client, "Microsoft Entra", timeout=self._timeout, metadata=self._metadata)
        await http.run(ask, self._now)
        return access_token_from_response(*http.last, now=self._now(), secrets=http.secrets)


def _for_msal(credential: str | dict[str, str]) -> object:
    if isinstance(credential, dict) and "client_assertion" in credential:
        return {"client_assertion": lambda: credential["client_assertion"]}  # MSAL warns of an assertion as a string
    return credential
