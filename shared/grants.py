"""Chooses the token grant that the settings ask for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from shared.auth.client_authentication import ClientSecret, FederatedToken, secret_in_file
from shared.auth.client_credentials import ClientCredentialsGrant, Discovery

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from shared.auth.access_token import TokenGrant
    from shared.auth.client_authentication import ClientAuthentication
    from shared.auth.entra import EntraCredential
    from shared.token_settings import TokenSettings


def create_grant(token: TokenSettings, client: httpx.AsyncClient) -> TokenGrant:
    """Give the grant for the settings, which are valid; what only some grants need is imported for those alone."""
    scope, audience, resource = token.scope, token.audience, token.resource
    if token.managed_identity is not None:
        from shared.auth.managed_identity import ManagedIdentityGrant  # noqa: PLC0415, see above

        identity = None if token.is_system_identity else token.managed_identity
        return ManagedIdentityGrant(client, identity, scope=scope, audience=audience, resource=resource)
    client_id = token.client_id or ""
    if token.tenant_id is not None:
        from shared.auth.entra import EntraGrant  # noqa: PLC0415, see above

        credential = _entra_credential(token)
        return EntraGrant(
            client, token.tenant_id, client_id, credential, scope=scope, audience=audience, resource=resource
        )
    endpoint = token.token_url or Discovery(client, token.issuer or "")
    authentication = _authentication(token, client_id)
    return ClientCredentialsGrant(client, endpoint, authentication, scope=scope, audience=audience, resource=resource)


def token_server(token: TokenSettings) -> str | None:
    """Give a URL of the server that the grant asks first, None where it is of this machine: no proxy is on the way."""
    if token.tenant_id is None:
        return token.token_url or token.issuer
    from shared.auth.entra import AUTHORITY  # noqa: PLC0415, see create_grant

    return AUTHORITY


def _entra_credential(token: TokenSettings) -> EntraCredential:
    from shared.auth import entra  # noqa: PLC0415, see create_grant

    if token.client_certificate is not None:
        return entra.certificate_credential(Path(token.client_certificate))
    if token.federated_token_file is not None:
        return entra.federated_credential(Path(token.federated_token_file))
    return entra.secret_credential(_secret(token))


def _authentication(token: TokenSettings, client_id: str) -> ClientAuthentication:
    if token.client_auth != "private_key_jwt":
        return ClientSecret(client_id, _secret(token), token.client_auth)
    if token.client_certificate is None:
        return FederatedToken(client_id, Path(token.federated_token_file or ""))
    from shared.auth.private_key_jwt import PrivateKeyJwt  # noqa: PLC0415, see create_grant

    return PrivateKeyJwt(client_id, Path(token.client_certificate), key_id=token.client_key_id)


def _secret(token: TokenSettings) -> Callable[[], str]:
    """Give what reads the client secret: a file can change while the process runs, its environment cannot."""
    if token.client_secret_file is not None:
        path = Path(token.client_secret_file)
        return lambda: secret_in_file(path)
    secret = token.client_secret or ""
    return lambda: secret
