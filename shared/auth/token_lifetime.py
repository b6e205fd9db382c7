"""When a token is old and when it has expired. Pure: times are seconds of whatever clock the caller reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.auth.access_token import AccessToken

# A short life is not all leeway: at most this part of it. More than a third, so that a token server that is down for
# the last third of a short life is not felt: the next token is there before.
_LEEWAY_FRACTION = 0.4
# Renewal comes earlier by up to this part of the leeway, never later: the processes of an app do not renew in step.
_JITTER_FRACTION = 0.25
# A wish to renew at once would be a token request per call: nothing makes a token old in this first part of its life.
_FRESH_FRACTION = 0.1


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
    lifetime = default_lifetime if token.expires_in is None else token.expires_in
    leeway = min(leeway, lifetime * _LEEWAY_FRACTION)
    fresh_for = lifetime - leeway
    if token.refresh_in is not None:
        fresh_for = min(fresh_for, token.refresh_in)
    fresh_for = max(fresh_for - leeway * _JITTER_FRACTION * jitter, lifetime * _FRESH_FRACTION)
    return HeldToken(token, requested_at, requested_at + fresh_for, requested_at + lifetime)
