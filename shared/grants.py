"""Chooses the token grant that the settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.auth.client_authentication import ClientSecret
from shared.auth.client_credentials import ClientCredentialsGrant

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import TokenGrant
    from shared.settings import Settings


def create_grant(settings: Settings, client: httpx.AsyncClient, reread: Callable[[], Settings]) -> TokenGrant:
    """Give the grant for `settings.token`; `reread` gives the settings as they are now."""
    token = settings.token
    assert token.token_url
    assert token.client_id
    return ClientCredentialsGrant(
        client,
        token.token_url,
        ClientSecret(token.client_id, lambda: reread().token.client_secret or "", token.client_auth),
        scope=token.scope,
        audience=token.audience,
        resource=token.resource,
    )
