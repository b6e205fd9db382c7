"""The peers: ways to post a record to an API behind OAuth 2, each as its own documentation shows it.

A peer's `post` gives the HTTP status of one authorised POST. Those with a static header have their token from before;
they show what a transport can do, with no token to look after.
"""

from __future__ import annotations

import itertools
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import httpx

from benchmarks import token_peers
from benchmarks.partner import CLIENT, Partner
from benchmarks.record import BODY, HEADERS, RESOURCE
from shared.link import build_link
from shared.rules.record import read_record
from shared.settings.app_settings import PartnerSettings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from benchmarks.load import Call

    Open = Callable[[Partner], AbstractAsyncContextManager[Call]]

CLIENT_ID, SECRET = CLIENT
MOST_IN_FLIGHT = 256


@dataclass(frozen=True)
class Peer:
    """One way. `gets_tokens` says whether it requests its own."""

    name: str
    open: Open
    gets_tokens: bool = True


def _static_headers(partner: Partner) -> dict[str, str]:
    return {**HEADERS, "authorization": f"Bearer {partner.token()}"}


@asynccontextmanager
async def resource_api(partner: Partner) -> AsyncIterator[Call]:
    """Ours, as the app's container builds it; each call checks the record and decodes the response."""
    name = RESOURCE.partner.name
    environ = {
        f"{name}_URL": partner.url,
        f"{name}_TOKEN_URL": partner.token_url,
        f"{name}_CLIENT_ID": CLIENT_ID,
        f"{name}_CLIENT_SECRET": SECRET,
        f"{name}_MAX_CONNECTIONS": str(MOST_IN_FLIGHT),
    }
    link = build_link(RESOURCE.partner, PartnerSettings.from_environ(environ, name), None)
    numbers = itertools.count()

    async def post() -> int:
        record = read_record(RESOURCE, BODY)
        return (await link.api.post(RESOURCE, record, idempotency_key=f"benchmark-{next(numbers)}")).status

    try:
        yield post
    finally:
        await link.aclose()


@asynccontextmanager
async def bare_httpx(partner: Partner, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[Call]:
    """Post ready bytes with httpx as it comes."""
    async with httpx.AsyncClient(transport=transport, headers=_static_headers(partner)) as client:

        async def post() -> int:
            return (await client.post(partner.posts_url, content=BODY)).status_code

        yield post


@asynccontextmanager
async def bare_aiohttp(partner: Partner) -> AsyncIterator[Call]:
    """Post ready bytes with aiohttp as it comes, but for its limit of 100 connections."""
    connector = aiohttp.TCPConnector(limit=MOST_IN_FLIGHT)
    async with aiohttp.ClientSession(connector=connector, headers=_static_headers(partner)) as session:

        async def post() -> int:
            async with session.post(partner.posts_url, data=BODY) as response:
                await response.read()
                return response.status

        yield post


@asynccontextmanager
async def httpx_over_aiohttp(partner: Partner) -> AsyncIterator[Call]:
    """Post ready bytes with httpx over aiohttp (httpx-aiohttp)."""
    from httpx_aiohttp import AiohttpTransport  # noqa: PLC0415, a peer's library

    transport = AiohttpTransport(limits=httpx.Limits(max_connections=MOST_IN_FLIGHT))
    async with bare_httpx(partner, transport) as post:
        yield post


@asynccontextmanager
async def httpx_over_reqwest(partner: Partner) -> AsyncIterator[Call]:
    """Post ready bytes with httpx over Rust's reqwest (pyreqwest)."""
    from pyreqwest.client import ClientBuilder  # noqa: PLC0415, a peer's library
    from pyreqwest.compatibility.httpx import HttpxTransport  # noqa: PLC0415, the same

    async with ClientBuilder().build() as client, bare_httpx(partner, HttpxTransport(client)) as post:
        yield post


OURS = Peer("ResourceApi", resource_api)
HTTPX = Peer("bare httpx", bare_httpx, gets_tokens=False)
AIOHTTP = Peer("bare aiohttp", bare_aiohttp, gets_tokens=False)
OVER_AIOHTTP = Peer("httpx-aiohttp", httpx_over_aiohttp, gets_tokens=False)
OVER_REQWEST = Peer("httpx over pyreqwest", httpx_over_reqwest, gets_tokens=False)
PEERS = (
    OURS,
    HTTPX,
    AIOHTTP,
    OVER_AIOHTTP,
    OVER_REQWEST,
    Peer("token per call", token_peers.token_per_call),
    Peer("Authlib", token_peers.authlib),
    Peer("httpx-auth", token_peers.httpx_auth),
    Peer("requests-oauth2client", token_peers.requests_oauth2client),
    Peer("MSAL per call", token_peers.msal_per_call),
    Peer("azure-identity", token_peers.azure_identity),
)
