"""What the token provider costs, and what its callers feel. Run: python -m benchmarks.token_provider.

Real time, and a token endpoint that takes 500 ms. Each line says what was measured; the last ones in calls that had to
wait (longer than 20 ms) or failed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx

from shared.auth.access_token import AccessToken
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_ROUNDS = 7
_CALLS = 200_000
_LATENCY = 0.5  # seconds of one token request
_STALL = 0.02  # seconds from which a call counts as one that had to wait


class SlowGrant:
    """Numbers its tokens and answers after 500 ms; fails while it is down."""

    cache_key = "benchmark"

    def __init__(self, expires_in: float) -> None:
        self.expires_in = expires_in
        self.requests = 0
        self.down = False

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:  # noqa: ARG002 - no cache here
        """Answer with the next token after 500 ms."""
        self.requests += 1
        number = self.requests
        await asyncio.sleep(_LATENCY)
        if self.down:
            raise TokenUnavailableError("the token endpoint answered 503", status=503)
        return AccessToken(f"token-{number}", self.expires_in)


@dataclass
class Felt:
    """What the callers of one scenario felt."""

    calls: int = 0
    stalled: int = 0
    failed: int = 0
    longest: float = 0.0

    def __str__(self) -> str:
        return f"{self.calls} calls, {self.stalled} waited, {self.failed} failed, longest {self.longest * 1e3:.1f} ms"


async def load(call: Callable[[], Awaitable[object]], *, calls: int, rate: float) -> Felt:
    """Start `calls` calls, `rate` a second, whether or not the earlier ones are done."""
    felt = Felt()

    async def one() -> None:
        began = time.perf_counter()
        try:
            await call()
        except TokenUnavailableError:
            felt.failed += 1
        took = time.perf_counter() - began
        felt.calls += 1
        felt.stalled += took > _STALL
        felt.longest = max(felt.longest, took)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(calls):
            await asyncio.sleep(began + number / rate - time.perf_counter())
            group.create_task(one())
    return felt


async def _empty() -> None:
    return None


async def hit() -> None:
    """Measure a hit beside the call of an empty coroutine: the best of several rounds each."""
    provider = TokenProvider(SlowGrant(3600))
    await provider.get_token()
    nanoseconds = []
    for call in (_empty, provider.get_token):
        best = float("inf")
        for _ in range(_ROUNDS):
            began = time.perf_counter()
            for _ in range(_CALLS):
                await call()
            best = min(best, time.perf_counter() - began)
        nanoseconds.append(best / _CALLS * 1e9)
    empty, served = nanoseconds
    print(f"hit: {served:.0f} ns, an empty coroutine {empty:.0f} ns: {served - empty:.0f} ns more")


async def cold() -> None:
    """Measure 10,000 callers at once of a provider that has no token."""
    grant = SlowGrant(3600)
    provider = TokenProvider(grant)
    began = time.perf_counter()
    await asyncio.gather(*(provider.get_token() for _ in range(10_000)))
    took = time.perf_counter() - began
    print(f"cold, 10,000 callers: {grant.requests} request in {took * 1e3:.0f} ms, {_LATENCY * 1e3:.0f} at the server")


async def expiry() -> None:
    """Measure 6 s under load across the expiries of a 3 s token."""
    grant = SlowGrant(3)
    provider = TokenProvider(grant)
    await provider.get_token()
    felt = await load(provider.get_token, calls=360, rate=60)
    print(f"expiry, 60 calls/s: {felt}, {grant.requests} requests")


async def outage() -> None:
    """Measure a token server that is down for the last third of a token's life, for tokens with a short leeway too."""
    for lifetime, leeway in ((6.0, 60.0), (6.0, 1.5)):
        grant = SlowGrant(lifetime)
        provider = TokenProvider(grant, leeway=leeway)
        await provider.get_token()
        loop = asyncio.get_running_loop()
        # The token's life began when it was requested. A request that is under way at the end of the outage succeeds.
        loop.call_later(lifetime * 2 / 3 - _LATENCY, setattr, grant, "down", True)  # noqa: FBT003 - setattr has no other
        loop.call_later(lifetime - _LATENCY, setattr, grant, "down", False)  # noqa: FBT003 - the same
        felt = await load(provider.get_token, calls=160, rate=160 / (lifetime * 1.2))
        print(f"outage in the last third of {lifetime:g} s, leeway {leeway:g} s: {felt}, {grant.requests} requests")
        await provider.aclose()


async def revocation() -> None:
    """Measure calls of an API that refuses the first token from the middle on."""
    revoked = False

    def answer(request: httpx.Request) -> httpx.Response:
        refused = revoked and request.headers["authorization"] == "Bearer token-1"
        return httpx.Response(401 if refused else 200)

    grant = SlowGrant(3600)
    provider = TokenProvider(grant)
    unauthorized = 0
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=BearerAuth(provider)) as client:

        async def call() -> None:
            nonlocal unauthorized
            response = await client.get("https://api.example/")
            unauthorized += response.status_code == httpx.codes.UNAUTHORIZED

        def revoke() -> None:
            nonlocal revoked
            revoked = True

        await call()
        asyncio.get_running_loop().call_later(2.5, revoke)
        felt = await load(call, calls=300, rate=60)
    print(f"revocation: {felt}, {unauthorized} answered with 401, {grant.requests} requests")


async def cancellation() -> None:
    """Measure ten callers of which the first is cancelled."""
    grant = SlowGrant(3600)
    provider = TokenProvider(grant)
    callers = [asyncio.create_task(provider.get_token()) for _ in range(10)]
    await asyncio.sleep(_LATENCY / 2)
    callers[0].cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    served = sum(isinstance(result, AccessToken) for result in results)
    print(f"cancellation of the first of 10 callers: {served} got a token, {grant.requests} request")


async def main() -> None:
    """Run all scenarios one after the other."""
    logging.getLogger("shared").addHandler(logging.NullHandler())  # the outage would print its warnings in between
    for scenario in (hit, cold, expiry, outage, revocation, cancellation):
        await scenario()


if __name__ == "__main__":
    asyncio.run(main())
