"""The access token as a value, and the protocol of everything that can request one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token as the token endpoint issued it (RFC 6749 section 5.1).

    `expires_in` is its lifetime in seconds from the request, None where the server named none; `refresh_in` the seconds
    after which the server wishes it renewed (Microsoft Entra names it), None where it has no such wish.

    Raises:
        ValueError: the value cannot stand in a header: it is empty or has more than visible ASCII (RFC 6750 section
            2.1). HTTP libraries refuse such a header as well, but with the token in the text of the error.
    """

    value: str = field(repr=False)
    expires_in: float | None = None
    refresh_in: float | None = None

    def __post_init__(self) -> None:
        if not self.value or not all("!" <= character <= "~" for character in self.value):
            raise ValueError("an access token is one or more characters of visible ASCII")


class TokenGrant(Protocol):
    """A way to request an access token: one token request per call."""

    @property
    def cache_key(self) -> str:
        """Name the whole request (endpoint, client, scope, audience, resource, parameters), with no secret in it."""

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        """Request one access token.

        `refused` is the token that the API has refused, if that is the reason for the request: a grant in front of a
        second cache (a shared store, MSAL) must not answer with it. A grant without a cache ignores it.

        Raises:
            TokenRejectedError: the server refuses the client.
            TokenUnavailableError: the server cannot be reached, is in trouble or talks nonsense.
        """
