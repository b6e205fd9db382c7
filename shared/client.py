"""Builds one client of a partner's API from its settings: token grant, token provider, bearer authentication, httpx."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import httpx

from shared.api.business_api import BusinessApi
from shared.api.transport import POOL_SHARE, create_client
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.grants import create_grant
from shared.proxy import proxy_for
from shared.telemetry import process_telemetry

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping

    from shared.auth.access_token import TokenGrant
    from shared.auth.redis_store import RedisStore
    from shared.settings import Settings

TOKEN_TIMEOUT = 10.0
"""The most seconds for one token request."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a partner's API, with what it stands on."""

    api: BusinessApi
    provider: TokenProvider
    token_client: httpx.AsyncClient
    token_store: RedisStore | None = None

    async def aclose(self) -> None:
        """Close the connections, and end what goes on in the background."""
        await self.provider.aclose()
        await self.token_client.aclose()
        if self.token_store is not None:
            await self.token_store.aclose()
        await self.api.aclose()


def prepare() -> Callable[[Settings, Callable[[], Settings], Mapping[str, str]], Client]:
    """Make the process's TLS context, which takes 40 to 90 ms and needs no event loop; give what builds clients."""
    return partial(_build, httpx.create_ssl_context())


def _build(
    tls: ssl.SSLContext, settings: Settings, reread: Callable[[], Settings], environ: Mapping[str, str]
) -> Client:
    """Build a client; `reread` gives the settings as they are now, for credentials that were rotated.

    `environ` names the proxy on the way, if there is one.
    """
    token_client = create_client(
        timeout=settings.timeout,
        max_connections=settings.max_connections,
        tls=tls,
        proxy=proxy_for(settings.token.token_url or settings.token.issuer or settings.api_url, environ),
    )
    grant = create_grant(settings, token_client, reread)
    grant, token_store = _shared(grant, settings)
    provider = TokenProvider(
        grant,
        client=settings.name,
        leeway=settings.token.leeway,
        default_lifetime=settings.token.default_lifetime,
        # Within the timeout of the call that waits for it: who waits is told that no token could be had.
        request_timeout=min(TOKEN_TIMEOUT, POOL_SHARE * settings.timeout),
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
    return Client(api, provider, token_client, token_store)


def _shared(grant: TokenGrant, settings: Settings) -> tuple[TokenGrant, RedisStore | None]:
    """Put the store in front of the grant, where there is one.

    Raises:
        SettingsError: the package redis is missing, or the store's URL is not one.
    """
    if settings.token_store is None:
        return grant, None
    # Imported only where a store is configured.
    from shared.auth.redis_store import RedisStore  # noqa: PLC0415
    from shared.auth.shared_token import SharedToken  # noqa: PLC0415
    from shared.auth.stored_grant import StoredGrant  # noqa: PLC0415
    from shared.auth.token_cipher import TokenCipher  # noqa: PLC0415

    store = RedisStore(settings.token_store.url)
    shared = SharedToken(store, TokenCipher(settings.token_store.key), grant.cache_key)
    return StoredGrant(grant, shared, default_lifetime=settings.token.default_lifetime), store
