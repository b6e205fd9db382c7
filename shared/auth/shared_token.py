"""The access token that processes share through a store, and the lease to renew it. A fault of the store ends here."""

from __future__ import annotations

import hashlib
import logging
import time
import uuid
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.auth.token_cipher import StoredToken, TokenCipher

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

_LEASE = 15.0  # seconds: more than a token request takes; a process that dies with the lease holds nobody up longer


class TokenStoreError(Exception):
    """The store does not do its part: it is down, too slow, or answers with nonsense."""


class TokenStore(Protocol):
    """Bytes by name that several processes share. Each method may raise TokenStoreError, and does so in short time."""

    async def read(self, name: str) -> bytes | None:
        """Give what is stored under a name, None where nothing is."""

    async def write(self, name: str, value: bytes, seconds: float) -> None:
        """Store a value for so long."""

    async def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lease of a name for so long; False where someone has it."""

    async def release(self, name: str, owner: str) -> None:
        """Give the lease of a name back, if `owner` still has it."""


class SharedToken:
    """The token of one request in a store that may fail.

    A store that fails costs a warning and is then left alone for `pause` seconds: `available` is False meanwhile, and
    every method does nothing at once. `clock` is monotonic.
    """

    def __init__(
        self,
        store: TokenStore,
        cipher: TokenCipher,
        cache_key: str,
        *,
        pause: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._cipher = cipher
        # A digest: the store need not know the names of clients and APIs.
        self._name = hashlib.sha256(cache_key.encode()).hexdigest()
        self._pause = pause
        self._clock = clock
        self._paused_until = float("-inf")

    @property
    def available(self) -> bool:
        """Say whether the store is worth asking."""
        return self._clock() >= self._paused_until

    async def read(self) -> StoredToken | None:
        """Give the stored token, None where there is none that can be read."""
        stored = await self._guarded(self._store.read, self._name)
        if stored is None:
            return None
        try:
            return self._cipher.decrypt(self._name, stored)
        except ValueError as exc:
            logger.warning("token store holds rubbish", extra={"reason": str(exc)})
            return None

    async def write(self, token: StoredToken, seconds: float) -> None:
        """Store a token for so long."""
        await self._guarded(self._store.write, self._name, self._cipher.encrypt(self._name, token), seconds)

    def lease(self) -> Lease:
        """Give a lease that is not held yet."""
        return Lease(self._name, self._guarded, self._store)

    async def _guarded(self, operation: Callable[..., Awaitable[_T]], *arguments: object) -> _T | None:
        if not self.available:
            return None
        try:
            return await operation(*arguments)
        except TokenStoreError as exc:
            self._paused_until = self._clock() + self._pause
            logger.warning("token store unavailable", extra={"reason": str(exc), "pause": self._pause})
            return None


class Lease:
    """The right to renew the shared token, for the one process that holds it."""

    def __init__(self, name: str, guarded: Callable[..., Awaitable[bool | None]], store: TokenStore) -> None:
        self._name = name
        self._guarded = guarded
        self._store = store
        self._owner = str(uuid.uuid4())
        self.held = False

    async def acquire(self) -> bool:
        """Take the lease; False where another process has it, or the store fails."""
        self.held = bool(await self._guarded(self._store.acquire, self._name, self._owner, _LEASE))
        return self.held

    async def release(self) -> None:
        """Give the lease back, if it is held."""
        if self.held:
            self.held = False
            await self._guarded(self._store.release, self._name, self._owner)
