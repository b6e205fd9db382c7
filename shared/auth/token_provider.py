"""TokenProvider: the access token of one client, cached, requested once for all who wait, renewed before it expires.

Times are seconds. A token is fresh, then old (it is renewed in the background and still handed out), then expired.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError
from shared.telemetry import PARTNER, TOKEN_REQUEST_DURATION, TOKEN_TIME_TO_EXPIRY, Telemetry, process_telemetry

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.auth.token_endpoint import AccessToken

logger = logging.getLogger(__name__)

# Nothing lives longer here, whatever the server says: a token for years is a slip, or a time of day for a duration.
_LONGEST_LIFETIME = 30 * 86_400.0
# Parts of a lifetime: the most of a short one that is leeway, and the first one, in which nothing makes a token old.
_LEEWAY_FRACTION, _FRESH_FRACTION = 0.4, 0.1
# Renewal comes earlier by up to this part of the leeway, so that the processes of an app do not renew in step.
_JITTER_FRACTION = 0.25
_FIRST_STEP, _LONGEST_STEP = 1.0, 30.0
# Settings that someone has just mended must work soon, and a nonsensical Retry-After must not last for days.
_LONGEST_REJECTED, _LONGEST_RETRY_AFTER = 5.0, 3600.0
# So many refusals in a row are answered at once; after that the API has another problem than its token.
_FREE_RENEWALS = 2
# The part of the request timeout for which a caller waits until a renewal is due; the rest is for the renewal.
_PATIENCE = 0.5


@dataclass(slots=True)
class HeldToken:
    """A token with the times at which it becomes old and expires, and whether the API has accepted it."""

    token: AccessToken
    old_at: float
    expires_at: float
    is_accepted: bool = False


def hold(
    token: AccessToken, requested_at: float, *, leeway: float, default_lifetime: float, jitter: float
) -> HeldToken:
    """Return the token with its times, counted from before its request was sent.

    It is old `leeway` seconds before it expires, or `refresh_in` seconds after the request if that is sooner; earlier
    by a part `jitter` in [0, 1). `default_lifetime` (s) counts if the server named none.
    """
    lifetime = min(default_lifetime if token.expires_in is None else token.expires_in, _LONGEST_LIFETIME)
    leeway = min(leeway, lifetime * _LEEWAY_FRACTION)
    fresh_for = min(lifetime - leeway, math.inf if token.refresh_in is None else token.refresh_in)
    fresh_for = max(fresh_for - leeway * _JITTER_FRACTION * jitter, lifetime * _FRESH_FRACTION)
    return HeldToken(token, requested_at + fresh_for, requested_at + lifetime)


def backoff(failures: int, jitter: float, longest: float = _LONGEST_STEP) -> float:
    """Return the seconds to wait after so many failures in a row (from 1): 1, 2, 4 … `longest`, less up to half."""
    # 2 ** 1023 is the largest power a float holds; the steps have long reached their maximum.
    return min(longest, _FIRST_STEP * 2.0 ** min(failures - 1, 1000)) * (1 - jitter / 2)


class TokenProvider:
    """Hands out the access token of one grant, on one event loop; at most one token request is under way.

    Each call of `grant` is one token request; it raises TokenError if there is no token. `leeway` seconds before its
    expiry a token is old, `default_lifetime` counts if the server names none, `request_timeout` ends one token request
    for all who wait. `clock` is monotonic, `jitter` returns a number in [0, 1), `client` names the API client in logs
    and metrics.

    It never hands out an expired token, nor a refused one before its backoff step is over. The refusal of a token that
    the API has accepted may be a stray one: it serves the other callers until its renewal. Every coroutine may be
    cancelled: that ends the wait, never the token request.
    """

    def __init__(  # noqa: PLR0913, each has a default; time and chance are arguments, so that no test needs a patch
        self,
        grant: Callable[[], Awaitable[AccessToken]],
        *,
        client: str = "",
        leeway: float = 60.0,
        default_lifetime: float = 300.0,
        request_timeout: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._grant = grant
        self._attributes, self._fields = {PARTNER: client}, {"client": client}
        self._leeway, self._default_lifetime = leeway, default_lifetime
        self._request_timeout = request_timeout
        self._clock, self._jitter = clock, jitter
        self._telemetry = telemetry or process_telemetry()
        self._counts = self._telemetry.token_counts(client)
        self._held: HeldToken | None = None
        self._request: asyncio.Task[None] | None = None
        self._is_closed = False
        # The last failure in a row of so many, which stands for every token request until a time.
        self._failure: TokenError = TokenUnavailableError("none was requested")
        self._failures = 0
        self._failing_until = -math.inf
        # The API's refusals in a row, the values not to be handed out again before a time, whether no other token has
        # come since the last, and when its renewal is due.
        self._refusals = 0
        self._refused: dict[str, float] = {}
        self._is_refused = False
        self._due = -math.inf

    async def get_token(self) -> AccessToken:
        """Return a live token; wait for one token request if there is none.

        Raises:
            TokenError: no token can be had now; `retry_after` is when it is worth asking again.
        """
        return self.cached() or await self._wait_for_token()

    def cached(self) -> AccessToken | None:
        """Return the live token, None if there is none; never waits. An old one is renewed in the background."""
        held = self._held
        if held is None:
            return None
        now = self._clock()
        if now >= held.old_at:
            if now >= held.expires_at:
                return None
            is_requesting = self._request is not None and not self._request.done()
            if not is_requesting and not self._is_closed and now >= max(self._due, self._failing_until):
                self._begin(now)
        self._counts["hit"] += 1
        return held.token

    def accept(self, token: AccessToken) -> None:
        """Note that the API has accepted a request with this token."""
        if self._held is not None and self._held.token is token:
            self._held.is_accepted = True

    async def renew(self, refused: AccessToken) -> AccessToken:
        """Return a live token instead of the one that the API has refused; wait until its renewal is due.

        It is the same token if the endpoint issues it again, after a backoff step.

        Raises:
            TokenError: no other token can be had now, or the next renewal is due later than half the request timeout,
                because the API has refused several fresh tokens in a row.
        """
        self.refuse(refused)
        return await self._wait_for_token(refused.value)

    def refuse(self, refused: AccessToken) -> None:
        """Note that the API has refused this token.

        After two renewals in a row the next is due a backoff step later. The step doubles until a token is accepted.
        The row ends when no token is refused for longer than the longest step after a renewal was due.
        """
        now, held = self._clock(), self._held
        self._refused = {value: until for value, until in self._refused.items() if now < until}
        if held is not None and held.token.value == refused.value:
            if not self._is_refused:  # else its renewal is on its way
                if now - self._due > _LONGEST_STEP:
                    self._refusals = 0
                self._refusals = min(self._refusals, _FREE_RENEWALS) + 1 if held.is_accepted else self._refusals + 1
                too_many = self._refusals - _FREE_RENEWALS
                self._due = max(self._due, now + (backoff(too_many, self._jitter()) if too_many > 0 else 0.0))
            if held.is_accepted:
                held.is_accepted, held.old_at = False, min(held.old_at, now)
            else:
                self._held = None
            self._is_refused = True
        elif held is None:
            self._is_refused = True
        # It may have been a stray refusal: the endpoint may issue the same token again, if not at once.
        self._refused.setdefault(refused.value, now + backoff(max(1, self._refusals), self._jitter()))

    async def aclose(self) -> None:
        """End the token request under way and begin no other; who waits gets TokenUnavailableError. Repeatable."""
        self._is_closed = True
        if self._request is not None and not self._request.done():
            self._request.cancel()
            await asyncio.wait([self._request])

    async def _wait_for_token(self, unwanted: str | None = None) -> AccessToken:
        patience_ends = self._clock() + self._request_timeout * _PATIENCE
        while True:
            now, held, request = self._clock(), self._held, self._request
            if held is not None and now < held.expires_at:
                value = held.token.value
                if value != unwanted or now >= self._refused.get(value, now):
                    return held.token
            if request is not None and not request.done():
                self._counts["joined"] += 1
            elif self._is_closed:
                raise TokenUnavailableError("the token provider is closed")
            elif now < self._failing_until:
                raise _for_one_caller(self._failure, self._failing_until - now)
            elif self._due > patience_ends:
                reason = "the API refuses each access token that it is given"
                raise TokenUnavailableError(reason, retry_after=self._due - now)
            else:
                request = self._begin(now)
            await asyncio.wait([request])  # which neither ends with its waiters nor ends them

    def _begin(self, now: float) -> asyncio.Task[None]:
        """Begin a token request. The loop itself keeps no strong reference to its task: the provider does."""
        self._request = asyncio.create_task(self._request_token(self._due - now), name="token request")
        return self._request

    async def _request_token(self, delay: float) -> None:
        """Request a token after `delay` seconds, and keep it or its failure."""
        if delay > 0:
            await asyncio.sleep(delay)
        began_at = max(self._clock(), self._due)
        live = self._held if self._held is not None and began_at < self._held.expires_at else None
        outcome: AccessToken | TokenError
        try:
            # One ahead of the old token's end delays nobody: it begins a trace of its own.
            is_ahead = live is not None and not self._is_refused
            with self._telemetry.span("request access token", self._attributes, is_detached=is_ahead) as span:
                async with asyncio.timeout(self._request_timeout):
                    outcome = await self._grant()
                if outcome.is_shared:
                    span.update_name("take shared access token")
        except TokenError as exc:
            outcome = exc
        except TimeoutError:
            outcome = TokenUnavailableError(f"the token endpoint did not answer within {self._request_timeout:g} s")
        except asyncio.CancelledError:
            outcome = TokenUnavailableError("the token request was cancelled")
        except Exception as exc:  # noqa: BLE001, whatever it is fails those who wait, without its text: it may hold a secret
            outcome = TokenUnavailableError(f"the token request failed with {type(exc).__name__}")
            outcome.__cause__ = exc
        now = max(self._clock(), began_at)
        if not isinstance(outcome, TokenError) and outcome.is_shared:
            self._counts["shared"] += 1
        else:
            self._counts["requested"] += 1
            self._telemetry.record(TOKEN_REQUEST_DURATION, now - began_at, self._attributes)
        if isinstance(outcome, TokenError):
            self._fail(outcome, live, now)
        else:
            times = {"leeway": self._leeway, "default_lifetime": self._default_lifetime, "jitter": self._jitter()}
            self._receive(hold(outcome, began_at, **times), live, now)

    def _receive(self, held: HeldToken, live: HeldToken | None, now: float) -> None:
        """Take a token, unless it has expired or is refused."""
        until = self._refused.pop(held.token.value, now)
        if not now < held.expires_at:
            self._fail(TokenUnavailableError("the access token had expired when it arrived"), live, now)
        elif now < until:
            self._counts["failed"] += 1
            self._refused[held.token.value] = until
            self._is_refused, self._due = True, max(self._due, until)
            logger.warning("token endpoint issued a refused access token again", extra=self._fields)
        else:
            if self._held is not None:
                left = max(0.0, self._held.expires_at - now)
                self._telemetry.record(TOKEN_TIME_TO_EXPIRY, left, self._attributes)
            if self._is_refused:
                self._counts["renewed_after_refusal"] += 1
                logger.info("access token renewed after a refusal", extra=self._fields)
            self._held, self._is_refused = held, False
            self._failures, self._failing_until = 0, -math.inf

    def _fail(self, failure: TokenError, live: HeldToken | None, now: float) -> None:
        """Hold token requests back for a step, at least for the failure's Retry-After."""
        self._counts["failed"] += 1
        self._failures += 1
        is_rejected = isinstance(failure, TokenRejectedError)
        step = backoff(self._failures, self._jitter(), _LONGEST_REJECTED if is_rejected else _LONGEST_STEP)
        until = now + max(step, min(failure.retry_after or 0.0, _LONGEST_RETRY_AFTER))
        # When the live token has expired, a caller gets a try of its own, even before a Retry-After is over.
        self._failing_until = until if live is None else min(until, live.expires_at)
        self._failure = failure
        if self._is_closed:
            return
        fields = self._fields | {"reason": str(failure)}
        if is_rejected:
            logger.error("token endpoint refused the client, check its settings", extra=fields)
        else:
            logger.warning("token request failed", extra=fields)


def _for_one_caller(failure: TokenError, wait: float) -> TokenError:
    """Return a copy to raise: one error raised in thousands of callers would collect the traceback of each."""
    copy = type(failure).__new__(type(failure), *failure.args)
    vars(copy).update(vars(failure), retry_after=wait)
    copy.__cause__ = failure.__cause__
    return copy
