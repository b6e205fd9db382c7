"""Builds one client of a partner's API from its settings: token grant, token provider, bearer authentication, httpx."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from shared.api.business_api import BusinessApi
from shared.api.transport import POOL_SHARE, create_client
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.errors import SettingsError
from shared.grants import create_grant

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from shared.settings import Settings

TOKEN_TIMEOUT = 10.0
"""The most seconds for one token request."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client of a partner's API, with what it stands on."""

    api: BusinessApi
    provider: TokenProvider
    token_client: httpx.AsyncClient

    async def aclose(self) -> None:
        """Close the connections, and end what goes on in the background."""
        await self.provider.aclose()
        await self.token_client.aclose()
        await self.api.aclose()


def prepare() -> Callable[[Settings, Callable[[], Settings]], Client]:
    """Make the process's TLS context, which takes 40 to 90 ms and needs no event loop; give what builds clients."""
    return partial(_build, httpx.create_ssl_context())


def _build(tls: ssl.SSLContext, settings: Settings, reread: Callable[[], Settings]) -> Client:
    """Build a client; `reread` gives the settings as they are now, for credentials that were rotated."""
    token_client = create_client(
        timeout=settings.timeout,
        max_connections=settings.max_connections,
        tls=tls,
        proxy=_proxy(settings.token.token_url or settings.token.issuer or settings.api_url),
    )
    provider = TokenProvider(
        create_grant(settings, token_client, reread),
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
        proxy=_proxy(settings.api_url),
        auth=BearerAuth(provider, origin=settings.api_url),
    )
    return Client(BusinessApi(client, settings.api_url, timeout=settings.timeout), provider, token_client)


def _proxy(url: str) -> str | None:
    """Give the proxy that the environment names for `url` (HTTPS_PROXY and NO_PROXY), None for none.

    Raises:
        SettingsError: the proxy's URL is not one.
    """
    parts = urlsplit(url)
    # Plain http is for a loopback address: no proxy is on the way to it, and none may read the access token.
    if parts.scheme != "https" or any(map(urllib.request.proxy_bypass, (parts.hostname or "", parts.netloc))):
        return None
    proxy = urllib.request.getproxies().get("https")
    if proxy is None:
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    if urlsplit(proxy).scheme not in {"http", "https"}:
        raise SettingsError(["HTTPS_PROXY must be an http or https URL"])
    return proxy
