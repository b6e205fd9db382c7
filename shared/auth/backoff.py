"""What has gone wrong lately, and for how long that holds token requests back. Times are seconds of one clock."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import TokenRejectedError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.auth.access_token import AccessToken, HeldToken
    from shared.errors import RelayError

# So many refusals in a row are answered at once; then the API has another problem than its token.
_FREE_RENEWALS = 2


@dataclass(frozen=True, slots=True)
class Backoff:
    """Bounds of the exponential backoff, in seconds.

    Steps double from `first` up to `maximum`. They stop at `rejected_maximum` where the server refuses the client:
    settings that someone has just mended must work soon. A Retry-After is a floor, believed up to
    `retry_after_maximum`: a nonsensical one must not silence the app for days. `jitter` gives a number in [0, 1).
    """

    first: float = 1.0
    maximum: float = 30.0
    rejected_maximum: float = 5.0
    retry_after_maximum: float = 3600.0
    jitter: Callable[[], float] = random.random

    def step(self, failures: int, *, is_rejected: bool = False) -> float:
        """Give the seconds to wait after so many failures in a row (from 1): the step less up to half of it."""
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
        retry_after = failure.retry_after if isinstance(failure, TokenUnavailableError) else None
        floor = min(retry_after or 0.0, self._backoff.retry_after_maximum)
        self.hold(failure, min(now + max(step, floor), latest))

    def hold(self, failure: RelayError, until: float) -> None:
        """Answer with this failure until then, or longer if token requests are held back for longer already."""
        self._failure = failure
        self._until = max(self._until, until)

    def clear(self) -> None:
        """Forget the failure: a token request has succeeded."""
        self._failures = 0
        self._failure = None
        self._until = -math.inf

    def answer(self, now: float) -> RelayError | None:
        """Give the error that stands for a token request now, None where one may begin."""
        return None if self._failure is None or now >= self._until else self.for_one_caller(self._failure, now)

    def for_one_caller(self, failure: RelayError, now: float) -> RelayError:
        """Give a copy to raise: one error raised in thousands of callers would collect the traceback of each.

        Its `retry_after`, where the kind of error has one, is the time until the next token request may begin.
        """
        copy = type(failure).__new__(type(failure), *failure.args)
        vars(copy).update(vars(failure))
        copy.__cause__ = failure.__cause__
        if isinstance(copy, TokenUnavailableError):
            copy.retry_after = max(0.0, self._until - now)
        return copy


class RefusedTokens:
    """Remembers each refused token for as long as it would have lived: a second cache may answer with it until then.

    `to_replace` is the refused token for which no other has come yet.
    """

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._in_a_row = 0
        self._until: dict[str, float] = {}
        # Since when the tokens in use have not been refused; infinity while there is none, or none but refused ones.
        self._unrefused_since = math.inf
        self.to_replace: AccessToken | None = None

    def add(self, token: AccessToken, now: float, until: float) -> None:
        """Note that the API has refused a token, which would live until then; the first to say so is believed."""
        self._until = {value: end for value, end in self._until.items() if now < end}
        self._until.setdefault(token.value, until)

    def add_held(self, held: HeldToken, now: float) -> float:
        """Note that the API has refused the token in use; give when another may be requested, to be used at once.

        Two refusals in a row are free. After that, from one token request to the next, there is at least a backoff
        step. The row ends where no token was refused for longer than the longest step.
        """
        self.add(held.token, now, held.expires_at)
        self.to_replace = held.token
        if now - self._unrefused_since > self._backoff.maximum:
            self._in_a_row = 0
        self._in_a_row += 1
        self._unrefused_since = math.inf
        too_many = self._in_a_row - _FREE_RENEWALS
        return held.requested_at + self._backoff.step(too_many) if too_many > 0 else now

    def replace(self, now: float) -> None:
        """Note that a token is in use that the API has not refused."""
        self.to_replace = None
        self._unrefused_since = min(self._unrefused_since, now)

    def values(self, now: float) -> frozenset[str]:
        """Give the values that must not be given out."""
        return frozenset(value for value, end in self._until.items() if now < end)
