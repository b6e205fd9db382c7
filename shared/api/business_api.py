"""The partner's API as Python methods."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx

from shared.api.business import Business, check_external_id
from shared.api.http_exchange import exchange_of
from shared.api.responses import ApiResponse, read_response
from shared.api.time_limit import TimeLimit
from shared.api.traced_exchange import TracedExchange
from shared.errors import ApiConnectError, ApiInterruptedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from shared.telemetry import Telemetry

NOT_FOUND = 404

# What httpx raises before anything of the request has left: the API cannot have acted on it.
NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)


class BusinessApi:
    """The partner's API; one instance serves any number of concurrent calls on one event loop.

    `client` attaches the access token; `base_url` has no slash at its end; `timeout` is the seconds for one whole call.
    With `telemetry` (None: nobody takes spans) each call is a span, and the partner gets its trace context.

    No method raises for a status. All raise `TokenError` where no access token can be had, and `ApiConnectError` or
    `ApiInterruptedError` where there is no response.
    """

    def __init__(
        self, client: httpx.AsyncClient, base_url: str, *, timeout: float = 30.0, telemetry: Telemetry | None = None
    ) -> None:
        self.telemetry = telemetry
        self._client = client
        exchange = exchange_of(client, base_url)
        self._exchange = exchange if telemetry is None else TracedExchange(exchange, base_url, telemetry)
        self._time_limit = TimeLimit(timeout)

    async def get_business(self, external_id: str) -> ApiResponse:
        """Look a record up by its external id. What comes with a 404 is not read: most look-ups end with one.

        Raises:
            InvalidBusinessError: the external id breaks a rule.
        """
        check_external_id(external_id)
        return await self._call("GET", f"/business/by-external/{quote(external_id, safe='')}", {})

    async def post_business(self, business: Business, *, idempotency_key: str) -> ApiResponse:
        """Post a record. All attempts at one delivery carry the same `idempotency_key` (visible ASCII)."""
        headers: dict[str, str] = {"content-type": "application/json", "idempotency-key": idempotency_key}
        return await self._call("POST", "/business/", headers, business.encode())

    async def _call(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> ApiResponse:
        try:
            with self._time_limit:
                reply = await self._exchange(method, path, headers, body)
        except NOT_SENT as exc:
            raise ApiConnectError(f"The API could not be reached: {_reason(exc)}") from exc
        except (httpx.HTTPError, httpx.StreamError, TimeoutError) as exc:
            raise ApiInterruptedError(f"The API gave no whole response: {_reason(exc)}") from exc
        if reply.status == NOT_FOUND and method == "GET":
            return ApiResponse(reply.status, reply.headers)
        return read_response(reply.status, reply.headers, reply.body, authorization=reply.authorization)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _reason(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
