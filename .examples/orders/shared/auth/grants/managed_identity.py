"""Access tokens of the identity that Azure gives to the app or the machine, through MSAL."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Self

from shared.auth.access_token import access_token_from_json, token_error
from shared.auth.grants.entra import require_target

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.auth.msal_http import MsalHttp
    from shared.settings.reader import SettingReader

_SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class ManagedIdentity:
    """The settings of this grant. `client_id` names a user-assigned identity, None means the system-assigned one."""

    SOURCES: ClassVar = ("MANAGED_IDENTITY",)
    KEYS: ClassVar = (*SOURCES, "SCOPE", "AUDIENCE", "RESOURCE")
    server: ClassVar = None  # a link-local or loopback address: no proxy stands before it

    client_id: str | None
    resource: str

    @classmethod
    def from_settings(cls, read: SettingReader) -> Self:
        """Read the settings; what is missing, wrong or contradictory is a problem of the reader's."""
        identity = read.text("MANAGED_IDENTITY") or ""
        source = read.name("MANAGED_IDENTITY")
        read.refuse(
            ("CLIENT_ID",), f"a managed identity does not use: {source} is the client id of a user-assigned one"
        )
        require_target(read, "MANAGED_IDENTITY")
        target, scope = read.text("RESOURCE") or read.text("AUDIENCE"), read.text("SCOPE") or ""
        if not target and len(scope.split()) > 1:
            read.complain(f"{read.name('SCOPE')} must be one scope: a managed identity asks for one resource")
        return cls(
            client_id=None if identity.lower() == _SYSTEM else identity,
            resource=target or scope.removesuffix("/.default"),
        )

    @property
    def is_shareable(self) -> bool:
        """Whether other processes may use the tokens: every app and slot has a system-assigned identity of its own."""
        return self.client_id is not None

    def build(self, client: httpx.AsyncClient) -> ManagedIdentityGrant:
        """Return the grant."""
        return ManagedIdentityGrant(client, self)


class ManagedIdentityGrant:
    """Requests access tokens for a managed identity; a TokenGrant.

    MSAL finds the endpoint: that of App Service and Azure Functions if the platform names one (IDENTITY_ENDPOINT), else
    the virtual machine's (IMDS). Each request has an MSAL client of its own, in a worker thread, so that MSAL's caches
    can never answer for the endpoint. The endpoint's own cache may: it hands out the same token for hours.

    `client` stays the caller's to close; it must use no proxy. `timeout` is seconds for one token request.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        settings: ManagedIdentity,
        *,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._settings = settings
        self._timeout = timeout
        self._now = now
        # Nothing in the request says which system-assigned identity it is: its tokens are for this process alone.
        self._identity = settings.client_id or f"of process {uuid.uuid4()}"

    @property
    def cache_key(self) -> str:
        """Names the whole request, with no secret in it; of a system-assigned identity no two keys are the same."""
        return json.dumps(["managed_identity", self._identity, self._settings.resource])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002, none is kept here
        """Request one access token."""
        from shared.auth.msal_http import MsalHttp  # noqa: PLC0415, it needs httpx, and settings are read without

        http = MsalHttp(self._client, "the identity endpoint", timeout=self._timeout)
        result = await http.run(self._ask, self._now)
        problem = None
        if "access_token" in result:
            try:
                return access_token_from_json(result)
            except ValueError as exc:
                problem = str(exc)
        raise token_error(http.answer, result, now=self._now(), secrets=http.secrets, problem=problem)

    def _ask(self, http: MsalHttp) -> dict[str, Any]:
        # It takes 130 ms to import, which only its users should pay, and not on the event loop.
        import msal  # type: ignore[import-untyped]  # noqa: PLC0415, see above; MSAL has no type hints

        identity = (
            msal.UserAssignedManagedIdentity(client_id=self._settings.client_id)
            if self._settings.client_id
            else msal.SystemAssignedManagedIdentity()
        )
        client = msal.ManagedIdentityClient(identity, http_client=http)
        result: dict[str, Any] = client.acquire_token_for_client(resource=self._settings.resource)
        return result
