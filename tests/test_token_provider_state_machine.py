"""Whatever callers, the token server, the API and the clock do, in any order: the promises of TokenProvider hold."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.auth.token_endpoint import AccessToken
from shared.auth.token_provider import TokenProvider
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.virtual_time import VirtualTimeLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

TIMEOUT, STEP, ROUNDING = 10.0, 1.0, 1e-6

failures = st.sampled_from(
    [
        TokenUnavailableError("503", status=503),
        TokenUnavailableError("429", status=429, retry_after=20),
        TokenRejectedError("invalid_client", status=401),
        OSError("broken"),
        asyncio.CancelledError(),
    ]
)
indexes = st.integers(min_value=0, max_value=10**6)


class TokenProviderMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.grant = NumberedGrant()
        self.provider = TokenProvider(
            self.grant,
            request_timeout=TIMEOUT,
            clock=self.loop.time,
            jitter=lambda: 0.0,
        )
        self.callers: dict[asyncio.Task[None], float] = {}
        self.given = [AccessToken("foreign", 100.0)]  # the last one last; the first is another provider's
        self.withdrawn: dict[str, float] = {}  # until when a token that nobody accepted must not be given out

    async def call(self, wanted: Coroutine[None, None, AccessToken]) -> None:
        try:
            token = await wanted
        except TokenError:
            return
        now = self.loop.time()
        lifetime = 300.0 if token.expires_in is None else min(token.expires_in, 30 * 86_400.0)
        assert now < self.grant.issued.get(token.value, math.inf) + lifetime
        assert now >= self.withdrawn.get(token.value, 0.0) - ROUNDING
        self.given = [known for known in self.given if known != token] + [token]

    def start(self, wanted: Coroutine[None, None, AccessToken]) -> None:
        self.callers[self.loop.create_task(self.call(wanted))] = self.loop.time()
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
            del self.callers[caller]
            if not caller.cancelled():
                caller.result()

    @initialize()
    def begin(self) -> None:
        self.start(self.provider.get_token())

    @rule(
        lifetime=st.sampled_from([3600.0, 300.0, 30.0, 1.0, 0.0, 1e9, None]),
        wish=st.sampled_from([None, 0.0, 5.0]),
        latency=st.sampled_from([0.0, 0.0, 0.3, 2.0, math.inf]),
    )
    def serve(self, lifetime: float | None, wish: float | None, latency: float) -> None:
        self.grant.expires_in, self.grant.refresh_in, self.grant.latency = lifetime, wish, latency

    @rule(count=st.integers(min_value=1, max_value=5))
    def get(self, count: int) -> None:
        for _ in range(count):
            self.start(self.provider.get_token())

    @rule(index=st.integers(min_value=0, max_value=3))
    def accept(self, index: int) -> None:
        token = self.given[-1 - index % len(self.given)]
        self.provider.accept(token)

    @rule(
        index=st.integers(min_value=0, max_value=3), renewals=st.integers(min_value=0, max_value=3), kept=st.booleans()
    )
    def refuse(self, index: int, renewals: int, *, kept: bool) -> None:
        """The API refuses one of the last tokens. `kept`: a second cache answers every later request with it."""
        token = self.given[-1 - index % len(self.given)]
        if kept:
            self.grant.failure, self.grant.again = None, token
        for _ in range(2):  # the second one also withdraws a token that was accepted
            self.provider.refuse(token)
        self.withdrawn.setdefault(token.value, 0.0)
        if self.loop.time() >= self.withdrawn[token.value]:
            self.withdrawn[token.value] = self.loop.time() + STEP
        for _ in range(renewals):
            self.start(self.provider.renew(token))

    @rule(failure=failures)
    def fail(self, failure: BaseException) -> None:
        self.grant.failure = failure

    @rule()
    def recover(self) -> None:
        self.grant.failure, self.grant.again, self.grant.latency = None, None, 0.3

    @precondition(lambda self: self.callers)
    @rule(index=indexes)
    def cancel(self, index: int) -> None:
        under_way, cancelled = self.grant.under_way, self.grant.cancelled
        list(self.callers)[index % len(self.callers)].cancel()
        self.settle()
        assert (self.grant.under_way, self.grant.cancelled) == (under_way, cancelled)

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0, 31.0, 200.0]))
    def advance_the_clock(self, seconds: float) -> None:
        self.pass_time(seconds)

    @invariant()
    def at_most_one_request_is_under_way(self) -> None:
        assert self.grant.at_most <= 1

    @invariant()
    def nobody_waits_for_longer_than_a_due_renewal_and_two_requests(self) -> None:
        now = self.loop.time()
        assert all(now - began <= 2.5 * TIMEOUT + ROUNDING for began in self.callers.values())

    @invariant()
    def a_failing_server_is_left_alone_between_the_steps(self) -> None:
        if isinstance(self.grant.failure, TokenUnavailableError) and len(self.grant.times) > 10:
            assert self.grant.times[-1] - self.grant.times[-10] >= STEP

    def teardown(self) -> None:
        try:
            self.recover()
            self.grant.expires_in = 3600.0
            self.pass_time(3 * TIMEOUT)
            assert self.callers == {}
            self.pass_time(60.0)
            self.start(self.provider.get_token())
            self.pass_time(1.0)
            assert self.provider.cached() is not None
            self.loop.run_until_complete(self.provider.aclose())
            self.settle()
            assert asyncio.all_tasks(self.loop) == set()
        finally:
            self.loop.close()


TestTokenProvider = TokenProviderMachine.TestCase
TestTokenProvider.settings = settings(stateful_step_count=40)
TestTokenProvider = pytest.mark.timeout(300)(TestTokenProvider)
