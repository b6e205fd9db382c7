"""The peers that get their tokens as their documentation shows it; all but one post over httpx."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx

from benchmarks.partner import CLIENT
from benchmarks.record import BODY, HEADERS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.load import Call
    from benchmarks.partner import Partner

CLIENT_ID, SECRET = CLIENT


@asynccontextmanager
async def token_per_call(partner: Partner) -> AsyncIterator[Call]:
    """Request a token for every call, over httpx: what much code does."""
    async with httpx.AsyncClient(headers=HEADERS) as client:

        async def post() -> int:
            form = {"grant_type": "client_credentials"}
            answer = await client.post(
                partner.token_url,
                data=form,
                auth=CLIENT,
                headers={"content-type": "application/x-www-form-urlencoded"},
            )
            authorization = f"Bearer {answer.raise_for_status().json()['access_token']}"
            response = await client.post(partner.posts_url, content=BODY, headers={"authorization": authorization})
            return response.status_code

        yield post


@asynccontextmanager
async def authlib(partner: Partner) -> AsyncIterator[Call]:
    """Authlib's client: its first token is requested by the first call."""
    import warnings  # noqa: PLC0415, for the next line

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it announces a successor of httpx
        from authlib.integrations.httpx_client import AsyncOAuth2Client  # noqa: PLC0415, a peer's library

    async with AsyncOAuth2Client(
        CLIENT_ID,
        SECRET,
        token_endpoint=partner.token_url,
        grant_type="client_credentials",
        leeway=1,
        headers=HEADERS,
    ) as client:

        async def post() -> int:
            if not client.token:
                await client.fetch_token()
            response = await client.post(partner.posts_url, content=BODY)
            status: int = response.status_code
            return status

        yield post


@asynccontextmanager
async def httpx_auth(partner: Partner) -> AsyncIterator[Call]:
    """Use httpx-auth's OAuth2ClientCredentials: it requests its token synchronously, in the event loop."""
    from httpx_auth import OAuth2ClientCredentials  # noqa: PLC0415, a peer's library

    auth = OAuth2ClientCredentials(partner.token_url, CLIENT_ID, SECRET, early_expiry=1)
    async with httpx.AsyncClient(auth=auth, headers=HEADERS) as client:

        async def post() -> int:
            return (await client.post(partner.posts_url, content=BODY)).status_code

        yield post


@asynccontextmanager
async def requests_oauth2client(partner: Partner) -> AsyncIterator[Call]:
    """Use requests-oauth2client: it is synchronous, so a thread for each call in flight."""
    import requests  # noqa: PLC0415, a peer's library
    from requests.adapters import HTTPAdapter  # noqa: PLC0415, the same
    from requests_oauth2client import OAuth2Client, OAuth2ClientCredentialsAuth  # noqa: PLC0415, the same

    client = OAuth2Client(partner.token_url, CLIENT, testing=True)
    with requests.Session() as session, ThreadPoolExecutor(64) as threads:
        session.auth = OAuth2ClientCredentialsAuth(client, leeway=1)
        session.mount("http://", HTTPAdapter(pool_maxsize=64))
        session.headers.update(HEADERS)

        def send() -> int:
            return session.post(partner.posts_url, data=BODY).status_code

        async def post() -> int:
            return await asyncio.get_running_loop().run_in_executor(threads, send)

        yield post


@asynccontextmanager
async def msal_per_call(partner: Partner) -> AsyncIterator[Call]:
    """Ask MSAL in every call, over httpx: it is synchronous, so in a thread."""
    import msal  # type: ignore[import-untyped]  # noqa: PLC0415 - it has no types, and is a peer

    from benchmarks.entra import EntraAnswers  # noqa: PLC0415, only with it

    app = msal.ConfidentialClientApplication(
        CLIENT_ID,
        client_credential=SECRET,
        oidc_authority="https://entra.invalid/tenant",
        http_client=EntraAnswers(partner.token_url),
    )
    with ThreadPoolExecutor(64) as threads:
        async with httpx.AsyncClient(headers=HEADERS) as client:

            async def post() -> int:
                answer = await asyncio.get_running_loop().run_in_executor(
                    threads, app.acquire_token_for_client, ["api://benchmark/.default"]
                )
                response = await client.post(
                    partner.posts_url, content=BODY, headers={"authorization": f"Bearer {answer['access_token']}"}
                )
                return response.status_code

            yield post


@asynccontextmanager
async def azure_identity(partner: Partner) -> AsyncIterator[Call]:
    """Ask azure-identity's asynchronous credential in every call, over httpx."""
    from azure.identity.aio import ClientSecretCredential  # noqa: PLC0415, a peer's library

    from benchmarks.entra import entra_transport  # noqa: PLC0415, only with it

    credential = ClientSecretCredential(
        "tenant",
        CLIENT_ID,
        SECRET,
        authority="https://entra.invalid",
        transport=entra_transport(partner.token_url),
        retry_total=0,
    )
    async with credential, httpx.AsyncClient(headers=HEADERS) as client:

        async def post() -> int:
            token = await credential.get_token("api://benchmark/.default")
            response = await client.post(
                partner.posts_url, content=BODY, headers={"authorization": f"Bearer {token.token}"}
            )
            return response.status_code

        yield post
