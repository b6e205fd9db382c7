"""A token grant whose tokens the processes of a scaled-out app share. A fault of the store ends here."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from shared.auth.token_store import StoredToken
from shared.errors import TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.auth.access_token import AccessToken, TokenGrant
    from shared.auth.token_store import TokenCipher, TokenStore

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

# A process that waits for another leaves most of its own time to the token endpoint.
_PATIENCE = 0.25  # of the request timeout, also for a slow store
_LEASE_MARGIN = 1.0  # seconds that a lease outlives the request timeout
_BUDGET = 0.5  # seconds of all commands to the store for one token request, and again for what comes after it
_INTERVAL = 0.05  # seconds between two looks while another process has the lease; it grows to
_MAX_INTERVAL = 0.25  # seconds, so that patience costs a far-off store no budget
# A token is left alone for the last seconds of its life: the clocks of two machines may be apart by so much.
_MARGIN = 5.0  # seconds, or this part of a short life
_MARGIN_FRACTION = 0.1


@dataclass(slots=True)
class _Visit:
    """One token request at the store: the seconds it has left for commands, and perhaps the lease."""

    budget: float
    owner: str = field(default_factory=lambda: str(uuid.uuid4()))
    has_lease: bool = False
    may_have_lease: bool = False


class StoredGrant:
    """Requests access tokens through `grant` and shares them in `store`, encrypted; a TokenGrant.

    One process requests a token while the others wait for it, up to a quarter of `request_timeout` (s); then they
    request one themselves, as they do at once if the store fails. `default_lifetime` (s) counts if the server names
    none. A store that fails, or takes more than 0.5 s (or that quarter) for one request, costs a warning and is left
    alone for `pause` seconds. `clock` returns POSIX seconds.

    It returns no token twice: whoever asks again wants another one. It closes the store.
    """

    def __init__(  # noqa: PLR0913, times, each by its own name
        self,
        grant: TokenGrant,
        store: TokenStore,
        cipher: TokenCipher,
        *,
        request_timeout: float = 10.0,
        default_lifetime: float = 300.0,
        pause: float = 30.0,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._grant = grant
        self._store = store
        self._cipher = cipher
        # A digest: the store need not know the names of clients and APIs.
        self._name = hashlib.sha256(grant.cache_key.encode()).hexdigest()
        self._request_timeout = request_timeout
        self._budget = min(_BUDGET, request_timeout * _PATIENCE)
        self._default_lifetime = default_lifetime
        self._pause = pause
        self._clock = clock
        self._monotonic = monotonic
        self._paused_until = float("-inf")
        self._given: str | None = None
        self._rubbish: bytes | None = None
        self._afterwards: set[asyncio.Task[None]] = set()

    @property
    def cache_key(self) -> str:
        """Names the whole request, with no secret in it."""
        return self._grant.cache_key

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        """Return a token that another process has requested, or request one for all."""
        visit, stored = _Visit(self._budget), None
        try:
            token = await self._await_stored(visit, {self._given, refused.value if refused else None})
            if token is None:
                issued_at = self._clock()  # before the request, so that no token seems to live longer than it does
                token = await self._grant.request_token(refused)
                if refused is None or token.value != refused.value:
                    stored = self._to_store(token, issued_at)
        finally:
            if stored is not None or visit.may_have_lease:  # whoever waits for the token has it before the store
                task = asyncio.create_task(self._leave(visit, stored), name="token store")
                self._afterwards.add(task)
                task.add_done_callback(self._afterwards.discard)
        self._given = token.value
        return token

    async def aclose(self) -> None:
        """Finish what goes on in the background, in a second at most, and close the store."""
        if self._afterwards:
            await asyncio.wait(self._afterwards)
        await self._store.aclose()

    @property
    def _is_available(self) -> bool:
        return self._monotonic() >= self._paused_until

    async def _await_stored(self, visit: _Visit, unwanted: set[str | None]) -> AccessToken | None:
        """Return the stored token, waiting while another process has the lease; None if it is ours to request."""
        patience_ends = self._monotonic() + self._request_timeout * _PATIENCE
        interval = _INTERVAL
        while self._is_available:
            stored = await self._read(visit)
            if stored is not None and stored.value not in unwanted and self._is_usable(stored):
                return stored.at(self._clock())
            if visit.has_lease or self._monotonic() >= patience_ends:
                break
            # With the lease, look once more: its last holder may have stored a token in between.
            if self._is_available and not await self._acquire(visit) and self._is_available:
                await asyncio.sleep(interval)
                interval = min(interval * 1.5, _MAX_INTERVAL)
        return None

    async def _read(self, visit: _Visit) -> StoredToken | None:
        stored = await self._answer(visit, self._store.read(self._name))
        if stored is None or stored == self._rubbish:
            return None
        try:
            return self._cipher.decrypt(self._name, stored)
        except ValueError as exc:
            self._rubbish = stored  # one warning, however often it is looked at
            logger.warning("token store holds rubbish", extra={"reason": str(exc)})
            return None

    async def _acquire(self, visit: _Visit) -> bool:
        lease = self._request_timeout + _LEASE_MARGIN
        visit.may_have_lease = True  # also where the answer is lost
        answer = await self._answer(visit, self._store.acquire(self._name, visit.owner, lease))
        visit.has_lease = answer is True
        visit.may_have_lease = answer is not False
        return visit.has_lease

    async def _leave(self, visit: _Visit, stored: StoredToken | None) -> None:
        """Store the token and give the lease back."""
        visit.budget = self._budget
        if stored is not None and self._is_available:
            sealed = self._cipher.encrypt(self._name, stored)
            lifetime = stored.expires_at - stored.issued_at
            await self._answer(visit, self._store.write(self._name, sealed, lifetime))
        if visit.may_have_lease:  # the others wait for it, even if the store has just failed
            await self._answer(visit, self._store.release(self._name, visit.owner))

    async def _answer(self, visit: _Visit, command: Awaitable[_T]) -> _T | None:
        """Return what the store answers, None if it fails or has used up its time; it is then left alone."""
        began_at = self._monotonic()
        try:
            async with asyncio.timeout(visit.budget):
                return await command
        except TimeoutError:
            reason = f"it takes more than {self._budget:g} s of a token request"
        except TokenStoreError as exc:
            reason = str(exc)
        finally:
            visit.budget -= self._monotonic() - began_at
        if self._is_available:
            logger.warning("token store unavailable", extra={"reason": reason, "pause": self._pause})
        self._paused_until = self._monotonic() + self._pause
        return None

    def _to_store(self, token: AccessToken, issued_at: float) -> StoredToken:
        lifetime = self._default_lifetime if token.expires_in is None else token.expires_in
        refresh_at = None if token.refresh_in is None else issued_at + token.refresh_in
        return StoredToken(token.value, issued_at, issued_at + lifetime, refresh_at)

    def _is_usable(self, stored: StoredToken) -> bool:
        """Return whether it lives, and was not issued in the future: then one of the two clocks is wrong."""
        margin = min(_MARGIN, (stored.expires_at - stored.issued_at) * _MARGIN_FRACTION)
        return stored.issued_at - margin <= self._clock() < stored.expires_at - margin
