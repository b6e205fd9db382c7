"""The exchange of one request for one whole response: the most that an API needs of an HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shared.api.reply import Reply
from shared.api.transport import RelayClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx
    from yarl import URL


class Exchange(Protocol):
    """Sends a request with its access token, and reads the whole response."""

    async def __call__(self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        """Give the response, whatever its status.

        Raises:
            httpx.HTTPError, httpx.StreamError: there is none.
            TokenError: no access token can be had.
        """


def exchange_of(client: httpx.AsyncClient) -> Exchange:
    """Give the exchange of a client: its own where it has one, else what any httpx client does (tests have others)."""
    if isinstance(client, RelayClient):
        return client.exchange

    async def exchange(method: str, url: URL, headers: Mapping[str, str], body: bytes | None = None) -> Reply:
        response = await client.request(method, str(url), headers=headers, content=body)
        authorization = response.request.headers.get("authorization")
        return Reply(response.status_code, response.headers, response.content, authorization)

    return exchange
