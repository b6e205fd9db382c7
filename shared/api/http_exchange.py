"""The exchange of one request for one whole response: the most that an API needs of an HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shared.api.reply import Reply
from shared.api.transport import RelayClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx


class Exchange(Protocol):
    """Sends a request to one API with its access token, and reads the whole response."""

    async def __call__(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Give the response, whatever its status. `path`, percent-encoded, comes after that of the API's base URL.

        Raises:
            httpx.HTTPError, httpx.StreamError: there is none.
            TokenError: no access token can be had.
        """


def exchange_of(client: httpx.AsyncClient, base_url: str) -> Exchange:
    """Give the exchange with an API: the client's own where it has one, else what any httpx client does (as in tests).

    Raises:
        ValueError: the client's access token is for another origin.
    """
    if isinstance(client, RelayClient):
        return client.exchange_with(base_url)

    async def exchange(method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        response = await client.request(method, base_url + path, headers=headers, content=body)
        authorization = response.request.headers.get("authorization")
        return Reply(response.status_code, response.headers, response.content, authorization)

    return exchange
