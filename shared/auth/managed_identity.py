"""Access tokens of the identity that Azure gives to the app or the machine, through MSAL."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.auth.token_response import access_token_from_json, token_error
from shared.errors import SettingsError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from shared.auth.access_token import AccessToken


class ManagedIdentityGrant:
    """Requests access tokens for a managed identity; a TokenGrant.

    MSAL finds the endpoint: that of App Service and Azure Functions where the platform names one (IDENTITY_ENDPOINT),
    else the virtual machine's (IMDS). Each request has an MSAL client of its own, in a worker thread, so that MSAL's
    caches can never answer for the endpoint. The endpoint's own cache may: it hands out the same token for hours.

    `client_id` names a user-assigned identity, None means the system-assigned one. The resource is `resource`,
    `audience` or the one `scope` without its `/.default`. `timeout` is seconds for one token request.
    """

    def __init__(  # noqa: PLR0913 - the members of a token request, each by its own name
        self,
        client_id: str | None = None,
        *,
        scope: str | None = None,
        audience: str | None = None,
        resource: str | None = None,
        timeout: float = 10.0,
        create_session: Callable[[], requests.Session] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        target = resource or audience or (scope or "").removesuffix("/.default")
        if not target or (target == scope and " " in target):
            raise SettingsError(["a managed identity needs one resource, audience or scope"])
        self._client_id = client_id
        self._resource = target
        self._timeout = timeout
        self._create_session = create_session
        self._now = now

    @property
    def cache_key(self) -> str:
        """Name the whole request, with no secret in it."""
        return json.dumps(["managed_identity", self._client_id, self._resource])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002 - none is kept here
        """Request one access token.

        Raises:
            TokenRejectedError: the endpoint knows no such identity or resource.
            TokenUnavailableError: it cannot be reached, is in trouble or talks nonsense.
        """
        try:
            async with asyncio.timeout(self._timeout):  # the thread ends by its own timeouts, soon after
                return await asyncio.to_thread(self._ask_msal)
        except TimeoutError as exc:
            raise TokenUnavailableError(f"the identity endpoint did not answer within {self._timeout:g} s") from exc

    def _ask_msal(self) -> AccessToken:
        # It takes 130 ms to import, which only who uses it should pay, and not on the event loop.
        import msal  # type: ignore[import-untyped]  # noqa: PLC0415 - see above; MSAL has no type hints

        from shared.auth.msal_http import MsalHttp, failure_error, local_session  # noqa: PLC0415 - see above

        http = MsalHttp((self._create_session or local_session)(), timeout=self._timeout)
        identity = (
            msal.UserAssignedManagedIdentity(client_id=self._client_id)
            if self._client_id
            else msal.SystemAssignedManagedIdentity()
        )
        trouble = None
        try:
            result = msal.ManagedIdentityClient(identity, http_client=http).acquire_token_for_client(
                resource=self._resource
            )
        except Exception as exc:  # noqa: BLE001 - MSAL has no error type for most of what goes wrong in it
            raise failure_error(http, exc, self._now()) from None  # its text may hold what came
        finally:
            http.close()
        if "access_token" in result:
            try:
                return access_token_from_json(result)
            except ValueError as exc:
                trouble = str(exc)
        status, headers, _body = http.last
        raise token_error(status, headers, result, now=self._now(), trouble=trouble)
