"""Microsoft Entra for the peers that speak to nothing else: its tokens are the partner's."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from azure.core.pipeline.transport import AioHttpTransport

AUTHORITY = "https://entra.invalid/tenant"
_DISCOVERY = {
    "authorization_endpoint": f"{AUTHORITY}/authorize",
    "token_endpoint": f"{AUTHORITY}/token",
    "issuer": AUTHORITY,
}


@dataclass
class _Discovery:
    """What MSAL needs of an HTTP response."""

    text: str
    status_code: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def raise_for_status(self) -> None:
        """Succeed."""


class EntraAnswers:
    """The HTTP client that MSAL is given."""

    def __init__(self, token_url: str) -> None:
        self._token_url = token_url
        self._session = requests.Session()

    def get(self, url: str, **_: Any) -> _Discovery:  # noqa: ANN401, ARG002, MSAL names them
        """Answer the discovery."""
        return _Discovery(json.dumps(_DISCOVERY))

    def post(self, url: str, *, data: Any = None, headers: Any = None, **_: Any) -> requests.Response:  # noqa: ANN401, ARG002, MSAL names them
        """Request a token of the partner."""
        return self._session.post(self._token_url, data=data, headers=headers, timeout=30)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def entra_transport(token_url: str) -> AioHttpTransport:
    """Return azure-identity a transport that requests its tokens of the partner."""
    from azure.core.pipeline.transport import AioHttpTransport  # noqa: PLC0415, a peer's library

    class Transport(AioHttpTransport):  # type: ignore[misc]  # the library has no types
        async def send(self, request: Any, **config: Any) -> Any:  # noqa: ANN401, as the library has it
            request.url = token_url
            return await super().send(request, **config)

    return Transport()
