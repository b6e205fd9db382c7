"""TokenProvider: the access token of one client, cached, requested once for all who wait, renewed before it expires."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING

from shared.auth.backoff import Backoff, NegativeCache, RefusedTokens
from shared.auth.token_flight import TokenFlight, TokenRequest
from shared.errors import RelayError, TokenUnavailableError
from shared.telemetry import CLIENT, TOKEN_TIME_TO_EXPIRY, Telemetry, process_telemetry

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.auth.access_token import AccessToken, HeldToken, TokenGrant

logger = logging.getLogger(__name__)


class TokenProvider:
    """Gives the access token of one grant; at most one token request is under way, whatever the load.

    Times are seconds: `leeway` before expiry a token is old, `default_lifetime` counts where the server names none,
    `request_timeout` ends one token request for all who wait. `clock` is monotonic. `jitter` gives a number in [0, 1).
    `client` names the API client in logs and metrics.

    A provider belongs to the event loop of its first token request and is not thread-safe. An expired or refused token
    is never given out. Every coroutine may be cancelled: that ends the caller's wait, never the token request.
    """

    def __init__(  # noqa: PLR0913 - each has a default; time and chance are arguments, so that no test needs a patch
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
        self._client = client
        self._clock = clock
        self._telemetry = telemetry = process_telemetry() if telemetry is None else telemetry
        self._counts = telemetry.token_counts(client)
        self._request = TokenRequest(grant, client, request_timeout, leeway, default_lifetime, jitter, telemetry)
        self._backoff = Backoff() if backoff is None else backoff
        self._negative_cache = NegativeCache(self._backoff)
        self._refused = RefusedTokens(self._backoff)
        self._held: HeldToken | None = None
        self._flight: TokenFlight | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    async def get_token(self) -> AccessToken:
        """Give a live token; wait for one token request where there is none.

        Raises:
            TokenRejectedError: the server refuses the client.
            TokenUnavailableError: no token can be had now; `retry_after` is when it is worth asking again.
        """
        return self.cached() or await self._wait_for_token()

    def cached(self) -> AccessToken | None:
        """Give the live token, None where there is none; never waits. An old one is renewed in the background."""
        held = self._held
        if held is None:
            return None
        now = self._clock()
        if now >= held.old_at:
            if now >= held.expires_at:
                return None
            if self._flight is None and self._obstacle(now) is None:
                self._begin(now)
        self._counts.hit += 1
        return held.token

    async def renew(self, refused: AccessToken) -> AccessToken:
        """Give a live token other than the one the API has refused: the newer one if there is one, else a new one.

        Raises:
            TokenRejectedError: the server refuses the client.
            TokenUnavailableError: no other token can be had now. Also where the token endpoint answers with a refused
                token again, and where the API has refused several fresh tokens in a row: the next token request is
                then held back as after a failure.
        """
        self.refuse(refused)
        return await self._wait_for_token()

    def refuse(self, refused: AccessToken) -> None:
        """Note that the API has refused this token: it is not given out again for as long as it would have lived."""
        now, held = self._clock(), self._held
        if held is None or held.token.value != refused.value:
            self._refused.add(refused, now, now + refused.lifetime(self._request.default_lifetime))
            if held is None:
                self._refused.to_replace = refused
            return
        self._held = None
        not_before = self._refused.add_held(held, now)
        if now < not_before:
            self._negative_cache.hold(TokenUnavailableError("the API refuses fresh access tokens as well"), not_before)

    async def aclose(self) -> None:
        """End the token request under way and begin no other; who waits gets TokenUnavailableError. Repeatable."""
        self._closed = True
        if self._flight is not None:
            self._check_loop()
            await self._flight.end()

    async def _wait_for_token(self) -> AccessToken:
        self._check_loop()
        while True:
            now, held = self._clock(), self._held
            if held is not None and now < held.expires_at:
                return held.token
            flight = self._flight
            if flight is not None:
                self._counts.joined += 1
            elif obstacle := self._obstacle(now):
                raise obstacle
            else:
                flight = self._begin(now)
            await flight.landed.wait()
            if flight.failure is not None:
                raise self._negative_cache.for_one_caller(flight.failure, self._clock())

    def _obstacle(self, now: float) -> RelayError | None:
        """Give the reason why no token request may begin now, None where one may."""
        if self._closed:
            return TokenUnavailableError("the token provider is closed")
        return self._negative_cache.answer(now)

    def _begin(self, now: float) -> TokenFlight:
        self._check_loop()
        held = self._held
        ahead_of = held if held is not None and now < held.expires_at else None
        self._flight = TokenFlight(
            self._request.send(self._refused.to_replace, now, is_ahead=ahead_of is not None),
            self._land,
            ahead_of=ahead_of,
            refused=self._refused.values(now),
        )
        return self._flight

    def _land(self, flight: TokenFlight, outcome: HeldToken | RelayError) -> None:
        self._flight = None
        now = self._clock()
        if not isinstance(outcome, RelayError) and outcome.token.is_shared:
            self._counts.shared += 1
        else:
            self._counts.requested += 1
        if isinstance(outcome, RelayError):
            self._fail(flight, outcome, now)
        elif not now < outcome.expires_at:
            self._fail(flight, TokenUnavailableError("the access token had expired when it arrived"), now)
        elif outcome.token.value not in self._refused.values(now):
            self._take(outcome, now)
        else:
            self._refused.to_replace = outcome.token
            # Refused while the flight was under way: nobody has failed yet, and the next flight knows.
            if outcome.token.value in flight.refused:
                self._fail(flight, TokenUnavailableError("the token endpoint answers with a refused token again"), now)

    def _take(self, held: HeldToken, now: float) -> None:
        if self._held is not None:
            self._telemetry.record(TOKEN_TIME_TO_EXPIRY, max(0.0, self._held.expires_at - now), {CLIENT: self._client})
        if self._refused.to_replace is not None:
            self._counts.renewed_after_refusal += 1
            logger.info("access token renewed after a refusal", extra={"client": self._client})
        self._held = held
        self._refused.replace(now)
        self._negative_cache.clear()

    def _fail(self, flight: TokenFlight, failure: RelayError, now: float) -> None:
        self._counts.failed += 1
        if flight.ahead_of is None:
            self._negative_cache.add(failure, now)
            flight.failure = failure
        else:
            # Nobody has been failed yet: who needs a token when the old one has expired gets a try of its own,
            # even before a Retry-After is over.
            self._negative_cache.add(failure, now, latest=flight.ahead_of.expires_at)
        if not self._closed:
            logger.warning("token request failed", extra={"client": self._client, "reason": str(failure)})

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("a TokenProvider belongs to the event loop of its first token request")
