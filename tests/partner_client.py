"""The sandbox's partner on a free port with a client for it, for the partner's own tests."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from sandbox.partner.config import PartnerConfig
from sandbox.partner.server import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CREDENTIALS = ("sandbox-client", "sandbox-secret")
# Seconds after which a state that does not come is a failure.
PATIENCE = 20


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class PartnerClient:
    """Requests to a running partner."""

    def __init__(self, base_url: str, http: httpx.AsyncClient, clock: Clock) -> None:
        self.base_url = base_url
        self.http = http
        self.clock = clock

    async def request_token(self, **form: str) -> httpx.Response:
        return await self.http.post(
            "/auth/token", data={"grant_type": "client_credentials", **form}, auth=httpx.BasicAuth(*CREDENTIALS)
        )

    async def token(self) -> str:
        """Get an access token and send it with every later request."""
        token: str = (await self.request_token()).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"
        return token

    async def post(self, external_id: str = "b-1", *, key: str | None = None, **members: Any) -> httpx.Response:  # noqa: ANN401 - any JSON
        headers = {} if key is None else {"Idempotency-Key": key}
        return await self.http.post(
            "/business/", json={"externalId": external_id, "name": "Ada", **members}, headers=headers
        )

    async def get(self, external_id: str = "b-1") -> httpx.Response:
        return await self.http.get(f"/business/by-external/{quote(external_id, safe='')}")

    async def set_faults(self, *faults: dict[str, object]) -> None:
        (await self.http.put("/sandbox/faults", json=list(faults))).raise_for_status()

    async def fired(self) -> list[int]:
        faults = (await self.http.get("/sandbox/faults")).raise_for_status().json()
        return [fault["fired"] for fault in faults]

    async def fired_once(self) -> None:
        """Return when the only fault has hit."""

        async def it_has() -> bool:
            return await self.fired() == [1]

        await until(it_has)

    async def counters(self) -> dict[str, Any]:
        counters: dict[str, Any] = (await self.http.get("/sandbox/counters")).raise_for_status().json()
        return counters

    async def records(self) -> dict[str, Any]:
        records: dict[str, Any] = (await self.http.get("/sandbox/records")).raise_for_status().json()
        return records

    async def waiting(self, gate: str, count: int = 1) -> None:
        """Return when so many requests wait at the gate."""

        async def they_do() -> bool:
            gates = (await self.http.get("/sandbox/gates")).json()
            return gate in gates and gates[gate]["waiting"] == count

        await until(they_do)


async def until(claim: Callable[[], Awaitable[bool]]) -> None:
    """Return when the claim is true, fail when it does not become so."""
    async with asyncio.timeout(PATIENCE):
        while not await claim():  # noqa: ASYNC110 - what is waited for happens behind a socket
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_partner(**config: Any) -> AsyncIterator[PartnerClient]:  # noqa: ANN401 - the fields of PartnerConfig
    """Run a partner with its own clock, and a client for it that takes any number of connections."""
    clock = Clock()
    async with running(PartnerConfig(**config), clock=clock) as partner:
        # A bare TLS context: loading the certificates of the machine takes longer than most of the tests.
        transport = httpx.AsyncHTTPTransport(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=httpx.Limits(max_connections=None)
        )
        async with httpx.AsyncClient(transport=transport, base_url=partner.base_url, timeout=PATIENCE) as http:
            yield PartnerClient(partner.base_url, http, clock)
