"""How long to leave a token endpoint alone after a failure, and what its callers are told meanwhile."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import TokenRejectedError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.errors import RelayError


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

    def step(self, failures: int) -> float:
        """Give the seconds to wait after so many failures in a row (from 1): the step less up to half of it."""
        # 2 ** 1023 is the largest power a float holds; the steps have long reached their maximum.
        return min(self.maximum, self.first * 2.0 ** min(failures - 1, 1000)) * (1 - self.jitter() / 2)


class NegativeCache:
    """Remembers the last failure until the next token request may begin. Times are seconds of the provider's clock."""

    def __init__(self, backoff: Backoff) -> None:
        self._backoff = backoff
        self._failures = 0
        self._failure: RelayError | None = None
        self._until = -math.inf

    def add(self, failure: RelayError, now: float, *, latest: float = math.inf) -> None:
        """Hold token requests back for a step, at most until `latest`, at least for the failure's Retry-After."""
        self._failures += 1
        step = self._backoff.step(self._failures)
        if isinstance(failure, TokenRejectedError):
            step = min(step, self._backoff.rejected_maximum)
        retry_after = failure.retry_after if isinstance(failure, TokenUnavailableError) else None
        floor = min(retry_after or 0.0, self._backoff.retry_after_maximum)
        self.hold(failure, max(min(now + step, latest), now + floor))

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
