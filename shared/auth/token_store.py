"""StoredGrant: lets the processes of a scaled-out app share tokens in a Redis, encrypted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from typing import TYPE_CHECKING, Any, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.auth.token_endpoint import AccessToken
from shared.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

# A process that waits for another leaves most of its own time to the token endpoint.
_PATIENCE = 0.25  # of the request timeout
_LEASE_MARGIN = 1.0  # seconds that a lease outlives the request timeout
_INTERVAL = 0.05  # seconds between two looks at a lease that another process has
_COMMAND_TIMEOUT = 1.0  # seconds for a connection, and for each answer on it
_PAUSE = 30.0  # seconds for which a store that fails is left alone
# A token is left alone for the last seconds of its life: the clocks of two machines may be apart by so much.
_MARGIN, _MARGIN_FRACTION = 5.0, 0.1  # seconds, or this part of a short life
_NONCE = 12  # bytes: NIST SP 800-38D section 8.2.2


class StoredGrant:
    """Requests access tokens through `grant` and shares them, encrypted, in the Redis at `url`.

    `name` names the token request, with no secret in it, and `key` is a secret text. One process requests a token while
    the others wait for it, up to a quarter of `request_timeout` (s); then they request one themselves, as they do at
    once if the store fails: that costs a warning, and the store is left alone for 30 s. `default_lifetime` (s) counts
    if the server names none. `clock` returns POSIX seconds. No token is returned twice.

    Raises:
        SettingsError: the `redis` package is not installed, or `url` is not the address of a Redis.
    """

    def __init__(  # noqa: PLR0913, times, each by its own name
        self,
        grant: Callable[[], Awaitable[AccessToken]],
        name: str,
        url: str,
        key: str,
        *,
        request_timeout: float = 10.0,
        default_lifetime: float = 300.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            from redis.asyncio import Redis  # noqa: PLC0415, an optional requirement, and 100 ms to import
            from redis.exceptions import LockError, RedisError  # noqa: PLC0415, the same
        except ImportError:  # pragma: no cover - tested in a process of its own
            raise SettingsError(["TOKEN_STORE_URL needs the package redis, which is not installed"]) from None
        try:
            seconds = _COMMAND_TIMEOUT
            self._redis = Redis.from_url(url, retry=None, socket_timeout=seconds, socket_connect_timeout=seconds)
        except (ValueError, TypeError):  # their text may hold the URL, which may hold a password
            raise SettingsError(["TOKEN_STORE_URL is not the address of a Redis"]) from None
        self._faults, self._no_lease_error = (RedisError, OSError, ValueError), LockError
        self._grant = grant
        # A digest: the store need not know the names of clients and APIs.
        self._name = hashlib.sha256(name.encode()).hexdigest()
        self._cipher = AESGCM(HKDF(SHA256(), 32, salt=None, info=b"business-relay token store 1").derive(key.encode()))
        self._lease = self._redis.lock(
            f"business-relay:lease:{self._name}",
            timeout=request_timeout + _LEASE_MARGIN,
            sleep=_INTERVAL,
            blocking_timeout=request_timeout * _PATIENCE,
            thread_local=False,
        )
        self._default_lifetime = default_lifetime
        self._clock = clock
        self._used_from = 0.0
        self._given: str | None = None

    async def request_token(self) -> AccessToken:
        """Return a token that another process has requested, or request one for all."""
        try:
            token = await self._ask(self._await_stored)
            if token is None:
                issued_at = self._clock()  # before the request, so that no token seems to live longer than it does
                token = await self._grant()
                if token.value != self._given:
                    await self._ask(lambda: self._write(token, issued_at))
        finally:
            await self._ask(self._release)
        self._given = token.value
        return token

    async def aclose(self) -> None:
        """Close the connections to the store."""
        await self._redis.aclose()

    async def _ask(self, command: Callable[[], Awaitable[_T]]) -> _T | None:
        """Return what the store answers, None if it fails; it is then left alone."""
        if self._clock() < self._used_from:
            return None
        try:
            return await command()
        except self._faults as exc:
            # Without its text: Redis repeats the arguments of what it refuses, be it the password.
            logger.warning("token store unavailable", extra={"reason": type(exc).__name__, "pause": _PAUSE})
        self._used_from = self._clock() + _PAUSE
        return None

    async def _await_stored(self) -> AccessToken | None:
        """Return the stored token, waiting while another process has the lease; None if it is ours to request."""
        token = await self._read()
        if token is None:
            await self._lease.acquire()
            token = await self._read()  # its last holder may have stored one in between
        return token

    async def _release(self) -> None:
        """Return the lease, if it is this process's."""
        with contextlib.suppress(self._no_lease_error):
            await self._lease.release()

    async def _read(self) -> AccessToken | None:
        """Return the stored token with what is left of its life, None if there is none to be used."""
        stored: Any = await self._redis.get(f"business-relay:token:{self._name}")
        if stored is None:
            return None
        try:
            plain = self._cipher.decrypt(stored[:_NONCE], stored[_NONCE:], self._name.encode())
        except (InvalidTag, ValueError, TypeError):  # TypeError: text, where the URL asks for it
            logger.warning("token store holds rubbish", extra={"reason": "not encrypted with this key"})
            return None
        value, issued_at, lifetime, refresh_in = json.loads(plain)
        margin = min(_MARGIN, lifetime * _MARGIN_FRACTION)
        age = self._clock() - issued_at
        # One that is issued in the future shows that one of the two clocks is wrong.
        if value == self._given or not -margin <= age < lifetime - margin:
            return None
        age = max(0.0, age)
        return AccessToken(value, lifetime - age, refresh_in and max(0.0, refresh_in - age), is_shared=True)

    async def _write(self, token: AccessToken, issued_at: float) -> None:
        lifetime = self._default_lifetime if token.expires_in is None else token.expires_in
        plain = json.dumps([token.value, issued_at, lifetime, token.refresh_in]).encode()
        nonce = os.urandom(_NONCE)
        sealed = nonce + self._cipher.encrypt(nonce, plain, self._name.encode())
        await self._redis.set(f"business-relay:token:{self._name}", sealed, px=max(1, int(lifetime * 1000)))
