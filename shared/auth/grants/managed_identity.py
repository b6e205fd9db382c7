"""Access tokens of the identity that Azure gives to the app or the machine, through MSAL."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from shared.auth.msal_http import MsalHttp
from shared.auth.token_response import access_token_from_json, token_error
from shared.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import AccessToken


class ManagedIdentityGrant:
    """Requests access tokens for a managed identity; a TokenGrant.

    MSAL finds the endpoint: that of App Service and Azure Functions where the platform names one (IDENTITY_ENDPOINT),
    else the virtual machine's (IMDS). Each request has an MSAL client of its own, in a worker thread, so that MSAL's
    caches can never answer for the endpoint. The endpoint's own cache may: it hands out the same token for hours.

    `client` stays the caller's to close; it must use no proxy. `client_id` names a user-assigned identity, None means
    the system-assigned one. The resource is `resource`, `audience` or the one `scope` without its `/.default`.
    `timeout` is seconds for one token request.
    """

    def __init__(  # noqa: PLR0913 - the members of a token request, each by its own name
        self,
        client: httpx.AsyncClient,
        client_id: str | None = None,
        *,
        scope: str | None = None,
        audience: str | None = None,
        resource: str | None = None,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        target = resource or audience or (scope or "").removesuffix("/.default")
        if not target or (target == scope and " " in target):
            raise SettingsError(["a managed identity needs one resource, audience or scope"])
        self._client = client
        self._client_id = client_id
        self._resource = target
        self._timeout = timeout
        self._now = now
        # Every app and every slot has a system-assigned identity of its own, and nothing in the request says which: its
        # tokens are for this process alone.
        self._identity = client_id or f"of process {uuid.uuid4()}"

    @property
    def cache_key(self) -> str:
        """Name the whole request, with no secret in it; of a system-assigned identity no two keys are the same."""
        return json.dumps(["managed_identity", self._identity, self._resource])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002 - none is kept here
        """Request one access token.

        Raises:
            TokenRejectedError: the endpoint knows no such identity or resource.
            TokenUnavailableError: it cannot be reached, is in trouble or talks nonsense.
        """
        http = MsalHttp(self._client, "the identity endpoint", timeout=self._timeout)
        result = await http.run(self._ask, self._now)
        trouble = None
        if "access_token" in result:
            try:
                return access_token_from_json(result)
            except ValueError as exc:
                trouble = str(exc)
        status, headers, _body = http.last
        raise token_error(status, headers, result, now=self._now(), secrets=http.secrets, trouble=trouble)

    def _ask(self, http: MsalHttp) -> dict[str, Any]:
        # It takes 130 ms to import, which only who uses it should pay, and not on the event loop.
        import msal  # type: ignore[import-untyped]  # noqa: PLC0415 - see above; MSAL has no type hints

        identity = (
            msal.UserAssignedManagedIdentity(client_id=self._client_id)
            if self._client_id
            else msal.SystemAssignedManagedIdentity()
        )
        client = msal.ManagedIdentityClient(identity, http_client=http)
        result: dict[str, Any] = client.acquire_token_for_client(resource=self._resource)
        return result
