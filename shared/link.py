"""Builds the client of one partner from its settings: token grant, token provider, bearer authentication, transport."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_endpoint import MAX_BODY
from shared.auth.token_provider import TokenProvider
from shared.client.resource_api import POOL_SHARE, ResourceApi
from shared.client.transport import RelayTransport
from shared.settings.app_settings import tls_context

if TYPE_CHECKING:
    from shared.auth.token_store import StoredGrant
    from shared.resource import Partner
    from shared.settings.app_settings import PartnerSettings, TokenStoreSettings

# Seconds for one token request, at most.
_TOKEN_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class PartnerLink:
    """The client of one partner on one event loop, with what it stands on."""

    api: ResourceApi
    provider: TokenProvider
    token_transport: RelayTransport
    stored_grant: StoredGrant | None

    async def aclose(self) -> None:
        """Close the connections, and end what goes on in the background."""
        await self.provider.aclose()
        if self.stored_grant is not None:
            await self.stored_grant.aclose()
        await self.token_transport.aclose()
        await self.api.aclose()


def build_link(partner: Partner, settings: PartnerSettings, store: TokenStoreSettings | None) -> PartnerLink:
    """Build the client of a partner. It takes up to half a second of imports and TLS, and needs no event loop.

    Raises:
        SettingsError: certificates, or the package redis that a token store needs, cannot be loaded.
    """
    tls, most = tls_context(*settings.roots), settings.max_connections
    token_transport = RelayTransport(max_connections=most, tls=tls, proxy=settings.token_proxy, max_body=MAX_BODY)
    # Within the timeout of the call that waits for it, which then learns that no token could be had.
    request_timeout = min(_TOKEN_TIMEOUT, POOL_SHARE * settings.timeout)
    request_token, stored_grant = partial(settings.grant.request_token, token_transport), None
    if store is not None and settings.grant.is_shareable:
        # Imported only where a store is configured.
        from shared.auth.token_store import StoredGrant  # noqa: PLC0415

        stored_grant = StoredGrant(
            request_token,
            repr(settings.grant),  # which has no secret in it
            store.url,
            store.key,
            request_timeout=request_timeout,
            default_lifetime=settings.token_default_lifetime,
        )
    provider = TokenProvider(
        stored_grant.request_token if stored_grant else request_token,
        client=partner.name,
        leeway=settings.token_leeway,
        default_lifetime=settings.token_default_lifetime,
        request_timeout=request_timeout,
    )
    api = ResourceApi(
        RelayTransport(max_connections=most, tls=tls, proxy=settings.proxy),
        BearerAuth(provider, origin=settings.url),
        settings.url,
        timeout=settings.timeout,
        headers=partner.headers,
    )
    return PartnerLink(api, provider, token_transport, stored_grant)
