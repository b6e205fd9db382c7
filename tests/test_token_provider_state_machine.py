"""Whatever callers, the token server, the API and the clock do, in any order: the promises of TokenProvider hold."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.auth.token_provider import TokenProvider
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from shared.auth.access_token import AccessToken

TIMEOUT = 10.0
REQUESTS_PER_SECOND = 8

failures = st.sampled_from(
    [
        TokenUnavailableError("503", status=503),
        TokenUnavailableError("429", status=429, retry_after=20),
        TokenRejectedError("invalid_client", status=401),
        OSError("broken"),
        asyncio.CancelledError(),
    ]
)
lifetimes = st.sampled_from([0.0, 1.0, 30.0, 300.0, 3600.0, None])
latencies = st.sampled_from([0.0, 0.3, 2.0, math.inf])
indexes = st.integers(min_value=0, max_value=10**6)


class TokenProviderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.grant = NumberedGrant()
        self.provider = TokenProvider(self.grant, clock=self.loop.time, request_timeout=TIMEOUT)
        self.callers: list[asyncio.Task[None]] = []
        self.given: list[AccessToken] = []
        self.refused_until: dict[str, float] = {}
        self.broken_promises: list[str] = []

    def expiry(self, token: AccessToken) -> float:
        """Give the time at which the token server, which counts from the last request for it, lets a token expire."""
        return self.grant.issued[token.value] + (300.0 if token.expires_in is None else token.expires_in)

    async def call(self, wanted: Coroutine[None, None, AccessToken]) -> None:
        try:
            token = await wanted
        except TokenError:
            return
        if self.loop.time() >= self.expiry(token):
            self.broken_promises.append(f"{token.value} has expired")
        if self.loop.time() < self.refused_until.get(token.value, -math.inf):
            self.broken_promises.append(f"{token.value} was refused")
        self.given.append(token)

    def start(self, wanted: Coroutine[None, None, AccessToken]) -> None:
        self.callers.append(self.loop.create_task(self.call(wanted)))
        self.settle()

    def pass_time(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.settle()

    def settle(self) -> None:
        async def let_run() -> None:
            for _ in range(20):
                await asyncio.sleep(0)

        self.loop.run_until_complete(let_run())
        for caller in [caller for caller in self.callers if caller.done()]:
            self.callers.remove(caller)
            if not caller.cancelled():
                caller.result()

    @initialize(lifetime=lifetimes, latency=latencies)
    def begin(self, lifetime: float | None, latency: float) -> None:
        self.serve(lifetime, latency)

    @rule(lifetime=lifetimes, latency=latencies)
    def serve(self, lifetime: float | None, latency: float) -> None:
        self.grant.expires_in = lifetime
        self.grant.latency = latency

    @rule(count=st.integers(min_value=1, max_value=5))
    def get(self, count: int) -> None:
        for _ in range(count):
            self.start(self.provider.get_token())

    @precondition(lambda self: self.given)
    @rule(index=st.integers(min_value=0, max_value=2), count=st.integers(min_value=0, max_value=3), kept=st.booleans())
    def refuse(self, index: int, count: int, *, kept: bool) -> None:
        """The API refuses a token; as many callers renew it, or (0) the caller cannot replay its request.

        Where it is `kept`, a second cache answers every later token request with it.
        """
        token = self.given[-1 - index % len(self.given)]
        if kept:
            self.grant.failure, self.grant.again = None, token
        self.refused_until.setdefault(token.value, self.expiry(token))
        if count == 0:
            self.provider.refuse(token)
        for _ in range(count):
            self.start(self.provider.renew(token))

    @rule(failure=failures)
    def fail(self, failure: BaseException) -> None:
        self.grant.failure = failure

    @precondition(lambda self: self.given)
    @rule(index=indexes)
    def answer_from_a_second_cache(self, index: int) -> None:
        self.grant.failure = None
        self.grant.again = self.given[index % len(self.given)]

    @rule()
    def recover(self) -> None:
        self.grant.failure = None
        self.grant.again = None
        self.grant.latency = 0.3

    @precondition(lambda self: self.callers)
    @rule(index=indexes)
    def cancel(self, index: int) -> None:
        under_way, cancelled = self.grant.under_way, self.grant.cancelled
        self.callers[index % len(self.callers)].cancel()
        self.settle()
        assert (self.grant.under_way, self.grant.cancelled) == (under_way, cancelled)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0, 31.0, 200.0]))
    def advance_the_clock(self, seconds: float) -> None:
        self.pass_time(seconds)

    @precondition(lambda self: self.given)
    @rule(before=st.sampled_from([0.0, 0.1, 1.0]))
    def expire(self, before: float) -> None:
        """Go to the expiry of the last token, or to shortly before it."""
        self.pass_time(max(0.0, self.expiry(self.given[-1]) - before - self.loop.time()))

    @invariant()
    def at_most_one_request_is_under_way(self) -> None:
        assert self.grant.at_most <= 1

    @invariant()
    def the_token_server_is_not_hammered(self) -> None:
        # A few in a row are sound: an expiry, two revocations, a refusal that a flight under way could not know.
        assert sum(time > self.loop.time() - 1 for time in self.grant.times) <= REQUESTS_PER_SECOND

    @invariant()
    def no_expired_or_refused_token_is_given_out(self) -> None:
        assert self.broken_promises == []

    @invariant()
    def whoever_waits_waits_for_a_request(self) -> None:
        assert not self.callers or self.grant.under_way == 1

    def teardown(self) -> None:
        try:
            self.grant.latency = math.inf
            # One flight that began before an expiry and one after it: nobody waits longer than for these two.
            self.pass_time(2 * TIMEOUT)
            assert self.callers == []
            assert self.broken_promises == []
            self.recover()
            self.pass_time(60.0)
            self.start(self.provider.get_token())
            self.pass_time(1.0)
            assert self.provider.cached() is not None or self.grant.expires_in in {0.0, 1.0}
            self.loop.run_until_complete(self.provider.aclose())
            self.settle()
            assert asyncio.all_tasks(self.loop) == set()
        finally:
            self.loop.close()


TestTokenProvider = TokenProviderMachine.TestCase
TestTokenProvider.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestTokenProvider = pytest.mark.timeout(300)(TestTokenProvider)
