from __future__ import annotations

import asyncio
import logging
import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.token_endpoint import AccessToken
from shared.auth.token_provider import HeldToken, TokenProvider, backoff, hold
from shared.errors import TokenError, TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


def provider_of(
    grant: NumberedGrant,
    *,
    leeway: float = 60.0,
    default_lifetime: float = 300.0,
    request_timeout: float = 10.0,
    jitter: Callable[[], float] = lambda: 0.0,
) -> TokenProvider:
    return TokenProvider(
        grant,
        leeway=leeway,
        default_lifetime=default_lifetime,
        request_timeout=request_timeout,
        clock=now,
        jitter=jitter,
    )


def now() -> float:
    return asyncio.get_running_loop().time()


async def get(provider: TokenProvider) -> str:
    return (await provider.get_token()).value


async def failure_of(call: Coroutine[None, None, AccessToken]) -> TokenError:
    with pytest.raises(TokenError) as caught:
        await call
    return caught.value


async def settle() -> None:
    """Let every callback run that is ready, and those that they make ready."""
    for _ in range(10):
        await asyncio.sleep(0)


def held(
    expires_in: float | None, refresh_in: float | None = None, *, leeway: float = 60.0, jitter: float = 0.0
) -> HeldToken:
    token = AccessToken("token-1", expires_in, refresh_in)
    return hold(token, 1000.0, leeway=leeway, default_lifetime=300.0, jitter=jitter)


@pytest.mark.parametrize(
    ("expires_in", "refresh_in", "leeway", "jitter", "old_after", "expires_after"),
    [
        (3600.0, None, 60.0, 0.0, 3540.0, 3600.0),
        (3600.0, None, 60.0, 1.0, 3525.0, 3600.0),
        (3600.0, None, 0.0, 1.0, 3600.0, 3600.0),
        (None, None, 60.0, 0.0, 240.0, 300.0),
        (100.0, None, 60.0, 0.0, 60.0, 100.0),
        (100.0, None, 60.0, 1.0, 50.0, 100.0),
        (86400.0, 43200.0, 60.0, 0.0, 43200.0, 86400.0),
        (86400.0, 43200.0, 60.0, 1.0, 43185.0, 86400.0),
        (3600.0, 7200.0, 60.0, 0.0, 3540.0, 3600.0),
        (3600.0, 0.0, 60.0, 0.0, 360.0, 3600.0),
        (3600.0, -5.0, 60.0, 1.0, 360.0, 3600.0),
        # A time of day instead of a duration, and more than a clock can count: 30 days.
        (1_795_476_117.0, None, 60.0, 0.0, 2_591_940.0, 2_592_000.0),
        (1e300, None, 60.0, 0.0, 2_591_940.0, 2_592_000.0),
    ],
)
def test_a_token_is_old_a_leeway_before_it_expires(  # noqa: PLR0913, PLR0917, the columns of the table
    expires_in: float | None,
    refresh_in: float | None,
    leeway: float,
    jitter: float,
    old_after: float,
    expires_after: float,
) -> None:
    token = held(expires_in, refresh_in, leeway=leeway, jitter=jitter)
    assert token.old_at - 1000 == pytest.approx(old_after)
    assert token.expires_at - 1000 == pytest.approx(expires_after)


@given(
    expires_in=st.floats(min_value=0.001, max_value=1e9),
    refresh_in=st.none() | st.floats(min_value=-1e9, max_value=1e9),
    leeway=st.floats(min_value=0, max_value=1e9),
    jitter=st.floats(min_value=0, max_value=1, exclude_max=True),
)
def test_every_token_is_fresh_first_then_old_and_then_expired(
    expires_in: float, refresh_in: float | None, leeway: float, jitter: float
) -> None:
    token = held(expires_in, refresh_in, leeway=leeway, jitter=jitter)
    lifetime = min(expires_in, 30 * 86_400)
    least_leeway = min(leeway, lifetime * 0.4)
    assert 1000 <= token.old_at <= token.expires_at
    assert token.old_at - 1000 >= lifetime * 0.1 - 1e-6
    assert token.expires_at - token.old_at >= least_leeway - 1e-6
    assert token.expires_at - 1000 == pytest.approx(lifetime, abs=1e-6)


@given(failures=st.integers(min_value=1, max_value=10**9), jitter=st.floats(min_value=0, max_value=1, exclude_max=True))
def test_a_step_is_at_least_half_of_itself_and_never_above_the_maximum(failures: int, jitter: float) -> None:
    for longest in (5.0, 30.0):
        full = backoff(failures, 0.0, longest)
        assert full / 2 <= backoff(failures, jitter, longest) <= full <= longest


class TestCache:
    @in_virtual_time
    async def test_requests_a_token_once_and_gives_it_until_it_is_old(self) -> None:
        grant = NumberedGrant(expires_in=3600)
        provider = provider_of(grant)
        assert provider.cached() is None
        assert await get(provider) == "token-1"
        await asyncio.sleep(3539)
        assert await get(provider) == "token-1"
        assert grant.requests == 1

    @in_virtual_time
    async def test_counts_the_lifetime_from_before_the_request_was_sent(self) -> None:
        grant = NumberedGrant(expires_in=100, latency=9)
        provider = provider_of(grant, leeway=0)
        await get(provider)
        await asyncio.sleep(90.5)
        assert now() == pytest.approx(99.5)
        assert provider.cached() is not None
        await asyncio.sleep(0.5)
        assert provider.cached() is None

    @pytest.mark.parametrize("lifetime", [0.0, -1.0, -math.inf, math.nan])
    @in_virtual_time
    async def test_a_token_that_has_no_time_to_live_is_a_failure_and_is_never_given_out(self, lifetime: float) -> None:
        provider = provider_of(NumberedGrant(expires_in=lifetime))
        failure = await failure_of(provider.get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert "had expired when it arrived" in str(failure)
        assert provider.cached() is None


class TestSingleFlight:
    @in_virtual_time
    async def test_ten_thousand_callers_of_a_cold_provider_make_one_request(self) -> None:
        grant = NumberedGrant(latency=0.5)
        provider = provider_of(grant)
        tokens = await asyncio.gather(*(get(provider) for _ in range(10_000)))
        assert set(tokens) == {"token-1"}
        assert grant.requests == 1

    @in_virtual_time
    async def test_cancelling_the_first_of_ten_callers_fails_none_of_the_others(self) -> None:
        grant = NumberedGrant(latency=1)
        provider = provider_of(grant)
        callers = [asyncio.create_task(get(provider)) for _ in range(10)]
        await asyncio.sleep(0.5)
        callers[0].cancel()
        assert await asyncio.gather(*callers[1:]) == ["token-1"] * 9
        assert callers[0].cancelled()
        assert (grant.requests, grant.cancelled) == (1, 0)

    @in_virtual_time
    async def test_a_hung_token_server_fails_all_callers_together_after_the_timeout(self) -> None:
        grant = NumberedGrant(latency=math.inf)
        provider = provider_of(grant, request_timeout=10)

        async def call(after: float) -> float:
            await asyncio.sleep(after)
            failure = await failure_of(provider.get_token())
            assert "did not answer within 10 s" in str(failure)
            return now()

        ends = await asyncio.gather(*(call(after) for after in (0, 1, 5, 9.9)))
        assert set(ends) == {10.0}
        assert (grant.requests, grant.cancelled) == (1, 1)

    @in_virtual_time
    async def test_an_error_that_is_not_ours_fails_the_callers_without_its_text(self) -> None:
        grant = NumberedGrant()
        grant.failure = KeyError("s3cret")
        failure = await failure_of(provider_of(grant).get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert str(failure) == "No access token can be had: the token request failed with KeyError"
        assert isinstance(failure.__cause__, KeyError)

    @in_virtual_time
    async def test_a_request_that_cancels_itself_fails_its_callers_and_does_not_cancel_them(self) -> None:
        grant = NumberedGrant(latency=1)
        grant.failure = asyncio.CancelledError()
        provider = provider_of(grant)
        failures = await asyncio.gather(*(failure_of(provider.get_token()) for _ in range(3)))
        assert all("was cancelled" in str(failure) for failure in failures)


class TestRefreshAhead:
    @in_virtual_time
    async def test_an_old_token_is_served_while_it_is_renewed_once(self) -> None:
        grant = NumberedGrant(expires_in=3600, latency=5)
        provider = provider_of(grant)
        await get(provider)
        await asyncio.sleep(3540)
        assert [await get(provider) for _ in range(5)] == ["token-1"] * 5
        await asyncio.sleep(5.1)
        assert await get(provider) == "token-2"
        assert grant.requests == 2

    @in_virtual_time
    async def test_the_servers_wish_to_renew_earlier_is_met(self) -> None:
        grant = NumberedGrant(expires_in=86400, refresh_in=43200)
        provider = provider_of(grant)
        await get(provider)
        await asyncio.sleep(43199)
        await get(provider)
        await settle()
        assert grant.requests == 1
        await asyncio.sleep(1)
        assert await get(provider) == "token-1"
        await settle()
        assert await get(provider) == "token-2"

    @in_virtual_time
    async def test_a_valid_token_outlives_every_failure_of_its_renewal(self) -> None:
        grant = NumberedGrant(expires_in=600)
        provider = provider_of(grant)
        await get(provider)
        await asyncio.sleep(540)
        failures = [
            TokenUnavailableError("503", status=503, retry_after=0.5),
            TokenRejectedError("invalid_client", status=401),
            OSError("broken"),
        ]
        for grant.failure in failures:
            assert await get(provider) == "token-1"
            await asyncio.sleep(8)  # longer than the longest step so far
        assert grant.requests == 1 + len(failures)

    @in_virtual_time
    async def test_a_failed_renewal_holds_back_no_request_after_the_expiry(self) -> None:
        grant = NumberedGrant(expires_in=100, latency=2)
        provider = provider_of(grant)
        await get(provider)
        grant.failure = TokenUnavailableError("503", status=503)
        await asyncio.sleep(97)
        assert now() == 99
        assert await get(provider) == "token-1"  # begins a renewal that ends after the expiry
        await asyncio.sleep(1.5)
        waiting = asyncio.create_task(get(provider))
        await settle()
        asyncio.get_running_loop().call_at(102, lambda: setattr(grant, "failure", None))
        assert await waiting == "token-3"

    @in_virtual_time
    async def test_a_retry_after_that_ends_later_than_the_token_leaves_one_try_when_it_has_expired(self) -> None:
        grant = NumberedGrant(expires_in=100, latency=2)
        provider = provider_of(grant)
        await get(provider)
        grant.failure = TokenUnavailableError("429", status=429, retry_after=30)
        await asyncio.sleep(88)
        assert await get(provider) == "token-1"
        while now() < 100:
            assert await get(provider) == "token-1"
            await asyncio.sleep(0.5)
        assert grant.requests == 2
        failure = await failure_of(provider.get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert (failure.retry_after, grant.times[2]) == (30, 100)
        await asyncio.sleep(29)
        await failure_of(provider.get_token())
        assert grant.requests == 3


class TestNegativeCache:
    @in_virtual_time
    async def test_a_dead_server_gets_one_request_per_backoff_step_whatever_the_load(self) -> None:
        grant = NumberedGrant()
        grant.failure = TokenUnavailableError("refused")
        provider = provider_of(grant)
        while now() < 100:
            await asyncio.gather(*(failure_of(provider.get_token()) for _ in range(20)))
            await asyncio.sleep(0.1)
        gaps = [later - earlier for earlier, later in pairwise(grant.times)]
        assert gaps == pytest.approx([1, 2, 4, 8, 16, 30, 30], abs=0.2)

    @in_virtual_time
    async def test_a_refused_client_is_tried_again_within_five_seconds_however_long_it_was_refused(self) -> None:
        grant = NumberedGrant()
        grant.failure = TokenRejectedError("invalid_client", "wrong secret", status=401)
        provider = provider_of(grant)
        while now() < 60:
            failure = await failure_of(provider.get_token())
            assert isinstance(failure, TokenRejectedError)
            assert (failure.error, failure.description, failure.status) == ("invalid_client", "wrong secret", 401)
            await asyncio.sleep(0.5)
        grant.failure = None
        await asyncio.sleep(5)
        assert await get(provider) == f"token-{grant.requests}"
        assert max(later - earlier for earlier, later in pairwise(grant.times[:-1])) <= 5.5

    @pytest.mark.parametrize(("named", "wait"), [(None, 1.0), (0.0, 1.0), (0.5, 1.0), (20.0, 20.0), (1e12, 3600.0)])
    @in_virtual_time
    async def test_a_retry_after_is_a_floor_up_to_an_hour(self, named: float | None, wait: float) -> None:
        for failure in (
            TokenUnavailableError("429", status=429, retry_after=named),
            TokenRejectedError("invalid_client", retry_after=named),
        ):
            grant = NumberedGrant()
            grant.failure = failure
            provider = provider_of(grant)
            seen = await failure_of(provider.get_token())
            assert (type(seen), str(seen), seen.status) == (type(failure), str(failure), failure.status)
            assert seen is not failure
            assert seen.retry_after == pytest.approx(wait)
            grant.failure = None
            await asyncio.sleep(wait - 0.01)
            await failure_of(provider.get_token())
            await asyncio.sleep(0.02)
            assert await get(provider) == "token-2"

    @in_virtual_time
    async def test_a_success_ends_the_backoff(self) -> None:
        grant = NumberedGrant(expires_in=10)
        provider = provider_of(grant, leeway=0)
        grant.failure = TokenUnavailableError("503")
        for _ in range(4):
            await failure_of(provider.get_token())
            await asyncio.sleep(30)
        grant.failure = None
        await get(provider)
        await asyncio.sleep(10)
        grant.failure = TokenUnavailableError("503")
        failure = await failure_of(provider.get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert failure.retry_after == 1.0


class TestRenewal:
    @in_virtual_time
    async def test_a_refused_token_is_replaced_once_for_all_who_held_it(self) -> None:
        grant = NumberedGrant(latency=0.5)
        provider = provider_of(grant)
        refused = await provider.get_token()
        renewed = await asyncio.gather(*(provider.renew(refused) for _ in range(100)))
        assert {token.value for token in renewed} == {"token-2"}
        assert grant.requests == 2

    @in_virtual_time
    async def test_a_single_refusal_of_an_accepted_token_stops_only_its_own_caller(self) -> None:
        grant = NumberedGrant(latency=1)
        provider = provider_of(grant)
        token = await provider.get_token()
        provider.accept(token)
        renewal = asyncio.create_task(provider.renew(token))
        await settle()
        assert await get(provider) == "token-1"
        assert (await renewal).value == "token-2"
        assert (await get(provider), grant.requests) == ("token-2", 2)

    @in_virtual_time
    async def test_a_second_refusal_without_an_acceptance_in_between_withdraws_the_token(self) -> None:
        grant = NumberedGrant(latency=1)
        provider = provider_of(grant)
        token = await provider.get_token()
        provider.accept(token)
        renewals = [asyncio.create_task(provider.renew(token)) for _ in range(2)]
        await settle()
        assert provider.cached() is None
        assert {renewed.value for renewed in await asyncio.gather(*renewals)} == {"token-2"}
        assert grant.requests == 2

    @in_virtual_time
    async def test_an_accepted_token_that_is_refused_serves_the_others_while_the_server_is_down(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        token = await provider.get_token()
        provider.accept(token)
        grant.failure = TokenUnavailableError("503", status=503)
        assert "503" in str(await failure_of(provider.renew(token)))
        assert await get(provider) == "token-1"

    @in_virtual_time
    async def test_a_refusal_is_remembered_until_another_token_is_there(self, caplog: pytest.LogCaptureFixture) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        refused = await provider.get_token()
        grant.failure = TokenUnavailableError("503")
        await failure_of(provider.renew(refused))
        grant.failure = None
        await asyncio.sleep(1)
        with caplog.at_level(logging.INFO):
            assert await get(provider) == "token-3"
            await asyncio.sleep(3600)
            await provider.get_token()
        assert (grant.requests, caplog.messages[1:]) == (4, ["access token renewed after a refusal"])

    @in_virtual_time
    async def test_a_token_that_the_endpoint_issues_again_is_tried_again_after_a_backoff_step(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        grant.again = refused = await provider.get_token()
        assert (await provider.renew(refused), now()) == (refused, 1.0)
        assert (await provider.renew(refused), now()) == (refused, 3.0)
        assert (await provider.renew(refused), now()) == (refused, 7.0)
        failure = await failure_of(provider.renew(refused))  # due at 15 s, later than a call can wait
        assert isinstance(failure, TokenUnavailableError)
        assert (failure.retry_after, now()) == (6.0, 9.0)
        assert "token-1" not in str(failure)
        await asyncio.sleep(6)
        assert await get(provider) == "token-1"

    @pytest.mark.parametrize("lifetime", [20.0, 3600.0])
    @in_virtual_time
    async def test_an_api_that_refuses_every_token_gets_no_more_requests_than_a_dead_server(
        self, lifetime: float
    ) -> None:
        grant = NumberedGrant(expires_in=lifetime, latency=0.3)
        provider = provider_of(grant)
        failures = 0
        while now() < 240:
            token = provider.cached()
            if token is not None:
                provider.refuse(token)
            try:
                await provider.get_token()
            except TokenUnavailableError as failure:
                failures += "refuses each access token" in str(failure)
            await asyncio.sleep(0.1)
        assert failures > 1500
        gaps = [later - earlier for earlier, later in pairwise(grant.times[2:])]
        assert gaps[:11] == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], abs=0.6)

    @in_virtual_time
    async def test_a_renewal_that_is_due_soon_is_waited_for(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        token = await provider.get_token()
        for number, due in ((2, 0), (3, 0), (4, 1), (5, 3), (6, 7)):
            token = await provider.renew(token)
            assert (token.value, now()) == (f"token-{number}", due)
        failure = await failure_of(provider.renew(token))
        assert isinstance(failure, TokenUnavailableError)
        assert failure.retry_after == 8

    @in_virtual_time
    async def test_closing_ends_the_wait_for_a_renewal(self) -> None:
        provider = provider_of(NumberedGrant())
        token = await provider.get_token()
        for _ in range(3):
            token = await provider.renew(token)
        waiting = asyncio.create_task(failure_of(provider.renew(token)))
        await settle()
        await provider.aclose()
        assert "is closed" in str(await waiting)
        assert now() == 1

    @in_virtual_time
    async def test_refusals_of_accepted_tokens_are_renewed_once_a_backoff_step(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        while now() < 60:
            token = await provider.get_token()
            provider.accept(token)
            await provider.renew(token)
            await asyncio.sleep(0.1)
        gaps = [later - earlier for earlier, later in pairwise(grant.times[3:])]
        assert gaps == pytest.approx([1.0] * len(gaps), abs=0.2)


class TestLife:
    @in_virtual_time
    async def test_closing_ends_the_request_and_fails_who_waits_for_it(self) -> None:
        grant = NumberedGrant(latency=5)
        provider = provider_of(grant)
        caller = asyncio.create_task(failure_of(provider.get_token()))
        await asyncio.sleep(1)
        await provider.aclose()
        assert isinstance(await caller, TokenUnavailableError)
        assert (now(), grant.cancelled) == (1, 1)

    @in_virtual_time
    async def test_a_closed_provider_gives_out_its_live_token_and_requests_no_other(self) -> None:
        grant = NumberedGrant(expires_in=100)
        provider = provider_of(grant)
        await get(provider)
        await provider.aclose()
        await provider.aclose()
        await asyncio.sleep(99)
        assert await get(provider) == "token-1"
        await asyncio.sleep(1)
        assert "is closed" in str(await failure_of(provider.get_token()))
        assert grant.requests == 1

    @pytest.mark.parametrize(
        ("failure", "level", "message"),
        [
            (TokenUnavailableError("it answered 503"), "WARNING", "token request failed"),
            (TokenRejectedError("x"), "ERROR", "token endpoint refused the client, check its settings"),
        ],
    )
    @in_virtual_time
    async def test_a_failure_is_logged_once_with_its_reason(
        self, caplog: pytest.LogCaptureFixture, failure: TokenError, level: str, message: str
    ) -> None:
        grant = NumberedGrant()
        grant.failure = failure
        provider = TokenProvider(grant, client="BUSINESS_API", clock=now)
        with caplog.at_level(logging.DEBUG, "shared"):
            await asyncio.gather(*(failure_of(provider.get_token()) for _ in range(10)))
        [record] = caplog.records
        assert (record.levelname, record.message) == (level, message)
        assert (vars(record)["client"], vars(record)["reason"]) == ("BUSINESS_API", str(failure))

    @in_virtual_time
    async def test_no_token_shows_in_a_log_a_repr_or_an_error(self, caplog: pytest.LogCaptureFixture) -> None:
        grant = NumberedGrant(expires_in=100)
        provider = provider_of(grant)
        with caplog.at_level(logging.DEBUG):
            first = await provider.get_token()
            grant.again = await provider.renew(first)
            await provider.renew(grant.again)
            grant.failure = ValueError("token-1")
            failure = hidden = await failure_of(provider.renew(grant.again))
        shown = [repr(first), repr(provider), str(failure), repr(failure), str(hidden), repr(hidden)]
        shown += [str(vars(record)) for record in caplog.records]
        assert len(caplog.records) == 4
        assert not [text for text in shown if "token-" in text]
