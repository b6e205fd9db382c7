"""The access token with its times, and how long failures and refusals hold token requests back.

Pure. Times are seconds of whatever clock the caller reads.
"""

from __future__ import annotations

import math
import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from shared.errors import TokenError, TokenRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.errors import RelayError

# Nothing lives longer here, whatever the server says: a token for years is a slip, or a time of day for a duration.
_LONGEST_LIFETIME = 30 * 86_400.0
# The leeway is at most this part of a short life: if the token server is down for the last third, nobody notices.
_LEEWAY_FRACTION = 0.4
# Renewal comes earlier by up to this part of the leeway, so that the processes of an app do not renew in step.
_JITTER_FRACTION = 0.25
# Nothing makes a token old in this first part of its life: each call would request another.
_FRESH_FRACTION = 0.1
# So many refusals in a row are answered at once; after that the API has another problem than its token.
_FREE_RENEWALS = 2
# Seconds: settings that someone has just mended must work soon, and a nonsensical Retry-After must not last for days.
_REJECTED_MAXIMUM, _RETRY_AFTER_MAXIMUM = 5.0, 3600.0

VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token as the token endpoint issued it (RFC 6749 section 5.1).

    `expires_in` is its lifetime in seconds from the request, None if the server named none; `refresh_in` the seconds
    after which the server wants it renewed (Microsoft Entra says so), None if it has no such wish. `is_shared` says
    that another process requested it.

    Raises:
        ValueError: the value cannot stand in a header (RFC 6750 section 2.1). HTTP libraries refuse such a header as
            well, but with the token in the text of the error.
    """

    value: str = field(repr=False)
    expires_in: float | None = None
    refresh_in: float | None = None
    is_shared: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        if not VISIBLE_ASCII.fullmatch(self.value):
            raise ValueError("an access token is one or more characters of visible ASCII")

    def lifetime(self, default: float) -> float:
        """Return the seconds it lives from its request, `default` if the server named none; 30 days at most."""
        return min(default if self.expires_in is None else self.expires_in, _LONGEST_LIFETIME)


class TokenGrant(Protocol):
    """A way to request an access token: one token request per call."""

    @property
    def cache_key(self) -> str:
        """Names the whole request (endpoint, client, scope, audience, resource), with no secret in it."""

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        """Request one access token. A grant with a cache never returns `refused`, which the API has refused.

        Raises:
            TokenRejectedError: the server blames the client's configuration.
            TokenUnavailableError: the server cannot be reached, is in trouble or makes no sense.
        """


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token with its times: requested, old (to be renewed, still served) and expired (never served)."""

    token: AccessToken
    requested_at: float
    old_at: float
    expires_at: float


def hold(
    token: AccessToken, requested_at: float, *, leeway: float, default_lifetime: float, jitter: float
) -> HeldToken:
    """Return the token with its times, counted from before its request was sent.

    It is old `leeway` seconds before it expires (0.4 of its lifetime at most), or `refresh_in` seconds after the
    request if that is sooner; earlier by up to a quarter of the leeway, by `jitter` in [0, 1), and never in the first
    tenth of its lifetime. `default_lifetime` (s) counts if the server named none.
    """
    lifetime = token.lifetime(default_lifetime)
    leeway = min(leeway, lifetime * _LEEWAY_FRACTION)
    fresh_for = min(lifetime - leeway, math.inf if token.refresh_in is None else token.refresh_in)
    fresh_for = max(fresh_for - leeway * _JITTER_FRACTION * jitter, lifetime * _FRESH_FRACTION)
    return HeldToken(token, requested_at, requested_at + fresh_for, requested_at + lifetime)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff: steps double from `first` up to `maximum` seconds. `jitter` returns a number in [0, 1)."""

    first: float = 1.0
    maximum: float = 30.0
    jitter: Callable[[], float] = random.random

    def step(self, failures: int, *, is_rejected: bool = False) -> float:
        """Return the seconds to wait after so many failures in a row (from 1): the step less up to half of it."""
        maximum = min(self.maximum, _REJECTED_MAXIMUM) if is_rejected else self.maximum
        # 2 ** 1023 is the largest power a float holds; the steps have long reached their maximum.
        return min(maximum, self.first * 2.0 ** min(failures - 1, 1000)) * (1 - self.jitter() / 2)


class NegativeCache:
    """Remembers the last failure until the next token request may begin."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self.clear()

    def clear(self) -> None:
        """Forget the failure: a token request has succeeded."""
        self._failures = 0
        self._failure: RelayError | None = None
        self._until = -math.inf

    def add(self, failure: RelayError, now: float, *, latest: float = math.inf) -> None:
        """Hold token requests back for a step, at least for the failure's Retry-After, but at most until `latest`."""
        self._failures += 1
        step = self._backoff.step(self._failures, is_rejected=isinstance(failure, TokenRejectedError))
        floor = (failure.retry_after or 0.0) if isinstance(failure, TokenError) else 0.0
        self._failure = failure
        self._until = max(self._until, min(now + max(step, min(floor, _RETRY_AFTER_MAXIMUM)), latest))

    def answer(self, now: float) -> RelayError | None:
        """Return the error that stands for a token request now, None if one may begin."""
        return None if self._failure is None or now >= self._until else self.for_one_caller(self._failure, now)

    def for_one_caller(self, failure: RelayError, now: float) -> RelayError:
        """Return a copy to raise: one error raised in thousands of callers would collect the traceback of each.

        The `retry_after` of a TokenError becomes the time until the next token request may begin.
        """
        copy = type(failure).__new__(type(failure), *failure.args)
        vars(copy).update(vars(failure))
        copy.__cause__ = failure.__cause__
        if isinstance(copy, TokenError):
            copy.retry_after = max(0.0, self._until - now)
        return copy


@dataclass(slots=True)
class _Refusal:
    times: int
    until: float  # it must not be tried again before
    expires_at: float


class RefusedTokens:
    """Remembers the tokens that the API has refused, and paces their renewal.

    A refusal may be a stray one, and an endpoint with a cache issues the same token again: it may be tried again after
    a backoff step, which doubles with each refusal. `to_replace` is the refused token for which no other has come yet,
    `due` the time of the next renewal.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._in_a_row = 0
        self._refusals: dict[str, _Refusal] = {}
        # Since when the tokens in use have not been refused; infinity while there is none, or none but refused ones.
        self._unrefused_since = math.inf
        self.due = -math.inf
        self.to_replace: AccessToken | None = None

    def add(self, token: AccessToken, now: float, expires_at: float) -> None:
        """Note that the API has refused a token. Several refusals before it may be tried again count as one."""
        self._refusals = {value: known for value, known in self._refusals.items() if now < known.expires_at}
        known = self._refusals.get(token.value)
        if known is None or now >= known.until:
            times = 1 if known is None else known.times + 1
            self._refusals[token.value] = _Refusal(times, now + self._backoff.step(times), expires_at)

    def add_held(self, held: HeldToken, now: float, *, was_accepted: bool) -> None:
        """Note that the API has refused the token in use, which `was_accepted` before.

        After two renewals in a row the next is due a backoff step after the last token request. The step doubles until
        a token is accepted. The row ends when no token was refused for longer than the longest step.
        """
        self.add(held.token, now, held.expires_at)
        if self.to_replace is not None and self.to_replace.value == held.token.value:  # its renewal is on its way
            return
        self.to_replace = held.token
        if now - self._unrefused_since > self._backoff.maximum:
            self._in_a_row = 0
        self._in_a_row += 1
        if was_accepted:
            self._in_a_row = min(self._in_a_row, _FREE_RENEWALS + 1)
        self._unrefused_since = math.inf
        too_many = self._in_a_row - _FREE_RENEWALS
        if too_many > 0:
            self.due = max(self.due, held.requested_at + self._backoff.step(too_many))

    def add_reissued(self, token: AccessToken) -> None:
        """Note that the endpoint has issued a refused token again; the next renewal is due when it may be tried."""
        self.to_replace = token
        self.due = max(self.due, self._refusals[token.value].until)

    def replace(self, now: float) -> None:
        """Note that a token is in use that the API has not refused."""
        self.to_replace = None
        self._unrefused_since = min(self._unrefused_since, now)

    def values(self, now: float) -> frozenset[str]:
        """Return the values that must not be tried again yet."""
        return frozenset(value for value, known in self._refusals.items() if now < min(known.until, known.expires_at))
