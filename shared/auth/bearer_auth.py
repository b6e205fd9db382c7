"""BearerAuth: attaches the access token to each request, and renews it once if the API refuses it (RFC 6750)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

import httpx

from shared.rules.verdict import refuses_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.auth.token_provider import TokenProvider


class BearerAuth(httpx.Auth):
    """Authenticates requests to one origin with the provider's access token; none goes out without it.

    If the API refuses the token, the request is sent once more with another. A second refusal is for the caller to
    judge, as is that of a request that cannot be sent twice (its body is a stream) or that was redirected.

    Raises:
        TokenError: no token can be had, after a refusal too: that must not pass for the API's answer.
        ValueError: the request is for another origin.
    """

    def __init__(self, provider: TokenProvider, *, origin: httpx.URL | str) -> None:
        self._provider = provider
        self._origin = _origin(httpx.URL(origin))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Yield the request with its token, and once more with another if the API refuses the first.

        The flow needs a response's status and headers only: whoever drives it releases the first response.
        """
        if (origin := _origin(request.url)) != self._origin:
            raise ValueError(f"the access token is for {self._origin}, not for {origin}")
        token = await self._provider.get_token()
        request.headers["Authorization"] = f"Bearer {token.value}"
        response = yield request
        if not response.history and refuses_token(response.status_code, response.headers):
            if not isinstance(request.stream, httpx.ByteStream):
                self._provider.refuse(token)
                return
            token = await self._provider.renew(token)
            request.headers["Authorization"] = f"Bearer {token.value}"
            response = yield request
        if response.is_success:
            self._provider.accept(token)

    def sync_auth_flow(self, request: httpx.Request) -> NoReturn:  # noqa: ARG002, httpx names it
        """Refuse to work with a synchronous client: its token request would block."""
        raise RuntimeError("BearerAuth needs an httpx.AsyncClient")


def _origin(url: httpx.URL) -> str:
    """Return the origin (RFC 6454 section 6.1): httpx leaves the usual port out."""
    return f"{url.scheme}://{url.netloc.decode()}"
