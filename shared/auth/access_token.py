"""The access token: as a value, with its times, and the protocol of everything that can request one.

Pure: times are seconds of whatever clock the caller reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

# Nothing lives longer here, whatever the server says: a token for years is a slip, or a time of day for a duration.
_LONGEST_LIFETIME = 30 * 86_400.0
# A short life is not all leeway: at most this part of it. More than a third, so that a token server that is down for
# the last third of a short life is not felt: the next token is there before.
_LEEWAY_FRACTION = 0.4
# Renewal comes earlier by up to this part of the leeway, never later: the processes of an app do not renew in step.
_JITTER_FRACTION = 0.25
# A wish to renew at once would be a token request per call: nothing makes a token old in this first part of its life.
_FRESH_FRACTION = 0.1


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token as the token endpoint issued it (RFC 6749 section 5.1).

    `expires_in` is its lifetime in seconds from the request, None where the server named none; `refresh_in` the seconds
    after which the server wishes it renewed (Microsoft Entra names it), None where it has no such wish. `is_shared`
    says that another process requested it: taking it cost no token request. `authorization` is the header's field (RFC
    6750 section 2.1).

    Raises:
        ValueError: the value cannot stand in a header: it is empty or has more than visible ASCII (RFC 6750 section
            2.1). HTTP libraries refuse such a header as well, but with the token in the text of the error.
    """

    value: str = field(repr=False)
    expires_in: float | None = None
    refresh_in: float | None = None
    is_shared: bool = field(default=False, compare=False)
    authorization: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.value or not all("!" <= character <= "~" for character in self.value):
            raise ValueError("an access token is one or more characters of visible ASCII")
        object.__setattr__(self, "authorization", f"Bearer {self.value}")

    def lifetime(self, default: float) -> float:
        """Give the seconds that it lives from its request, `default` where the server named none; 30 days at most."""
        return min(default if self.expires_in is None else self.expires_in, _LONGEST_LIFETIME)


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


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token with its times: requested, old (to be renewed while it is served) and expired (never to be served)."""

    token: AccessToken
    requested_at: float
    old_at: float
    expires_at: float


def hold(
    token: AccessToken, requested_at: float, *, leeway: float, default_lifetime: float, jitter: float
) -> HeldToken:
    """Give the token with its times, counted from before its request was sent.

    It is old `leeway` seconds before it expires, or 0.4 of its lifetime before if that is less, or `refresh_in` seconds
    after the request if that is sooner; always earlier by up to a quarter of the leeway, by `jitter` in [0, 1), and
    never in the first tenth of its lifetime. `default_lifetime` (s) counts where the server named none.
    """
    lifetime = token.lifetime(default_lifetime)
    leeway = min(leeway, lifetime * _LEEWAY_FRACTION)
    fresh_for = lifetime - leeway
    if token.refresh_in is not None:
        fresh_for = min(fresh_for, token.refresh_in)
    fresh_for = max(fresh_for - leeway * _JITTER_FRACTION * jitter, lifetime * _FRESH_FRACTION)
    return HeldToken(token, requested_at, requested_at + fresh_for, requested_at + lifetime)
