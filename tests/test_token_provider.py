from __future__ import annotations

import asyncio
import gc
import logging
import math
import traceback
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from shared.auth.access_token import AccessToken
from shared.auth.backoff import Backoff
from shared.auth.token_provider import TokenProvider
from shared.errors import SettingsError, TokenError, TokenRejectedError, TokenUnavailableError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

EVEN = Backoff(jitter=lambda: 0.0)  # steps of 1, 2, 4, … 30 s to the second


def provider_of(  # noqa: PLR0913 - the provider's own arguments
    grant: NumberedGrant,
    *,
    leeway: float = 60.0,
    default_lifetime: float = 300.0,
    request_timeout: float = 10.0,
    backoff: Backoff = EVEN,
    jitter: Callable[[], float] = lambda: 0.0,
) -> TokenProvider:
    return TokenProvider(
        grant,
        leeway=leeway,
        default_lifetime=default_lifetime,
        request_timeout=request_timeout,
        backoff=backoff,
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

    @in_virtual_time
    async def test_a_hit_never_yields_to_the_loop(self) -> None:
        provider = provider_of(NumberedGrant())
        await provider.get_token()
        hit = provider.get_token()
        with pytest.raises(StopIteration) as stopped:
            hit.send(None)
        assert stopped.value.value.value == "token-1"

    @in_virtual_time
    async def test_a_token_without_expires_in_lives_for_the_default_lifetime(self) -> None:
        grant = NumberedGrant(expires_in=None)
        provider = provider_of(grant, default_lifetime=300, leeway=0)
        await get(provider)
        await asyncio.sleep(299.9)
        assert await get(provider) == "token-1"
        await asyncio.sleep(0.1)
        assert await get(provider) == "token-2"

    @pytest.mark.parametrize("lifetime", [1.0, 5.0, 59.0, 60.0, 299.0])
    @in_virtual_time
    async def test_a_token_shorter_than_the_leeway_is_cached_for_most_of_its_life(self, lifetime: float) -> None:
        grant = NumberedGrant(expires_in=lifetime)
        provider = provider_of(grant, leeway=300)
        await get(provider)
        await asyncio.sleep(lifetime * 0.59)
        assert await get(provider) == "token-1"
        assert grant.requests == 1

    @pytest.mark.parametrize("lifetime", [0.0, -1.0, -math.inf, math.nan])
    @in_virtual_time
    async def test_a_token_that_has_no_time_to_live_is_a_failure_and_is_never_given_out(self, lifetime: float) -> None:
        provider = provider_of(NumberedGrant(expires_in=lifetime))
        failure = await failure_of(provider.get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert "had expired when it arrived" in str(failure)
        assert provider.cached() is None

    @in_virtual_time
    async def test_a_token_that_expires_on_its_way_is_a_failure(self) -> None:
        grant = NumberedGrant(expires_in=1, latency=2)
        provider = provider_of(grant)
        failures = await asyncio.gather(*(failure_of(provider.get_token()) for _ in range(5)))
        assert all("had expired" in str(failure) for failure in failures)
        assert grant.requests == 1

    @in_virtual_time
    async def test_two_providers_share_nothing(self) -> None:
        read, write = NumberedGrant(), NumberedGrant()
        one, other = provider_of(read), provider_of(write)
        assert [await get(one), await get(other)] == ["token-1", "token-1"]
        assert [read.requests, write.requests] == [1, 1]


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
    async def test_the_request_goes_on_when_every_caller_is_cancelled(self) -> None:
        grant = NumberedGrant(latency=1)
        provider = provider_of(grant)
        callers = [asyncio.create_task(get(provider)) for _ in range(3)]
        await settle()
        for caller in callers:
            caller.cancel()
        await asyncio.wait(callers)
        gc.collect()  # only the provider holds the request now
        await asyncio.sleep(2)
        assert provider.cached() == AccessToken("token-1", 3600.0)
        assert grant.requests == 1

    @in_virtual_time
    async def test_a_late_waiter_does_not_evict_a_newer_flight(self) -> None:
        grant = NumberedGrant(latency=1)
        grant.failure = TokenUnavailableError("503", status=503)
        provider = provider_of(grant, backoff=Backoff(first=0.0))

        async def call_and_call_again() -> str:
            await failure_of(provider.get_token())
            grant.failure = None
            return await get(provider)

        first = asyncio.create_task(call_and_call_again())
        late = [asyncio.create_task(failure_of(provider.get_token())) for _ in range(3)]
        await asyncio.gather(*late)  # the first was woken before them and has begun the second flight
        assert grant.under_way == 1
        assert {*await asyncio.gather(first, get(provider), get(provider))} == {"token-2"}
        assert (grant.requests, grant.at_most) == (2, 1)

    @in_virtual_time
    async def test_a_failure_reaches_all_callers_at_once(self) -> None:
        grant = NumberedGrant(latency=2)
        grant.failure = TokenUnavailableError("the token endpoint answered 503", status=503)
        provider = provider_of(grant)

        async def call() -> tuple[float, TokenError]:
            failure = await failure_of(provider.get_token())
            return now(), failure

        results = await asyncio.gather(*(call() for _ in range(100)))
        assert {when for when, _ in results} == {2.0}
        assert {str(failure) for _, failure in results} == {
            "No access token can be had: the token endpoint answered 503"
        }
        assert grant.requests == 1

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
    async def test_each_caller_gets_an_error_of_its_own(self) -> None:
        grant = NumberedGrant(latency=1)
        grant.failure = SettingsError(["TOKEN_STORE_URL needs redis"])
        provider = provider_of(grant)
        outcomes = await asyncio.gather(*(provider.get_token() for _ in range(3)), return_exceptions=True)
        assert len({id(outcome) for outcome in outcomes}) == 3
        for outcome in outcomes:
            assert isinstance(outcome, SettingsError)
            assert outcome.problems == ("TOKEN_STORE_URL needs redis",)
            assert len(traceback.extract_tb(outcome.__traceback__)) < 5

    @in_virtual_time
    async def test_an_error_that_is_not_ours_fails_the_callers_without_its_text(self) -> None:
        grant = NumberedGrant()
        grant.failure = KeyError("s3cret")
        failure = await failure_of(provider_of(grant).get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert str(failure) == "No access token can be had: the token request failed with KeyError"
        assert isinstance(failure.__cause__, KeyError)

    @in_virtual_time
    async def test_a_grant_that_answers_nonsense_is_a_failure_that_is_backed_off(self) -> None:
        grant = NumberedGrant(expires_in="soon")  # type: ignore[arg-type] # a defect that the types would show
        provider = provider_of(grant)
        assert "TypeError" in str(await failure_of(provider.get_token()))
        assert "TypeError" in str(await failure_of(provider.get_token()))
        assert grant.requests == 1

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

    @pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
    @in_virtual_time
    async def test_across_an_expiry_no_call_waits_for_a_slow_token_endpoint(self, jitter: float) -> None:
        grant = NumberedGrant(expires_in=3, latency=0.5)
        provider = provider_of(grant, jitter=lambda: jitter)
        await provider.get_token()
        waits = []
        for _ in range(360):
            began = now()
            await provider.get_token()
            waits.append(now() - began)
            await asyncio.sleep(1 / 60)
        assert max(waits) == 0
        assert grant.requests in {4, 5}
        await provider.aclose()

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
    async def test_jitter_makes_the_renewal_earlier_never_later(self) -> None:
        grant = NumberedGrant(expires_in=3600)
        provider = provider_of(grant, jitter=lambda: 1.0)
        await get(provider)
        await asyncio.sleep(3524.9)
        await get(provider)
        await settle()
        assert grant.requests == 1
        await asyncio.sleep(0.1)
        await get(provider)
        await settle()
        assert grant.requests == 2

    @pytest.mark.parametrize("lifetime", [3.0, 60.0, 3600.0])
    @pytest.mark.parametrize("jitter", [0.0, 0.5, 0.999])
    @in_virtual_time
    async def test_no_call_fails_when_the_token_server_is_down_for_the_last_third_of_a_tokens_life(
        self, lifetime: float, jitter: float
    ) -> None:
        grant = NumberedGrant(expires_in=lifetime, latency=0.05)
        provider = provider_of(grant, jitter=lambda: jitter)
        await provider.get_token()
        failure = TokenUnavailableError("503", status=503)
        for call in range(240):
            grant.failure = failure if lifetime * 2 / 3 <= now() < lifetime else None
            await provider.get_token()
            await asyncio.sleep(lifetime / 160)
            assert call < 160 or grant.failure is None
        assert now() > lifetime * 1.5
        await provider.aclose()

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
            SettingsError(["redis is missing"]),
        ]
        for grant.failure in failures:
            assert await get(provider) == "token-1"
            await asyncio.sleep(8)  # longer than the longest step so far
        assert grant.requests == 1 + len(failures)

    @in_virtual_time
    async def test_renewal_in_the_background_is_backed_off_as_well(self) -> None:
        grant = NumberedGrant(expires_in=600)
        provider = provider_of(grant)
        await get(provider)
        await asyncio.sleep(540)
        grant.failure = TokenUnavailableError("503", status=503)
        while now() < 600:
            await get(provider)
            await asyncio.sleep(0.1)
        gaps = [later - earlier for earlier, later in pairwise(grant.times[1:])]
        assert gaps == pytest.approx([1, 2, 4, 8, 16], abs=0.2)

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

    @pytest.mark.parametrize("lifetime", [60.0, 300.0, 3600.0])
    @in_virtual_time
    async def test_no_call_fails_for_a_retry_after_that_the_server_names_in_the_last_third_of_a_tokens_life(
        self, lifetime: float
    ) -> None:
        grant = NumberedGrant(expires_in=lifetime, latency=0.5)
        provider = provider_of(grant)
        await provider.get_token()
        failure = TokenUnavailableError("503", status=503, retry_after=30)
        while now() < lifetime + 30:
            grant.failure = failure if lifetime * 2 / 3 <= now() < lifetime else None
            await provider.get_token()
            await asyncio.sleep(0.5)
        assert grant.requests <= 6


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
    async def test_an_answer_from_the_negative_cache_says_when_to_come_back(self) -> None:
        grant = NumberedGrant()
        grant.failure = TokenUnavailableError("the token endpoint answered 503", status=503)
        provider = provider_of(grant)
        first = await failure_of(provider.get_token())
        await asyncio.sleep(0.25)
        second = await failure_of(provider.get_token())
        assert isinstance(first, TokenUnavailableError)
        assert isinstance(second, TokenUnavailableError)
        assert (first.retry_after, second.retry_after) == (1.0, 0.75)
        assert (str(second), second.status) == (str(first), 503)

    @in_virtual_time
    async def test_a_retry_after_is_a_floor(self) -> None:
        grant = NumberedGrant()
        grant.failure = TokenUnavailableError("429", status=429, retry_after=120)
        provider = provider_of(grant)
        await failure_of(provider.get_token())
        grant.failure = None
        await asyncio.sleep(119.9)
        await failure_of(provider.get_token())
        await asyncio.sleep(0.1)
        assert await get(provider) == "token-2"

    @in_virtual_time
    async def test_a_retry_after_of_days_is_believed_for_an_hour(self) -> None:
        grant = NumberedGrant()
        grant.failure = TokenUnavailableError("429", status=429, retry_after=1e9)
        provider = provider_of(grant)
        await failure_of(provider.get_token())
        grant.failure = None
        await asyncio.sleep(3600)
        assert await get(provider) == "token-2"

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

    @in_virtual_time
    async def test_jitter_spreads_the_steps(self) -> None:
        grant = NumberedGrant()
        grant.failure = TokenUnavailableError("503")
        failure = await failure_of(provider_of(grant, backoff=Backoff(jitter=lambda: 0.5)).get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert failure.retry_after == 0.75

    def test_the_steps_reach_their_maximum_and_stay_there(self) -> None:
        assert [EVEN.step(failures) for failures in (1, 2, 5, 6, 100, 10**9)] == [1, 2, 16, 30, 30, 30]


class TestRenewal:
    @in_virtual_time
    async def test_a_refused_token_is_replaced_once_for_all_who_held_it(self) -> None:
        grant = NumberedGrant(latency=0.5)
        provider = provider_of(grant)
        refused = await provider.get_token()
        renewed = await asyncio.gather(*(provider.renew(refused) for _ in range(100)))
        assert {token.value for token in renewed} == {"token-2"}
        assert grant.refused == [None, refused]

    @in_virtual_time
    async def test_a_caller_who_reports_late_gets_the_newer_token_without_a_request(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        refused = await provider.get_token()
        await provider.renew(refused)
        assert (await provider.renew(refused)).value == "token-2"
        assert grant.requests == 2

    @in_virtual_time
    async def test_nobody_gets_a_refused_token_while_it_is_renewed(self) -> None:
        grant = NumberedGrant(latency=1)
        provider = provider_of(grant)
        refused = await provider.get_token()
        renewal = asyncio.create_task(provider.renew(refused))
        await settle()
        assert provider.cached() is None
        assert await get(provider) == "token-2"
        assert (await renewal).value == "token-2"

    @in_virtual_time
    async def test_a_refusal_is_remembered_while_no_other_token_can_be_had(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        refused = await provider.get_token()
        grant.failure = TokenUnavailableError("503")
        await failure_of(provider.renew(refused))
        grant.failure = None
        await asyncio.sleep(1)
        assert await get(provider) == "token-3"
        assert grant.refused == [None, refused, refused]

    @in_virtual_time
    async def test_a_refusal_is_forgotten_when_another_token_is_there(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        refused = await provider.get_token()
        await provider.renew(refused)
        await asyncio.sleep(3600)
        await provider.get_token()
        assert grant.refused == [None, refused, None]

    @in_virtual_time
    async def test_a_second_cache_that_answers_with_the_refused_token_is_a_failure_and_no_loop(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        grant.again = refused = await provider.get_token()
        failure = await failure_of(provider.renew(refused))
        assert isinstance(failure, TokenUnavailableError)
        assert "answers with a refused token again" in str(failure)
        assert "token-1" not in str(failure)
        assert (failure.retry_after, grant.requests) == (1.0, 2)
        grant.again = None
        await asyncio.sleep(1)
        assert await get(provider) == "token-3"

    @in_virtual_time
    async def test_a_token_refused_before_the_last_one_does_not_come_back_either(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        first = await provider.get_token()
        second = await provider.renew(first)
        grant.again = first
        assert "refused token again" in str(await failure_of(provider.renew(second)))
        await asyncio.sleep(1)
        await failure_of(provider.get_token())
        assert grant.refused == [None, first, second, first]

    @in_virtual_time
    async def test_a_refused_token_may_come_back_when_its_life_would_have_ended(self) -> None:
        grant = NumberedGrant(expires_in=100)
        provider = provider_of(grant)
        grant.again = refused = await provider.get_token()
        await failure_of(provider.renew(refused))
        await asyncio.sleep(60)
        await failure_of(provider.renew(refused))  # a late report makes the life no longer
        await asyncio.sleep(39.9)
        await failure_of(provider.get_token())
        await asyncio.sleep(30)
        assert await get(provider) == "token-1"

    @in_virtual_time
    async def test_a_token_refused_during_its_own_renewal_makes_that_renewal_try_again_at_once(self) -> None:
        grant = NumberedGrant(expires_in=100, latency=1)
        provider = provider_of(grant)
        grant.again = refused = await provider.get_token()
        await asyncio.sleep(80)
        await provider.get_token()  # renews in the background, and the second cache will answer with the same token
        await settle()
        renewal = asyncio.create_task(provider.renew(refused))
        asyncio.get_running_loop().call_at(82.5, lambda: setattr(grant, "again", None))
        assert (await renewal).value == "token-3"
        assert grant.refused == [None, None, refused]

    @in_virtual_time
    async def test_a_token_of_another_provider_is_not_given_out_once_refused(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        grant.again = foreign = AccessToken("token-0", 3600.0)
        await failure_of(provider.renew(foreign))
        assert grant.refused == [foreign]
        await asyncio.sleep(3599)
        await failure_of(provider.get_token())
        await asyncio.sleep(30)
        assert await get(provider) == "token-0"

    @in_virtual_time
    async def test_a_superseded_token_that_is_refused_late_does_not_come_back(self) -> None:
        grant = NumberedGrant(expires_in=None)
        provider = provider_of(grant, default_lifetime=100)
        grant.again = superseded = await provider.get_token()
        grant.again = None
        await asyncio.sleep(60)
        await provider.get_token()
        await settle()
        assert (await provider.renew(superseded)).value == "token-2"
        grant.again = superseded
        await asyncio.sleep(60)
        assert await get(provider) == "token-2"
        await settle()
        assert grant.requests == 3
        assert await get(provider) == "token-2"
        await asyncio.sleep(40)
        assert await get(provider) == "token-1"  # as long as it might have lived from its refusal

    @pytest.mark.parametrize("lifetime", [20.0, 60.0, 300.0, 3600.0])
    @pytest.mark.parametrize("latency", [0.0, 0.3])
    @in_virtual_time
    async def test_an_api_that_refuses_every_token_gets_no_more_requests_than_a_dead_server(
        self, lifetime: float, latency: float
    ) -> None:
        grant = NumberedGrant(expires_in=lifetime, latency=latency)
        provider = provider_of(grant)
        failures = 0
        while now() < 240:
            token = provider.cached()
            if token is not None:
                provider.refuse(token)
            try:
                await provider.get_token()
            except TokenUnavailableError as failure:
                failures += "refuses fresh access tokens" in str(failure)
            await asyncio.sleep(0.1)
        assert failures > 2000
        gaps = [later - earlier for earlier, later in pairwise(grant.times[2:])]
        assert gaps == pytest.approx([1, 2, 4, 8, 16, 30, 30, 30, 30, 30, 30], abs=0.5)

    @pytest.mark.parametrize("lifetime", [20.0, 60.0, 300.0])
    @in_virtual_time
    async def test_a_revocation_every_hour_fails_no_call_however_short_tokens_live(self, lifetime: float) -> None:
        grant = NumberedGrant(expires_in=lifetime, latency=0.3)
        provider = provider_of(grant)
        for _ in range(8):
            while now() % 3600 < 3590:
                token = await provider.get_token()
                await asyncio.sleep(1)
            assert (await provider.renew(token)).value == f"token-{grant.requests}"
            await asyncio.sleep(10)
        assert now() > 8 * 3590
        await provider.aclose()

    @in_virtual_time
    async def test_refusals_in_a_row_are_counted_across_expiries_and_not_across_hours(self) -> None:
        grant = NumberedGrant(expires_in=20)
        provider = provider_of(grant)
        for _ in range(3):
            for _ in range(2):
                await provider.renew(await provider.get_token())
            failure = await failure_of(provider.renew(await provider.get_token()))
            assert isinstance(failure, TokenUnavailableError)
            assert failure.retry_after == 1.0
            await asyncio.sleep(1)
            await provider.get_token()
            await asyncio.sleep(30.1)

    @in_virtual_time
    async def test_a_token_that_was_used_for_longer_than_the_step_before_its_refusal_is_renewed_at_once(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        token = await provider.get_token()
        for number in range(2, 6):  # the step after so many refusals is 4 s
            await asyncio.sleep(5)
            token = await provider.renew(token)
            assert token.value == f"token-{number}"

    @in_virtual_time
    async def test_one_revocation_after_another_is_renewed_at_once(self) -> None:
        grant = NumberedGrant()
        provider = provider_of(grant)
        token = await provider.get_token()
        for number in range(2, 20):
            await asyncio.sleep(31)
            token = await provider.renew(token)
            assert token.value == f"token-{number}"

    @in_virtual_time
    async def test_a_longer_wait_that_the_server_named_is_not_cut_short_by_a_refusal(self) -> None:
        grant = NumberedGrant(expires_in=100, refresh_in=0)  # old after 10 s
        provider = provider_of(grant, backoff=Backoff(first=15.0, maximum=15.0, jitter=lambda: 0.0))
        for _ in range(3):
            token = await provider.get_token()
            provider.refuse(token)
        assert "refuses fresh" in str(await failure_of(provider.get_token()))
        await asyncio.sleep(15)
        token = await provider.get_token()
        await asyncio.sleep(10)
        grant.failure = TokenUnavailableError("429", retry_after=20)
        await provider.get_token()
        await settle()
        provider.refuse(token)  # another may be requested 15 s after this one was: in 5 s
        failure = await failure_of(provider.get_token())
        assert isinstance(failure, TokenUnavailableError)
        assert failure.retry_after == 20

    @in_virtual_time
    async def test_a_refused_token_is_forgotten_after_thirty_days_however_long_it_would_have_lived(self) -> None:
        grant = NumberedGrant(expires_in=1e12)
        provider = provider_of(grant)
        grant.again = AccessToken("token-0", 1e12)
        await failure_of(provider.renew(grant.again))
        await asyncio.sleep(30 * 86_400 - 1)
        await failure_of(provider.get_token())
        await asyncio.sleep(30)
        assert await get(provider) == "token-0"


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
    async def test_closing_before_the_request_has_taken_its_first_step_leaves_nobody_waiting(self) -> None:
        grant = NumberedGrant(latency=5)
        provider = provider_of(grant)
        caller = provider.get_token()
        caller.send(None)  # the token request is a task now, but no step of it has run
        await provider.aclose()
        with pytest.raises(TokenUnavailableError, match="was cancelled"):
            caller.send(None)
        assert grant.requests == 0

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

    def test_a_provider_belongs_to_the_loop_of_its_first_token_request(self) -> None:
        grant = NumberedGrant(latency=60)
        provider = TokenProvider(grant)
        loop = asyncio.new_event_loop()
        first = loop.create_task(provider.get_token())
        loop.run_until_complete(asyncio.sleep(0))
        for call in (provider.get_token, provider.aclose):
            with pytest.raises(RuntimeError, match="event loop of its first token request"):
                asyncio.run(call())
        first.cancel()
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        loop.run_until_complete(asyncio.wait(tasks))
        loop.close()

    @in_virtual_time
    async def test_a_failure_is_logged_once_with_its_reason(self, caplog: pytest.LogCaptureFixture) -> None:
        grant = NumberedGrant()
        grant.failure = TokenUnavailableError("the token endpoint answered 503")
        provider = TokenProvider(grant, client="BUSINESS_API", backoff=EVEN, clock=now)
        with caplog.at_level(logging.DEBUG, "shared"):
            await asyncio.gather(*(failure_of(provider.get_token()) for _ in range(10)))
        [record] = caplog.records
        assert (record.levelname, record.message) == ("WARNING", "token request failed")
        assert vars(record)["client"] == "BUSINESS_API"
        assert vars(record)["reason"] == "No access token can be had: the token endpoint answered 503"

    @in_virtual_time
    async def test_no_token_shows_in_a_log_a_repr_or_an_error(self, caplog: pytest.LogCaptureFixture) -> None:
        grant = NumberedGrant(expires_in=100)
        provider = provider_of(grant)
        with caplog.at_level(logging.DEBUG):
            first = await provider.get_token()
            grant.again = await provider.renew(first)
            failure = await failure_of(provider.renew(grant.again))
            grant.failure = ValueError("token-1")
            await asyncio.sleep(1)
            hidden = await failure_of(provider.get_token())
        shown = [repr(first), repr(provider), str(failure), repr(failure), str(hidden), repr(hidden)]
        shown += [str(vars(record)) for record in caplog.records]
        assert len(caplog.records) == 3
        assert not [text for text in shown if "token-" in text]
