"""The client credentials grant (RFC 6749 section 4.4) for any token endpoint, over httpx."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

from shared.auth.endpoint import endpoint_problem
from shared.auth.exchange import exchange
from shared.auth.token_response import access_token_from_response
from shared.errors import SettingsError, TokenRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.auth.client_authentication import ClientAuthentication, ClientProof


class DiscoveredEndpoint(Protocol):
    """A token endpoint that is found at first use."""

    @property
    def issuer(self) -> str:
        """The issuer whose token endpoint it is."""

    async def token_endpoint(self) -> str:
        """Give the address of the token endpoint.

        Raises:
            TokenUnavailableError: it cannot be found now.
        """


class ClientCredentialsGrant:
    """Requests access tokens with the client credentials grant; a TokenGrant.

    `client` stays the caller's to close; its own authentication and redirects are not used for token requests.
    `timeout` is seconds for one token request from connect to the last byte. `now` gives an aware time.
    """

    def __init__(  # noqa: PLR0913 - the members of a token request, each by its own name
        self,
        client: httpx.AsyncClient,
        token_endpoint: str | DiscoveredEndpoint,
        authentication: ClientAuthentication,
        *,
        scope: str | None = None,
        audience: str | None = None,
        resource: str | None = None,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if isinstance(token_endpoint, str) and (problem := endpoint_problem(token_endpoint)):
            raise SettingsError([f"the token endpoint is not usable: {problem}"])
        self._client = client
        self._endpoint = token_endpoint
        self._authentication = authentication
        wishes = {"scope": scope, "audience": audience, "resource": resource}
        self._form = {"grant_type": "client_credentials"} | {name: wish for name, wish in wishes.items() if wish}
        self._timeout = timeout
        self._now = now

    @property
    def cache_key(self) -> str:
        """Name the whole request, with no secret in it."""
        where = self._endpoint if isinstance(self._endpoint, str) else {"issuer": self._endpoint.issuer}
        return json.dumps([where, self._authentication.method, self._authentication.client_id, self._form])

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002 - none is kept here
        """Request one access token, and once more where the refused credentials have been rotated meanwhile.

        Raises:
            TokenRejectedError: the server refuses the client.
            TokenUnavailableError: the server cannot be reached, is in trouble or talks nonsense.
        """
        endpoint = self._endpoint if isinstance(self._endpoint, str) else await self._endpoint.token_endpoint()
        proof = await self._authentication.proof(endpoint)
        try:
            return await self._exchange(endpoint, proof)
        except TokenRejectedError as exc:
            if exc.error != "invalid_client":
                raise
            rotated = await self._authentication.proof(endpoint)
            if rotated.credential == proof.credential:
                raise
        return await self._exchange(endpoint, rotated)

    async def _exchange(self, endpoint: str, proof: ClientProof) -> AccessToken:
        answer = await exchange(
            self._client,
            "POST",
            endpoint,
            headers={"Content-Type": "application/x-www-form-urlencoded", **proof.headers},
            content=urlencode(self._form | dict(proof.form)).encode("ascii"),
            timeout=self._timeout,
        )
        return access_token_from_response(
            answer.status, answer.headers, answer.body, now=self._now(), secrets=proof.secrets
        )
