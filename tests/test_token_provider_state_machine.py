"""Whatever callers, the token server, the API and the clock do, in any order: the promises of TokenProvider hold."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.auth.access_token import AccessToken
from shared.auth.backoff import Backoff
from shared.auth.token_provider import TokenProvider
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.token_promises import TokenPromises
from tests.fakes.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

TIMEOUT = 10.0

failures = st.sampled_from(
    [
        TokenUnavailableError("503", status=503),
        TokenUnavailableError("429", status=429, retry_after=20),
        TokenRejectedError("invalid_client", status=401),
        OSError("broken"),
        asyncio.CancelledError(),
    ]
)
lifetimes = st.sampled_from([3600.0, 300.0, 30.0, 20.0, 1.0, 0.0, 1e9, None])
wishes = st.sampled_from([None, 0.0, 5.0])
latencies = st.sampled_from([0.0, 0.0, 0.3, 2.0, math.inf])
indexes = st.integers(min_value=0, max_value=10**6)


class WatchedGrant(NumberedGrant):
    """Tells TokenPromises of every token request and of what became of it."""

    def __init__(self, promises: TokenPromises) -> None:
        super().__init__()
        self.promises = promises

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        clock = asyncio.get_running_loop().time
        self.promises.begin(refused, clock())
        try:
            token = await super().request_token(refused)
        except BaseException as failure:
            self.promises.fail(failure, clock())
            raise
        self.promises.succeed(token, clock())
        return token


class TokenProviderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.promises = TokenPromises()
        self.grant = WatchedGrant(self.promises)
        self.provider = self.provider_with(first_step=1.0)
        self.callers: list[asyncio.Task[None]] = []
        # The tokens that were given out, the last one last; the first is another provider's.
        self.given = [AccessToken("foreign", 100.0)]

    def provider_with(self, first_step: float) -> TokenProvider:
        self.promises.first_step = first_step
        return TokenProvider(
            self.grant,
            request_timeout=TIMEOUT,
            backoff=Backoff(first=first_step, jitter=lambda: 0.0),
            clock=self.loop.time,
            jitter=lambda: 0.0,
        )

    async def call(self, wanted: Coroutine[None, None, AccessToken]) -> None:
        try:
            token = await wanted
        except TokenError as error:
            self.promises.deny(error, self.loop.time())
            return
        self.promises.give(token, self.loop.time())
        if self.loop.time() >= self.grant.issued[token.value] + self.promises.lifetime(token):
            self.promises.broken.append(f"{token.value} was given, which the server has let expire")
        if token in self.given:
            self.given.remove(token)
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

    def refuse_token(self, token: AccessToken, renewals: int) -> None:
        """The API refuses a token; so many callers renew it, or (0) the one caller cannot replay its request."""
        for _ in range(renewals):
            self.promises.refuse(token, self.loop.time())
            self.start(self.provider.renew(token))
        if renewals == 0:
            self.promises.refuse(token, self.loop.time())
            self.provider.refuse(token)

    @initialize(lifetime=lifetimes, wish=wishes, latency=latencies, first_step=st.sampled_from([1.0, 16.0]))
    def begin(self, lifetime: float | None, wish: float | None, latency: float, first_step: float) -> None:
        self.provider = self.provider_with(first_step)
        self.serve(lifetime, wish, latency)

    @rule(lifetime=lifetimes, wish=wishes, latency=latencies)
    def serve(self, lifetime: float | None, wish: float | None, latency: float) -> None:
        self.grant.expires_in = lifetime
        self.grant.refresh_in = wish
        self.grant.latency = latency

    @rule(count=st.integers(min_value=1, max_value=5))
    def get(self, count: int) -> None:
        requests = self.grant.requests
        must_request = self.grant.under_way == 0 and self.promises.must_request(self.loop.time())
        for _ in range(count):
            self.start(self.provider.get_token())
        assert self.grant.requests > requests or not must_request

    @rule(
        index=st.integers(min_value=0, max_value=3), renewals=st.integers(min_value=0, max_value=3), kept=st.booleans()
    )
    def refuse(self, index: int, renewals: int, *, kept: bool) -> None:
        """The API refuses one of the last tokens. `kept`: a second cache answers every later request with it."""
        token = self.given[-1 - index % len(self.given)]
        if kept:
            self.grant.failure, self.grant.again = None, token
        self.refuse_token(token, renewals)

    @rule(
        times=st.integers(min_value=2, max_value=8),
        renewals=st.integers(min_value=0, max_value=1),
        pause=st.sampled_from([0.0, 0.3, 5.0]),
    )
    def refuse_again_and_again(self, times: int, renewals: int, pause: float) -> None:
        """The API refuses whatever it is given, as soon as that is possible."""
        for _ in range(times):
            self.refuse_token(self.given[-1], renewals)
            self.pass_time(max(pause, self.promises.not_before - self.loop.time()))
            self.start(self.provider.get_token())

    @rule(failure=failures)
    def fail(self, failure: BaseException) -> None:
        self.grant.failure = failure

    @rule(index=indexes)
    def answer_from_a_second_cache(self, index: int) -> None:
        self.grant.failure = None
        self.grant.again = self.given[index % len(self.given)]

    @precondition(lambda self: self.promises.refused(self.loop.time()))
    @rule(index=indexes, before=st.sampled_from([0.0, 1.0]))
    def answer_with_a_refused_token(self, index: int, before: float) -> None:
        """A second cache answers with a refused token, at the end of its life or shortly before."""
        refused = [token for token in self.given if token.value in self.promises.refused(self.loop.time())]
        self.grant.failure, self.grant.again = None, refused[index % len(refused)]
        self.pass_time(max(0.0, self.promises.refused_until[self.grant.again.value] - before - self.loop.time()))
        self.get(1)

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

    @precondition(lambda self: self.promises.held)
    @rule(before=st.sampled_from([0.0, 0.1, 1.0, 5.0, 15.0]))
    def expire(self, before: float) -> None:
        """Go to the expiry of the token, or to shortly before it."""
        assert self.promises.held is not None
        self.pass_time(max(0.0, self.promises.held.end - before - self.loop.time()))

    @precondition(lambda self: self.promises.held)
    @rule(
        failure=failures,
        before=st.sampled_from([0.1, 5.0, 15.0]),
        refused=st.booleans(),
        after=st.sampled_from([0.0, 1.0]),
    )
    def fail_across_the_expiry(self, failure: BaseException, before: float, after: float, *, refused: bool) -> None:
        """The token server fails a renewal shortly before the token expires, and is called again when it has.

        `refused`: and meanwhile the API refuses the token.
        """
        self.expire(before)
        self.fail(failure)
        self.get(1)
        if refused:
            self.refuse_token(self.given[-1], 1)
        self.pass_time(before + after)
        self.get(1)

    @invariant()
    def every_promise_is_kept(self) -> None:
        assert self.promises.broken == []

    @invariant()
    def at_most_one_request_is_under_way(self) -> None:
        assert self.grant.at_most <= 1

    @invariant()
    def whoever_waits_waits_for_a_request(self) -> None:
        assert not self.callers or self.grant.under_way == 1

    def teardown(self) -> None:
        try:
            self.grant.latency = math.inf
            # One flight that began before an expiry and one after it: nobody waits longer than for these two.
            self.pass_time(2 * TIMEOUT)
            assert self.callers == []
            self.recover()
            self.grant.expires_in = 3600.0
            self.pass_time(60.0)
            self.start(self.provider.get_token())
            self.pass_time(1.0)
            assert self.provider.cached() is not None
            assert self.promises.broken == []
            self.loop.run_until_complete(self.provider.aclose())
            self.settle()
            assert asyncio.all_tasks(self.loop) == set()
        finally:
            self.loop.close()


TestTokenProvider = TokenProviderMachine.TestCase
TestTokenProvider.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
TestTokenProvider = pytest.mark.timeout(300)(TestTokenProvider)
