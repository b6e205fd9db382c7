"""BearerAuth: attaches the access token to each request; renews it once when the API refuses it (RFC 6750)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

import httpx

from shared.auth.challenges import may_concern_token

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from shared.auth.token_provider import TokenProvider


class Url(Protocol):
    """What an origin is made of, in httpx.URL and yarl.URL."""

    @property
    def scheme(self) -> str:
        """The scheme, in lower case."""

    @property
    def host(self) -> str | None:
        """The host, without brackets."""

    @property
    def port(self) -> int | None:
        """The port, None or the scheme's own where the URL names none."""


class Answer(Protocol):
    """What tells a refused token."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by their names in lower case, those that came more than once joined by commas."""


AnswerT = TypeVar("AnswerT", bound=Answer)


class BearerAuth(httpx.Auth):
    """Authenticates the requests of an `httpx.AsyncClient` to one origin with the provider's access token.

    On a 401 that may be about the token, the provider is told which one was refused, and the request is sent once more
    with another; a second 401 is the caller's. A body that cannot be sent twice (a stream) is not: then the 401 is the
    caller's as well, and the next request finds another token. So is a 401 at the end of a redirect.

    No request goes out without its token, and no token to another origin than `origin` (a URL; None: the origin of the
    first request). Errors, raised by the client's call instead of a response:

    - TokenError, where no token can be had. Also after a 401: it says that the token was refused, not the request, so
      it must not pass for the API's answer because the token endpoint happens to be down.
    - ValueError, where the request is for another origin.
    - RuntimeError, where the client is a synchronous `httpx.Client`.
    """

    def __init__(self, provider: TokenProvider, *, origin: httpx.URL | str | None = None) -> None:
        self._provider = provider
        self._origin = None if origin is None else _origin(httpx.URL(origin))

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Yield the request with its token, and once more with another if the API refuses the first."""
        self.check_origin(request.url)
        token = await self._provider.get_token()
        request.headers["Authorization"] = token.authorization
        response = yield request
        if response.status_code != httpx.codes.UNAUTHORIZED or response.history:
            return
        if not may_concern_token(response.headers.get_list("www-authenticate")):
            return
        if not isinstance(request.stream, httpx.ByteStream):
            self._provider.refuse(token)
            return
        # Give the connection back first: the token request may need one of the same pool.
        await response.aread()
        token = await self._provider.renew(token)
        request.headers["Authorization"] = token.authorization
        yield request

    async def send(self, send: Callable[[str], Awaitable[AnswerT]]) -> AnswerT:
        """Do all that without an httpx client, for an origin that `check_origin` has let pass.

        `send` sends a request with the value of Authorization that it is given, follows no redirect, and gives the
        response when the whole of it is read.
        """
        token = self._provider.cached() or await self._provider.get_token()
        answer = await send(token.authorization)
        if answer.status != httpx.codes.UNAUTHORIZED:
            return answer
        if not may_concern_token([answer.headers.get("www-authenticate", "")]):
            return answer
        token = await self._provider.renew(token)
        return await send(token.authorization)

    def sync_auth_flow(self, request: httpx.Request) -> NoReturn:  # noqa: ARG002 - httpx names it
        """Refuse to work with a synchronous client: its token request would block.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("BearerAuth needs an httpx.AsyncClient")

    def check_origin(self, url: Url) -> None:
        """See that requests to `url` may have the access token.

        Raises:
            ValueError: it is for another origin.
        """
        origin = _origin(url)
        if self._origin is None:
            self._origin = origin
        if self._origin != origin:
            raise ValueError(f"the access token is for {self._origin}, not for {origin}")


def _origin(url: Url) -> str:
    """Give the origin (RFC 6454 section 6.1) with its port always named."""
    port = url.port or {"http": 80, "https": 443}.get(url.scheme)
    return f"{url.scheme}://{url.host}:{port}"
