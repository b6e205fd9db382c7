"""The sandbox's partner on a free port with a client for it."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from sandbox.partner.server import running
from sandbox.partner.state import PartnerConfig
from sandbox.resources import base_path, client_of
from tests.models import CARRIER, PARCEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

CREDENTIALS = client_of(CARRIER)
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
    """Requests to a running partner: `http` to its API, which is at `base_url`, and `control` to the sandbox."""

    def __init__(
        self, http: httpx.AsyncClient, control: httpx.AsyncClient, clock: Clock, credentials: tuple[str, str]
    ) -> None:
        self.base_url = str(http.base_url).removesuffix("/")
        self.address = (control.base_url.host, control.base_url.port or 80)
        self.http = http
        self.control = control
        self.clock = clock
        self._credentials = credentials

    async def request_token(self, **form: str) -> httpx.Response:
        return await self.http.post(
            "/auth/token", data={"grant_type": "client_credentials", **form}, auth=self._credentials
        )

    async def token(self) -> str:
        """Get an access token and send it with every later request."""
        token: str = (await self.request_token()).raise_for_status().json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"
        return token

    async def post(self, parcel_id: str = "b-1", *, key: str | None = None, **members: Any) -> httpx.Response:  # noqa: ANN401, any JSON
        headers = {} if key is None else {"Idempotency-Key": key}
        record = {"parcelId": parcel_id, "weight": 1.5, **members}
        return await self.http.post("/parcels", json=record, headers=headers)

    async def get(self, parcel_id: str = "b-1") -> httpx.Response:
        return await self.http.get(f"/parcels/{quote(parcel_id, safe='')}")

    async def set_faults(self, *faults: dict[str, object]) -> None:
        (await self.control.put("/sandbox/faults", json=list(faults))).raise_for_status()

    async def fired(self) -> list[int]:
        faults = (await self.control.get("/sandbox/faults")).raise_for_status().json()
        return [fault["fired"] for fault in faults]

    async def fired_once(self) -> None:
        """Return when the only fault has hit."""

        async def it_has() -> bool:
            return await self.fired() == [1]

        await until(it_has)

    async def counters(self) -> dict[str, Any]:
        counters: dict[str, Any] = (await self.control.get("/sandbox/counters")).raise_for_status().json()
        return counters

    async def ids(self) -> dict[str, int]:
        """Return how often each parcel is stored."""
        ids: dict[str, int] = (await self.records())["ids"].get("Parcel", {})
        return ids

    async def records(self) -> dict[str, Any]:
        records: dict[str, Any] = (await self.control.get("/sandbox/records")).raise_for_status().json()
        return records

    async def waiting(self, gate: str, count: int = 1) -> None:
        """Return when so many requests wait at the gate."""

        async def they_do() -> bool:
            gates = (await self.control.get("/sandbox/gates")).json()
            return gate in gates and gates[gate]["waiting"] == count

        await until(they_do)


async def until(claim: Callable[[], Awaitable[bool]]) -> None:
    """Return when the claim is true, fail when it does not become so."""
    async with asyncio.timeout(PATIENCE):
        while not await claim():  # noqa: ASYNC110, what is waited for happens behind a socket
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running_partner(**config: Any) -> AsyncIterator[PartnerClient]:  # noqa: ANN401, the fields of PartnerConfig
    """Run the first partner of `resources` (default: of `PARCEL`) with a clock of its own, and a client for it.

    It honours idempotency keys unless told otherwise.
    """
    clock, config = Clock(), {"resources": [PARCEL], "idempotency": "honour"} | config
    async with running(PartnerConfig(**config), clock=clock) as partners:
        # A bare TLS context: loading the certificates of the machine takes longer than most of the tests.
        transport = httpx.AsyncHTTPTransport(
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), limits=httpx.Limits(max_connections=None)
        )
        url = partners.base_url + base_path(config["resources"][0].partner)
        async with (
            httpx.AsyncClient(transport=transport, base_url=url, timeout=PATIENCE) as http,
            httpx.AsyncClient(transport=transport, base_url=partners.base_url, timeout=PATIENCE) as control,
        ):
            yield PartnerClient(http, control, clock, client_of(config["resources"][0].partner))
