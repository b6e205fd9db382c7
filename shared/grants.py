"""Chooses the token grant that the settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.auth.client_authentication import ClientSecret
from shared.auth.client_credentials import ClientCredentialsGrant
from shared.auth.discovery import Discovery

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import TokenGrant
    from shared.auth.client_authentication import ClientAuthentication
    from shared.auth.entra import EntraCredential
    from shared.settings import Settings, TokenSettings


def create_grant(settings: Settings, client: httpx.AsyncClient, reread: Callable[[], Settings]) -> TokenGrant:
    """Give the grant for the settings, which are valid; `reread` gives them as they are now, for a rotated secret.

    What only some grants need (MSAL, cryptography) is imported for those alone.
    """
    token = settings.token
    scope, audience, resource = token.scope, token.audience, token.resource

    def read_secret() -> str:
        return reread().token.client_secret or ""

    if token.managed_identity is not None:
        from shared.auth.managed_identity import ManagedIdentityGrant  # noqa: PLC0415, see above

        identity = None if token.managed_identity == "system" else token.managed_identity
        return ManagedIdentityGrant(identity, scope=scope, audience=audience, resource=resource)
    client_id = token.client_id or ""
    if token.tenant_id is not None:
        from shared.auth.entra import EntraGrant  # noqa: PLC0415, see above

        return EntraGrant(
            token.tenant_id,
            client_id,
            _entra_credential(token, read_secret),
            scope=scope,
            audience=audience,
            resource=resource,
        )
    endpoint = token.token_url or Discovery(client, token.issuer or "")
    return ClientCredentialsGrant(
        client,
        endpoint,
        _authentication(token, client_id, read_secret),
        scope=scope,
        audience=audience,
        resource=resource,
    )


def _entra_credential(token: TokenSettings, read_secret: Callable[[], str]) -> EntraCredential:
    from shared.auth import entra  # noqa: PLC0415, see create_grant

    if token.client_certificate is not None:
        return entra.certificate_credential(Path(token.client_certificate))
    if token.federated_token_file is not None:
        return entra.federated_credential(Path(token.federated_token_file))
    return entra.secret_credential(read_secret)


def _authentication(token: TokenSettings, client_id: str, read_secret: Callable[[], str]) -> ClientAuthentication:
    if token.client_auth != "private_key_jwt":
        return ClientSecret(client_id, read_secret, token.client_auth)
    from shared.auth.client_assertion import FederatedToken, PrivateKeyJwt  # noqa: PLC0415, see create_grant

    if token.client_certificate is not None:
        return PrivateKeyJwt(client_id, Path(token.client_certificate))
    return FederatedToken(client_id, Path(token.federated_token_file or ""))
