"""TokenProvider: the access token of one client, cached, requested once for all who wait, renewed before it expires."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from shared.auth.access_token import Backoff, NegativeCache, RefusedTokens, hold
from shared.errors import RelayError, TokenRejectedError, TokenUnavailableError
from shared.telemetry import PARTNER, TOKEN_REQUEST_DURATION, TOKEN_TIME_TO_EXPIRY, Telemetry, process_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.auth.access_token import AccessToken, HeldToken, TokenGrant

logger = logging.getLogger(__name__)

# The part of the request timeout for which a caller waits until a renewal is due; the rest is for the renewal.
_PATIENCE = 0.5


@dataclass(slots=True)
class _Flight:
    """One token request under way; any number of callers wait for `landed`, and none of them can end it.

    `ahead_of` is the live token that was there when it began; `refused` are the values known to be refused by then.
    `failure` is for those who wait; it stays None if another request may do better at once.
    """

    began_at: float
    ahead_of: HeldToken | None
    refused: frozenset[str]
    landed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: RelayError | None = None
    task: asyncio.Task[AccessToken] | None = None


class TokenProvider:
    """Hands out the access token of one grant; at most one token request is under way, whatever the load.

    Times are seconds: `leeway` before expiry a token is old, `default_lifetime` counts if the server names none,
    `request_timeout` ends one token request for all who wait. `clock` is monotonic, `jitter` returns a number in [0,
    1), `client` names the API client in logs and metrics.

    A provider belongs to the event loop of its first token request. It never hands out an expired token, nor a refused
    one before its backoff step is over. The refusal of a token that the API has accepted may be a stray one: it serves
    the other callers until its renewal. Every coroutine may be cancelled: that ends the wait, never the token request.
    """

    def __init__(  # noqa: PLR0913, each has a default; time and chance are arguments, so that no test needs a patch
        self,
        grant: TokenGrant,
        *,
        client: str = "",
        leeway: float = 60.0,
        default_lifetime: float = 300.0,
        request_timeout: float = 10.0,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._grant = grant
        self._attributes = {PARTNER: client}
        self._fields = {"client": client}
        self._leeway = leeway
        self._default_lifetime = default_lifetime
        self._request_timeout = request_timeout
        self._clock = clock
        self._jitter = jitter
        self._telemetry = telemetry or process_telemetry()
        self._counts = self._telemetry.token_counts(client)
        backoff = backoff or Backoff()
        self._negative_cache = NegativeCache(backoff)
        self._refused = RefusedTokens(backoff)
        self._held: HeldToken | None = None
        self._is_accepted = False
        self._flight: _Flight | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = asyncio.Event()

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
            if self._flight is None and now >= self._refused.due and self._obstacle(now) is None:
                self._begin(now)
        self._counts.hit += 1
        return held.token

    def accept(self, token: AccessToken) -> None:
        """Note that the API has accepted a request with this token."""
        if self._held is not None and self._held.token is token:
            self._is_accepted = True

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
        """Note that the API has refused this token."""
        now, held = self._clock(), self._held
        if held is None or held.token.value != refused.value:
            self._refused.add(refused, now, now + refused.lifetime(self._default_lifetime))
            if held is None:
                self._refused.to_replace = refused
            return
        self._refused.add_held(held, now, was_accepted=self._is_accepted)
        self._held = replace(held, old_at=min(held.old_at, now)) if self._is_accepted else None
        self._is_accepted = False

    async def aclose(self) -> None:
        """End the token request under way and begin no other; who waits gets TokenUnavailableError. Repeatable."""
        self._closed.set()
        flight = self._flight
        if flight is not None and flight.task is not None:
            self._check_loop()
            flight.task.cancel()
            await flight.landed.wait()

    async def _wait_for_token(self, unwanted: str | None = None) -> AccessToken:
        self._check_loop()
        patience_ends = self._clock() + self._request_timeout * _PATIENCE
        while True:
            now, held = self._clock(), self._held
            if held is not None and now < held.expires_at:
                value = held.token.value
                if value != unwanted or value not in self._refused.values(now):
                    return held.token
            flight = self._flight
            if flight is not None:
                self._counts.joined += 1
            elif obstacle := self._obstacle(now):
                raise obstacle
            elif self._refused.due > now:
                await self._wait_until_due(now, patience_ends)
                continue
            else:
                flight = self._begin(now)
            await flight.landed.wait()
            if flight.failure is not None:
                raise self._negative_cache.for_one_caller(flight.failure, self._clock())

    async def _wait_until_due(self, now: float, patience_ends: float) -> None:
        wait = self._refused.due - now
        if self._refused.due > patience_ends:
            raise TokenUnavailableError("the API refuses each access token that it is given", retry_after=wait)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._closed.wait()

    def _obstacle(self, now: float) -> RelayError | None:
        """Return the reason why no token request may begin now, None if one may."""
        if self._closed.is_set():
            return TokenUnavailableError("the token provider is closed")
        return self._negative_cache.answer(now)

    def _begin(self, now: float) -> _Flight:
        self._check_loop()
        live = self._held if self._held is not None and now < self._held.expires_at else None
        flight = self._flight = _Flight(now, live, self._refused.values(now))
        # The loop itself keeps no strong reference to a task: the provider holds the flight, the flight the task.
        refused = self._refused.to_replace
        request = self._request(refused, is_ahead=live is not None and refused is None)
        flight.task = asyncio.create_task(request, name="token request")
        # A callback, because a task that is cancelled before its first step runs none of its own code.
        flight.task.add_done_callback(lambda task: self._land(flight, _outcome(task)))
        return flight

    async def _request(self, refused: AccessToken | None, *, is_ahead: bool) -> AccessToken:
        """Request a token. One ahead of the old token's end delays nobody: it begins a trace of its own."""
        with self._telemetry.span("request access token", self._attributes, is_detached=is_ahead) as span:
            try:
                async with asyncio.timeout(self._request_timeout):
                    token = await self._grant.request_token(refused)
            except TimeoutError as exc:
                raise TokenUnavailableError(
                    f"the token endpoint did not answer within {self._request_timeout:g} s"
                ) from exc
            if token.is_shared:
                span.update_name("take shared access token")
        return token

    def _land(self, flight: _Flight, outcome: AccessToken | RelayError) -> None:
        self._flight = None
        now = self._clock()
        if not isinstance(outcome, RelayError) and outcome.is_shared:
            self._counts.shared += 1
        else:
            self._counts.requested += 1
            self._telemetry.record(TOKEN_REQUEST_DURATION, now - flight.began_at, self._attributes)
        if isinstance(outcome, RelayError):
            self._fail(flight, outcome, now)
        else:
            self._receive(flight, outcome, now)
        flight.landed.set()

    def _receive(self, flight: _Flight, token: AccessToken, now: float) -> None:
        """Take a token, unless it has expired or is refused. Its lifetime counts from before its request was sent."""
        times = {"leeway": self._leeway, "default_lifetime": self._default_lifetime, "jitter": self._jitter()}
        held = hold(token, flight.began_at, **times)
        if not now < held.expires_at:
            self._fail(flight, TokenUnavailableError("the access token had expired when it arrived"), now)
        elif token.value not in self._refused.values(now):
            self._take(held, now)
        elif token.value in flight.refused:
            self._counts.failed += 1
            self._refused.add_reissued(token)
            logger.warning("token endpoint issued a refused access token again", extra=self._fields)
        else:
            # Refused while the request was under way: the next one tells the grant.
            self._refused.to_replace = token

    def _take(self, held: HeldToken, now: float) -> None:
        if self._held is not None:
            self._telemetry.record(TOKEN_TIME_TO_EXPIRY, max(0.0, self._held.expires_at - now), self._attributes)
        if self._refused.to_replace is not None:
            self._counts.renewed_after_refusal += 1
            logger.info("access token renewed after a refusal", extra=self._fields)
        self._held = held
        self._is_accepted = False
        self._refused.replace(now)
        self._negative_cache.clear()

    def _fail(self, flight: _Flight, failure: RelayError, now: float) -> None:
        self._counts.failed += 1
        if flight.ahead_of is None:
            self._negative_cache.add(failure, now)
            flight.failure = failure
        else:
            # When the old one has expired, a caller gets a try of its own, even before a Retry-After is over.
            self._negative_cache.add(failure, now, latest=flight.ahead_of.expires_at)
        if self._closed.is_set():
            return
        fields = self._fields | {"reason": str(failure)}
        if isinstance(failure, TokenRejectedError):
            logger.error("token endpoint refused the client, check its settings", extra=fields)
        else:
            logger.warning("token request failed", extra=fields)

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("a TokenProvider belongs to the event loop of its first token request")


def _outcome(task: asyncio.Task[AccessToken]) -> AccessToken | RelayError:
    """Return what a finished task brought; of an error that is not ours only the type, its text may hold a secret."""
    if task.cancelled():
        return TokenUnavailableError("the token request was cancelled")
    error = task.exception()
    if error is None:
        return task.result()
    if isinstance(error, RelayError):
        return error
    failure = TokenUnavailableError(f"the token request failed with {type(error).__name__}")
    failure.__cause__ = error
    return failure
