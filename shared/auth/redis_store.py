"""A token store in Redis. The `redis` package is optional: it is imported when a store is made."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from shared.auth.shared_token import TokenStoreError
from shared.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_VALUE = "business-relay:token:"
_LEASE = "business-relay:lease:"
# Only the owner may end a lease: its own may have run out, and another process have taken the next one.
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class RedisStore:
    """Bytes and leases in the Redis at `url` (redis://, rediss:// or unix://); a TokenStore.

    `timeout` is seconds for one command, its connection included. Nothing is tried twice. It belongs to the event loop
    that uses it first.

    Raises:
        SettingsError: the `redis` package is not installed, or `url` is not the address of a Redis.
    """

    def __init__(self, url: str, *, timeout: float = 0.5) -> None:
        try:
            from redis.asyncio import Redis  # noqa: PLC0415 - an optional requirement, and 100 ms to import
            from redis.asyncio.retry import Retry  # noqa: PLC0415 - the same
            from redis.backoff import NoBackoff  # noqa: PLC0415 - the same
            from redis.exceptions import RedisError  # noqa: PLC0415 - the same
        except ImportError:  # pragma: no cover - tested in a process of its own
            raise SettingsError(["TOKEN_STORE_URL needs the package redis, which is not installed"]) from None
        try:
            self._redis = Redis.from_url(
                url,
                decode_responses=False,
                retry=Retry(NoBackoff(), 0),
                socket_timeout=timeout,
                socket_connect_timeout=timeout,
            )
        except (ValueError, TypeError):  # their text may hold the URL, which may hold a password
            raise SettingsError(["TOKEN_STORE_URL is not the address of a Redis"]) from None
        self._faults = (RedisError, OSError, ValueError)
        self._timeout = timeout

    async def read(self, name: str) -> bytes | None:
        """Give what is stored under a name, None where nothing is.

        Raises:
            TokenStoreError: Redis is down, slow or answers with nonsense.
        """
        async with self._bounded():
            value = await self._redis.get(_VALUE + name)
        if value is not None and not isinstance(value, bytes):
            raise TokenStoreError("Redis answers with text: TOKEN_STORE_URL must not ask it to decode")
        return value

    async def write(self, name: str, value: bytes, seconds: float) -> None:
        """Store a value for so long.

        Raises:
            TokenStoreError: Redis is down, slow or answers with nonsense.
        """
        async with self._bounded():
            await self._redis.set(_VALUE + name, value, px=_milliseconds(seconds))

    async def acquire(self, name: str, owner: str, seconds: float) -> bool:
        """Take the lease of a name for so long; False where someone has it.

        Raises:
            TokenStoreError: Redis is down, slow or answers with nonsense.
        """
        async with self._bounded():
            return bool(await self._redis.set(_LEASE + name, owner, px=_milliseconds(seconds), nx=True))

    async def release(self, name: str, owner: str) -> None:
        """Give the lease of a name back, if `owner` still has it.

        Raises:
            TokenStoreError: Redis is down, slow or answers with nonsense.
        """
        async with self._bounded():
            await self._redis.eval(_RELEASE, 1, _LEASE + name, owner)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout):  # redis bounds each of its steps, not their sum
                yield
        except TimeoutError as exc:
            raise TokenStoreError(f"Redis did not answer within {self._timeout:g} s") from exc
        except self._faults as exc:
            raise TokenStoreError(f"{type(exc).__name__}: {exc}") from exc


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
