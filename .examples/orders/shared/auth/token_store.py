"""Where processes share tokens: a store in Redis, and the encryption of what it holds."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.auth.access_token import AccessToken
from shared.errors import SettingsError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

_VERSION = b"\x01"
_NONCE = 12  # bytes: NIST SP 800-38D section 8.2.2

_VALUE = "business-relay:token:"
_LEASE = "business-relay:lease:"
_MAX_LEASE = 60.0  # seconds: longer than any lease is taken for
# A lease without an end, or with a far one, was not made here and would never end: it counts as none.
_ACQUIRE = """
local left = redis.call('pttl', KEYS[1])
if left >= 0 and left <= tonumber(ARGV[3]) then return 0 end
redis.call('set', KEYS[1], ARGV[1], 'px', ARGV[2])
return left == -2 and 1 or 2
"""
_TAKEN_OVER = 2
# Only the owner may end a lease: its own may have run out, and another process have taken the next one.
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class TokenStore(Protocol):
    """Bytes by name that several processes share. Each method may raise TokenStoreError, and may be cancelled."""

    async def read(self, name: str) -> bytes | None:
        """Return the value of a name, None if there is none."""

    async def write(self, name: str, value: bytes, seconds: float) -> None:
        """Store a value for so long."""

    async def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lease of a name for so long; False if someone has it."""

    async def release(self, name: str, owner: str) -> None:
        """Return the lease of a name, if `owner` still has it."""

    async def aclose(self) -> None:
        """Close the connections."""


class RedisStore:
    """Bytes and leases in the Redis at `url` (redis://, rediss:// or unix://); a TokenStore.

    Nothing is tried twice or bounded in time: a caller that gives up cancels. It belongs to the event loop that uses it
    first. Each method raises TokenStoreError if Redis fails.

    Raises:
        SettingsError: the `redis` package is not installed, or `url` is not the address of a Redis.
    """

    def __init__(self, url: str) -> None:
        try:
            from redis.asyncio import Redis  # noqa: PLC0415, an optional requirement, and 100 ms to import
            from redis.asyncio.retry import Retry  # noqa: PLC0415, the same
            from redis.backoff import NoBackoff  # noqa: PLC0415, the same
            from redis.exceptions import RedisError  # noqa: PLC0415, the same
        except ImportError:  # pragma: no cover - tested in a process of its own
            raise SettingsError(["TOKEN_STORE_URL needs the package redis, which is not installed"]) from None
        try:
            self._redis = Redis.from_url(url, decode_responses=False, retry=Retry(NoBackoff(), 0))
        except (ValueError, TypeError):  # their text may hold the URL, which may hold a password
            raise SettingsError(["TOKEN_STORE_URL is not the address of a Redis"]) from None
        self._faults = (RedisError, OSError, ValueError)

    async def read(self, name: str) -> bytes | None:
        """Return the value of a name, None if there is none."""
        value = await self._result(self._redis.get(_VALUE + name))
        if value is not None and not isinstance(value, bytes):
            raise TokenStoreError("Redis answers with text: TOKEN_STORE_URL must not ask it to decode")
        return value

    async def write(self, name: str, value: bytes, seconds: float) -> None:
        """Store a value for so long."""
        await self._result(self._redis.set(_VALUE + name, value, px=_milliseconds(seconds)))

    async def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lease of a name for so long; False if someone has it."""
        times = (str(_milliseconds(seconds)), str(_milliseconds(_MAX_LEASE)))
        found = await self._result(self._redis.eval(_ACQUIRE, 1, _LEASE + name, owner, *times))
        if found == _TAKEN_OVER:
            logger.warning("token store held a lease without an end")
        return bool(found)

    async def release(self, name: str, owner: str) -> None:
        """Return the lease of a name, if `owner` still has it."""
        await self._result(self._redis.eval(_RELEASE, 1, _LEASE + name, owner))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _result(self, command: Awaitable[_T]) -> _T:
        try:
            return await command
        except self._faults as exc:
            fault = type(exc).__name__
        # Neither its text nor itself: Redis repeats the arguments of what it refuses, be it the password.
        raise TokenStoreError(f"Redis fails: {fault}")


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


@dataclass(frozen=True, slots=True)
class StoredToken:
    """An access token with its moments in POSIX seconds: all that processes with clocks of their own can share."""

    value: str = field(repr=False)
    issued_at: float
    expires_at: float
    refresh_at: float | None = None

    def at(self, now: float) -> AccessToken:
        """Return the access token as if it had been issued now; it lives no longer than it was issued for."""
        age = max(0.0, now - self.issued_at)  # a clock that is behind makes no token younger than new
        refresh_in = None if self.refresh_at is None else max(0.0, self.refresh_at - self.issued_at - age)
        return AccessToken(self.value, self.expires_at - self.issued_at - age, refresh_in, is_shared=True)


class TokenCipher:
    """Encrypts and decrypts stored tokens with AES-256-GCM; `key` is a secret text of 32 characters or more.

    What was encrypted under one `name` cannot be decrypted under another: no token can be moved to another request.
    """

    def __init__(self, key: str) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"business-relay token store").derive(key.encode())
        self._cipher = AESGCM(derived)

    def encrypt(self, name: str, token: StoredToken) -> bytes:
        """Return the bytes to store."""
        plain = json.dumps([token.value, token.issued_at, token.expires_at, token.refresh_at]).encode()
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, _VERSION + name.encode())

    def decrypt(self, name: str, stored: bytes) -> StoredToken:
        """Return the token in stored bytes.

        Raises:
            ValueError: they were not made by `encrypt` with the same key and name.
        """
        nonce, sealed = stored[1 : 1 + _NONCE], stored[1 + _NONCE :]
        if stored[:1] != _VERSION or len(nonce) < _NONCE:
            raise ValueError("not a stored token of this version")
        try:
            value, issued_at, expires_at, refresh_at = json.loads(
                self._cipher.decrypt(nonce, sealed, _VERSION + name.encode())
            )
        except InvalidTag:
            raise ValueError("not encrypted with this key for this request") from None
        if not all(math.isfinite(moment) for moment in (issued_at, expires_at, refresh_at or 0.0)):
            raise ValueError("a stored token with no moment of expiry")
        return StoredToken(value, issued_at, expires_at, refresh_at)
