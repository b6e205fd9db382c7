"""A token grant whose tokens the processes of a scaled-out app share."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from shared.auth.token_cipher import StoredToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.auth.access_token import AccessToken, TokenGrant
    from shared.auth.shared_token import Lease, SharedToken

# A token is left alone for the last seconds of its life: the clocks of two machines may be apart by so much.
_MARGIN = 5.0  # seconds, or this part of a short life
_MARGIN_FRACTION = 0.1


class StoredGrant:
    """Requests access tokens through `grant` and shares them as `shared`; a TokenGrant.

    One process requests a token while the others wait for it, up to `patience` seconds, looking every `interval`
    seconds; then they ask for themselves, as they do at once where the store fails. `default_lifetime` (s) counts
    where the server names none. `clock` gives POSIX seconds.

    It gives no token twice: who asks again wants another one.
    """

    def __init__(  # noqa: PLR0913 - times, each by its own name
        self,
        grant: TokenGrant,
        shared: SharedToken,
        *,
        default_lifetime: float = 300.0,
        patience: float = 5.0,
        interval: float = 0.05,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._grant = grant
        self._shared = shared
        self._default_lifetime = default_lifetime
        self._patience = patience
        self._interval = interval
        self._clock = clock
        self._given: str | None = None

    @property
    def cache_key(self) -> str:
        """Name the whole request, with no secret in it."""
        return self._grant.cache_key

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        """Give a token that another process has requested, or request one for all.

        Raises:
            TokenRejectedError: the server refuses the client.
            TokenUnavailableError: the server cannot be reached, is in trouble or talks nonsense.
        """
        unwanted = {self._given} | ({refused.value} if refused else set())
        lease = self._shared.lease()
        try:
            token = await self._await_stored(lease, unwanted) or await self._request(refused)
        finally:
            await lease.release()
        self._given = token.value
        return token

    async def _await_stored(self, lease: Lease, unwanted: set[str | None]) -> AccessToken | None:
        """Give the stored token, waiting for it while another process has the lease; None where it is ours to ask."""
        patience_ends = time.monotonic() + self._patience
        while self._shared.available:
            stored = await self._shared.read()
            if stored is not None and stored.value not in unwanted and self._lives(stored):
                return stored.at(self._clock())
            if lease.held or time.monotonic() >= patience_ends:
                break
            # With the lease, look once more: its last holder may have stored a token in between.
            if not await lease.acquire() and self._shared.available:
                await asyncio.sleep(self._interval)
        return None

    async def _request(self, refused: AccessToken | None) -> AccessToken:
        issued_at = self._clock()  # before the request, so that no token seems to live longer than it does
        token = await self._grant.request_token(refused)
        lifetime = self._default_lifetime if token.expires_in is None else token.expires_in
        refresh_at = None if token.refresh_in is None else issued_at + token.refresh_in
        if refused is None or token.value != refused.value:
            stored = StoredToken(token.value, issued_at, issued_at + lifetime, refresh_at)
            await self._shared.write(stored, lifetime)
        return token

    def _lives(self, stored: StoredToken) -> bool:
        margin = min(_MARGIN, (stored.expires_at - stored.issued_at) * _MARGIN_FRACTION)
        return self._clock() < stored.expires_at - margin
