"""What has gone wrong lately, and how long it holds token requests back. Times are seconds of one clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import TokenError, TokenRejectedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.auth.access_token import AccessToken, HeldToken
    from shared.errors import RelayError

# So many refusals in a row are answered at once; after that the API has another problem than its token.
_FREE_RENEWALS = 2


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the exponential backoff, in seconds.

    Steps double from `first` up to `maximum`, or up to `rejected_maximum` if the server blames the client: settings
    that someone has just mended must work soon. A Retry-After is a floor, up to `retry_after_maximum`: a nonsensical
    one must not silence the app for days. `jitter` returns a number in [0, 1).
    """

    first: float = 1.0
    maximum: float = 30.0
    rejected_maximum: float = 5.0
    retry_after_maximum: float = 3600.0
    jitter: Callable[[], float] = random.random

    def step(self, failures: int, *, is_rejected: bool = False) -> float:
        """Return the seconds to wait after so many failures in a row (from 1): the step less up to half of it."""
        maximum = min(self.maximum, self.rejected_maximum) if is_rejected else self.maximum
        # 2 ** 1023 is the largest power a float holds; the steps have long reached their maximum.
        return min(maximum, self.first * 2.0 ** min(failures - 1, 1000)) * (1 - self.jitter() / 2)


class NegativeCache:
    """Remembers the last failure until the next token request may begin."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._failure: RelayError | None = None
        self._until = -math.inf

    def add(self, failure: RelayError, now: float, *, latest: float = math.inf) -> None:
        """Hold token requests back for a step, at least for the failure's Retry-After, but at most until `latest`."""
        self._failures += 1
        step = self._backoff.step(self._failures, is_rejected=isinstance(failure, TokenRejectedError))
        wished = failure.retry_after if isinstance(failure, TokenError) else None
        floor = min(wished or 0.0, self._backoff.retry_after_maximum)
        self._failure = failure
        self._until = max(self._until, min(now + max(step, floor), latest))

    def clear(self) -> None:
        """Forget the failure: a token request has succeeded."""
        self._failures = 0
        self._failure = None
        self._until = -math.inf

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
    """How often the API has refused a token, until when it must not be tried again, and when it would have expired."""

    times: int
    until: float
    expires_at: float


class RefusedTokens:
    """Remembers the tokens that the API has refused, and paces their renewal.

    A refusal may be a stray one, and an endpoint with a cache issues the same token again: after a backoff step the
    token may be tried again, after the next refusal of the same token twice as much later, and so on. `to_replace` is
    the refused token for which no other has come yet, `due` the time of the next renewal.
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

        The first two renewals in a row are due at once. The next ones are due a backoff step after the last token
        request. The step doubles as long as no token is accepted in between. The row ends once no token was refused for
        longer than the longest step.
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
