"""The token endpoint of an OpenID issuer, found in its configuration document (OpenID Connect Discovery 1.0)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from shared.auth.endpoint import endpoint_problem
from shared.auth.exchange import exchange
from shared.auth.token_response import OK, json_object, safe_words
from shared.errors import SettingsError, TokenUnavailableError
from shared.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.exchange import Answer


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
        raise TokenUnavailableError(
            f"the issuer {self.issuer} is in trouble: {problem}", status=answer.status, retry_after=wait
        )
