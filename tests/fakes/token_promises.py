"""What a TokenProvider promises, said a second time: when it may request a token, which one it holds, what it tells.

It sees what happens (token requests, their outcomes, refusals) and no state of the provider. Times are seconds; there
is no jitter, a token without expires_in lives for 300 s, the leeway is 60 s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.errors import TokenRejectedError, TokenUnavailableError

if TYPE_CHECKING:
    from shared.auth.access_token import AccessToken

ROUNDING = 1e-6


@dataclass(frozen=True)
class Life:
    """A token from its request on: when it is old, and when it ends."""

    value: str
    began: float
    old: float
    end: float


@dataclass
class TokenPromises:
    """`broken` has a sentence for each promise that was not kept; `first_step` is that of the backoff."""

    first_step: float = 1.0
    held: Life | None = None
    not_before: float = -math.inf
    refused_until: dict[str, float] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    _to_replace: str | None = None
    _failures: int = 0
    _refusals: int = 0
    _unrefused_since: float = math.inf
    _began: float = 0.0
    _ahead_of: Life | None = None
    _known: frozenset[str] = frozenset()

    def live(self, now: float) -> Life | None:
        return self.held if self.held is not None and now < self.held.end else None

    def refused(self, now: float) -> frozenset[str]:
        return frozenset(value for value, end in self.refused_until.items() if now < end)

    def must_request(self, now: float) -> bool:
        """Whether a call now, while no request is under way, begins one."""
        live = self.live(now)
        return now >= self.not_before and (live is None or now >= live.old)

    def begin(self, told: AccessToken | None, now: float) -> None:
        """A token request begins; its grant is told of a refused token."""
        live = self.live(now)
        if now < self.not_before - ROUNDING:
            self.broken.append(f"a request at {now}, not allowed before {self.not_before}")
        if live is not None and now < live.old - ROUNDING:
            self.broken.append(f"a request at {now} for a token that is not old before {live.old}")
        if (None if told is None else told.value) != self._to_replace:
            self.broken.append(f"the grant was told {told and told.value}, refused is {self._to_replace}")
        self._began, self._ahead_of, self._known = now, live, self.refused(now)

    def fail(self, failure: BaseException, now: float) -> None:
        """The request has failed: the next one waits for a step and for Retry-After, but not if the token expires."""
        self._failures += 1
        longest = 5.0 if isinstance(failure, TokenRejectedError) else 30.0
        wait = min(longest, self.first_step * 2.0 ** (self._failures - 1))
        if isinstance(failure, TokenUnavailableError):
            wait = max(wait, failure.retry_after or 0.0)
        latest = math.inf if self._ahead_of is None else self._ahead_of.end
        self.not_before = max(self.not_before, min(now + wait, latest))

    def succeed(self, token: AccessToken, now: float) -> None:
        """The request has brought a token, which may be of no use."""
        lifetime = self.lifetime(token)
        fresh = min(lifetime - min(60.0, 0.4 * lifetime), math.inf if token.refresh_in is None else token.refresh_in)
        life = Life(token.value, self._began, self._began + max(fresh, 0.1 * lifetime), self._began + lifetime)
        if now >= life.end:
            self.fail(ValueError("expired"), now)
        elif token.value not in self.refused(now):
            self.held, self._to_replace = life, None
            self._failures, self.not_before = 0, -math.inf
            self._unrefused_since = min(self._unrefused_since, now)
        else:
            self._to_replace = token.value
            if token.value in self._known:
                self.fail(ValueError("refused again"), now)

    def refuse(self, token: AccessToken, now: float) -> None:
        """The API refuses a token: the third time in a row holds requests back, unless the last time is long ago."""
        held = self.held
        is_held = held is not None and held.value == token.value
        end = held.end if held is not None and is_held else now + self.lifetime(token)
        if token.value not in self.refused(now):
            self.refused_until[token.value] = end
        if held is None or is_held:
            self._to_replace = token.value
        if held is not None and is_held:
            self.held = None
            self._refusals = 1 if now - self._unrefused_since > 30.0 else self._refusals + 1
            self._unrefused_since = math.inf
            if self._refusals > 2:
                step = min(30.0, self.first_step * 2.0 ** (self._refusals - 3))
                self.not_before = max(self.not_before, held.began + step)

    def give(self, token: AccessToken, now: float) -> None:
        """A caller is given a token."""
        live = self.live(now)
        if live is None or live.value != token.value:
            self.broken.append(f"{token.value} was given at {now}, there was {live}")
        if token.value in self.refused(now):
            self.broken.append(f"{token.value} was given, which the API has refused")

    def deny(self, error: Exception, now: float) -> None:
        """A caller is given an error instead: only where nothing can be had now, with the time to come back."""
        if self.live(now) is not None or now >= self.not_before:
            self.broken.append(f"a call failed at {now} with {error!r}, for no reason since {self.not_before}")
        elif isinstance(error, TokenUnavailableError) and not math.isclose(
            error.retry_after or 0.0, self.not_before - now, abs_tol=ROUNDING
        ):
            self.broken.append(f"at {now} retry_after is {error.retry_after}, requests may begin at {self.not_before}")

    @staticmethod
    def lifetime(token: AccessToken) -> float:
        return 300.0 if token.expires_in is None else min(token.expires_in, 30 * 86_400.0)
