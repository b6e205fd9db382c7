"""The client credentials grant (RFC 6749 section 4.4) for any token endpoint, named or discovered, over httpx."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from shared.auth.token_endpoint import endpoint_problem, exchange
from shared.auth.token_response import OK, access_token_from_response, json_object, safe_words
from shared.errors import SettingsError, TokenRejectedError, TokenUnavailableError
from shared.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import AccessToken
    from shared.auth.client_authentication import ClientAuthentication, ClientProof
    from shared.auth.token_endpoint import Answer

# No answer at all, or one that says that the endpoint is not there (any more): its issuer may name another by now.
_GONE = frozenset({None, 404, 405, 410})


class ClientCredentialsGrant:
    """Requests access tokens with the client credentials grant; a TokenGrant.

    `client` stays the caller's to close; its own authentication and redirects are not used for token requests.
    `timeout` is seconds for one token request from connect to the last byte. `now` gives an aware time.
    """

    def __init__(  # noqa: PLR0913 - the members of a token request, each by its own name
        self,
        client: httpx.AsyncClient,
        token_endpoint: str | Discovery,
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
        try:
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
        except TokenUnavailableError as exc:
            if isinstance(self._endpoint, Discovery) and exc.status in _GONE:
                self._endpoint.forget()
            raise


def configuration_url(issuer: str) -> str:
    """Give the address of an issuer's configuration document (OpenID Connect Discovery 1.0 section 4)."""
    return issuer.removesuffix("/") + "/.well-known/openid-configuration"


class Discovery:
    """Finds an issuer's token endpoint at first use and keeps it; a failure is not kept.

    `issuer` may end in a slash or not, whatever the server calls itself. `timeout` is seconds for the whole request.
    Concurrent first calls may each send one: the token provider's single flight leaves one.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        issuer: str,
        *,
        timeout: float = 10.0,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        problem = endpoint_problem(issuer) or ("it has a query" if "?" in issuer else None)
        if problem:
            raise SettingsError([f"the issuer is not usable: {problem}"])
        self.issuer = issuer
        self._client = client
        self._timeout = timeout
        self._now = now
        self._found: str | None = None

    async def token_endpoint(self) -> str:
        """Give the address of the token endpoint.

        Raises:
            TokenUnavailableError: the document cannot be had, is another issuer's, or names no usable endpoint.
        """
        if self._found is None:
            answer = await exchange(
                self._client, "GET", configuration_url(self.issuer), what="the issuer", timeout=self._timeout
            )
            self._found = self._read(answer)
        return self._found

    def forget(self) -> None:
        """Look for the endpoint again at its next use."""
        self._found = None

    def _read(self, answer: Answer) -> str:
        document = json_object(answer.body) if answer.status == OK else {}
        named, endpoint = document.get("issuer"), document.get("token_endpoint")
        if answer.status != OK:
            problem = f"it answered {answer.status}"
        elif not isinstance(named, str) or not isinstance(endpoint, str):
            problem = "its configuration has no issuer or no token_endpoint"
        elif named.removesuffix("/") != self.issuer.removesuffix("/"):
            problem = f"its configuration is that of another one, {safe_words(named)}"
        elif wrong := endpoint_problem(endpoint):
            problem = f"its token_endpoint is not usable: {wrong}"
        else:
            return endpoint
        wait = retry_after(answer.headers.get("retry-after"), self._now())
        raise TokenUnavailableError(f"the issuer is in trouble: {problem}", status=answer.status, retry_after=wait)
