"""One token request, bounded in time and observed; what comes back is the token with its times."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.auth.token_lifetime import hold
from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.auth.access_token import AccessToken, TokenGrant
    from shared.auth.token_lifetime import HeldToken
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
        with self.telemetry.token_request(self.client, is_ahead=is_ahead):
            try:
                async with asyncio.timeout(self.timeout):
                    token = await self.grant.request_token(refused)
            except TimeoutError as exc:
                raise TokenUnavailableError(f"the token endpoint did not answer within {self.timeout:g} s") from exc
        return hold(token, now, leeway=self.leeway, default_lifetime=self.default_lifetime, jitter=self.jitter())
