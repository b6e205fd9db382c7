"""One token request under way: bounded in time, observed; any number of callers wait for it and none can end it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.auth.access_token import hold
from shared.errors import RelayError, TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from shared.auth.access_token import AccessToken, HeldToken, TokenGrant
    from shared.telemetry import Telemetry


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """How to request a token and how long to keep it. Times are seconds; `jitter` gives a number in [0, 1)."""

    grant: TokenGrant
    client: str
    timeout: float
    leeway: float
    default_lifetime: float
    jitter: Callable[[], float]
    telemetry: Telemetry

    async def send(self, refused: AccessToken | None, now: float, *, is_ahead: bool = False) -> HeldToken:
        """Request a token other than the refused one; its lifetime counts from `now`, before the request was sent.

        `is_ahead` says that the old token still lives: nobody waits for this one.

        Raises:
            TokenUnavailableError: no answer within the timeout; and all that the grant raises.
        """
        with self.telemetry.token_request(self.client, is_ahead=is_ahead) as request:
            try:
                async with asyncio.timeout(self.timeout):
                    token = await self.grant.request_token(refused)
            except TimeoutError as exc:
                raise TokenUnavailableError(f"the token endpoint did not answer within {self.timeout:g} s") from exc
            if token.is_shared:
                request.take_shared()
        return hold(token, now, leeway=self.leeway, default_lifetime=self.default_lifetime, jitter=self.jitter())


class TokenFlight:
    """Runs a token request as a task of its own and calls `land` with itself and the outcome, whatever happens.

    `ahead_of` is the live token that was there when it began, None where there was none; `refused` are the values known
    to be refused by then. `landed` is set after `land`, which sets `failure` for those who wait; it stays None where
    the next flight may do better at once.
    """

    def __init__(
        self,
        request: Coroutine[None, None, HeldToken],
        land: Callable[[TokenFlight, HeldToken | RelayError], None],
        *,
        ahead_of: HeldToken | None,
        refused: frozenset[str],
    ) -> None:
        self.ahead_of = ahead_of
        self.refused = refused
        self.landed = asyncio.Event()
        self.failure: RelayError | None = None
        self._land = land
        # The loop itself keeps no strong reference to a task: the provider holds the flight, the flight the task.
        self._task = asyncio.create_task(request, name="token request")
        # A callback, because a task that is cancelled before its first step runs none of its own code.
        self._task.add_done_callback(self._touch_down)

    async def end(self) -> None:
        """Cancel the token request and wait until it has landed."""
        self._task.cancel()
        await self.landed.wait()

    def _touch_down(self, task: asyncio.Task[HeldToken]) -> None:
        self._land(self, _outcome(task))
        self.landed.set()


def _outcome(task: asyncio.Task[HeldToken]) -> HeldToken | RelayError:
    """Give what a finished task brought; of an error that is not ours only the type, for its text may hold a secret."""
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
