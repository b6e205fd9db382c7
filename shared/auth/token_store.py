"""Where the processes of a scaled-out app share tokens: a grant that does, its store in Redis, and the encryption."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import math
import os
import time
import uuid
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shared.auth.access_token import AccessToken
from shared.errors import SettingsError, TokenStoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.auth.access_token import TokenGrant

_T = TypeVar("_T")
logger = logging.getLogger(__name__)

# A process that waits for another leaves most of its own time to the token endpoint.
_PATIENCE = 0.25  # of the request timeout, also for a slow store
_LEASE_MARGIN = 1.0  # seconds that a lease outlives the request timeout
_BUDGET = 0.5  # seconds of all commands to the store for one token request, and again for what comes after it
_PAUSE = 30.0  # seconds for which a store that fails is left alone
_INTERVAL = 0.05  # seconds between two looks while another process has the lease; it grows to
_MAX_INTERVAL = 0.25  # seconds, so that patience costs a far-off store no budget
# A token is left alone for the last seconds of its life: the clocks of two machines may be apart by so much.
_MARGIN = 5.0  # seconds, or this part of a short life
_MARGIN_FRACTION = 0.1

_VERSION = b"\x01"
_NONCE = 12  # bytes: NIST SP 800-38D section 8.2.2

_VALUE = "business-relay:token:"
_LEASE = "business-relay:lease:"
_MAX_LEASE = 60_000  # milliseconds: longer than any lease is taken for
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
    """Bytes and leases in the Redis at `url` (redis://, rediss:// or unix://); a TokenStore of one event loop.

    Nothing is tried twice or bounded in time: a caller that gives up cancels.

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
        times = str(_milliseconds(seconds)), str(_MAX_LEASE)
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

    def is_usable(self, now: float) -> bool:
        """Return whether it lives, and was not issued in the future: then one of the two clocks is wrong."""
        margin = min(_MARGIN, (self.expires_at - self.issued_at) * _MARGIN_FRACTION)
        return self.issued_at - margin <= now < self.expires_at - margin


class TokenCipher:
    """Encrypts and decrypts stored tokens with AES-256-GCM; `key` is a secret text of 32 characters or more.

    What was encrypted under one `name` cannot be decrypted under another: no token can be moved to another request.
    """

    def __init__(self, key: str) -> None:
        derived = HKDF(SHA256(), 32, salt=None, info=b"business-relay token store").derive(key.encode())
        self._cipher = AESGCM(derived)

    def encrypt(self, name: str, token: StoredToken) -> bytes:
        """Return the bytes to store."""
        plain = json.dumps(astuple(token)).encode()
        nonce = os.urandom(_NONCE)
        return _VERSION + nonce + self._cipher.encrypt(nonce, plain, _VERSION + name.encode())

    def decrypt(self, name: str, stored: bytes) -> StoredToken:
        """Return the token in stored bytes; a ValueError if `encrypt` has not made them with the same key and name."""
        nonce, sealed = stored[1 : 1 + _NONCE], stored[1 + _NONCE :]
        if stored[:1] != _VERSION or len(nonce) < _NONCE:
            raise ValueError("not a stored token of this version")
        try:
            token = StoredToken(*json.loads(self._cipher.decrypt(nonce, sealed, _VERSION + name.encode())))
        except InvalidTag:
            raise ValueError("not encrypted with this key for this request") from None
        if not all(math.isfinite(moment) for moment in (token.issued_at, token.expires_at, token.refresh_at or 0.0)):
            raise ValueError("a stored token with no moment of expiry")
        return token


@dataclass(slots=True)
class _Visit:
    """One token request at the store: the seconds it has left for commands, and whether it has the lease.

    None: it was asked for, and the answer was lost.
    """

    budget: float
    has_lease: bool | None = False
    owner: str = field(default_factory=lambda: str(uuid.uuid4()))


class StoredGrant:
    """Requests access tokens through `grant` and shares them in `store`, encrypted; a TokenGrant.

    One process requests a token while the others wait for it, up to a quarter of `request_timeout` (s); then they
    request one themselves, as they do at once if the store fails. A store that fails, or takes more than 0.5 s (or that
    quarter) for one request, costs a warning and is left alone for 30 s. `default_lifetime` (s) counts if the server
    names none. `clock` returns POSIX seconds. No token is returned twice. It closes the store.
    """

    def __init__(  # noqa: PLR0913, times, each by its own name
        self,
        grant: TokenGrant,
        store: TokenStore,
        cipher: TokenCipher,
        *,
        request_timeout: float = 10.0,
        default_lifetime: float = 300.0,
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
        self._clock = clock
        self._monotonic = monotonic
        self._paused_until = -math.inf
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
                    lifetime = self._default_lifetime if token.expires_in is None else token.expires_in
                    refresh_at = None if token.refresh_in is None else issued_at + token.refresh_in
                    stored = StoredToken(token.value, issued_at, issued_at + lifetime, refresh_at)
        finally:
            if (
                stored is not None or visit.has_lease is not False
            ):  # whoever waits for the token has it before the store
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
            if stored is not None and stored.value not in unwanted and stored.is_usable(self._clock()):
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
        seconds = self._request_timeout + _LEASE_MARGIN
        visit.has_lease = None
        visit.has_lease = await self._answer(visit, self._store.acquire(self._name, visit.owner, seconds))
        return visit.has_lease is True

    async def _leave(self, visit: _Visit, stored: StoredToken | None) -> None:
        """Store the token and give the lease back."""
        visit.budget = self._budget
        if stored is not None and self._is_available:
            sealed, lifetime = self._cipher.encrypt(self._name, stored), stored.expires_at - stored.issued_at
            await self._answer(visit, self._store.write(self._name, sealed, lifetime))
        if visit.has_lease is not False:  # the others wait for it, even if the store has just failed
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
            logger.warning("token store unavailable", extra={"reason": reason, "pause": _PAUSE})
        self._paused_until = self._monotonic() + _PAUSE
        return None
