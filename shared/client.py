"""Builds one client of a partner's API from its settings: token grant, token provider, bearer authentication, httpx."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from shared.api.business_api import BusinessApi
from shared.api.transport import POOL_SHARE, create_client
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.grants import create_grant, token_server
from shared.proxy import proxy_for
from shared.telemetry import process_telemetry

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from shared.auth.access_token import TokenGrant
    from shared.auth.stored_grant import StoredGrant
    from shared.settings import Settings

TOKEN_TIMEOUT = 10.0
"""The most seconds for one token request."""

_make_tls_context = functools.cache(httpx.create_ssl_context)
_making_tls = threading.Lock()


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a partner's API, with what it stands on."""

    api: BusinessApi
    provider: TokenProvider
    token_client: httpx.AsyncClient
    stored_grant: StoredGrant | None = None

    async def aclose(self) -> None:
        """Close the connections, and end what goes on in the background."""
        await self.provider.aclose()
        if self.stored_grant is not None:
            await self.stored_grant.aclose()
        await self.token_client.aclose()
        await self.api.aclose()


def build_client(settings: Settings, environ: Mapping[str, str]) -> Client:
    """Build a client; `environ` names the proxy on the way, if there is one.

    It takes up to half a second of imports and TLS, and needs no event loop: it is for a worker thread.

    Raises:
        SettingsError: the proxy's URL is none, or the package of the token store is missing.
    """
    tls = _tls_context()
    server = token_server(settings.token)
    token_client = create_client(
        timeout=settings.timeout,
        max_connections=settings.max_connections,
        tls=tls,
        proxy=proxy_for(server, environ) if server else None,
    )
    # Within the timeout of the call that waits for it: who waits is told that no token could be had.
    request_timeout = min(TOKEN_TIMEOUT, POOL_SHARE * settings.timeout)
    grant = create_grant(settings.token, token_client)
    stored_grant = _stored_grant(grant, settings, request_timeout)
    provider = TokenProvider(
        stored_grant or grant,
        client=settings.name,
        leeway=settings.token.leeway,
        default_lifetime=settings.token.default_lifetime,
        request_timeout=request_timeout,
    )
    client = create_client(
        timeout=settings.timeout,
        max_connections=settings.max_connections,
        tls=tls,
        proxy=proxy_for(settings.api_url, environ),
        auth=BearerAuth(provider, origin=settings.api_url),
    )
    telemetry = process_telemetry()
    api = BusinessApi(
        client,
        settings.api_url,
        timeout=settings.timeout,
        telemetry=telemetry if telemetry.has_listener else None,
    )
    return Client(api, provider, token_client, stored_grant)


def _tls_context() -> ssl.SSLContext:
    """Give the process's one TLS context, which takes 40 to 90 ms to make."""
    with _making_tls:  # two clients may be built at once
        return _make_tls_context()


def _stored_grant(grant: TokenGrant, settings: Settings, request_timeout: float) -> StoredGrant | None:
    """Give the grant with the store in front of it, None where tokens are not shared.

    A system-assigned identity is one app's, or one slot's, alone: its tokens stay in this process.

    Raises:
        SettingsError: the package redis is missing, or the store's URL is not one.
    """
    if settings.token_store is None or settings.token.is_system_identity:
        return None
    # Imported only where a store is configured.
    from shared.auth.stored_grant import StoredGrant  # noqa: PLC0415
    from shared.auth.token_store import RedisStore, TokenCipher  # noqa: PLC0415

    return StoredGrant(
        grant,
        RedisStore(settings.token_store.url),
        TokenCipher(settings.token_store.key),
        request_timeout=request_timeout,
        default_lifetime=settings.token.default_lifetime,
    )
