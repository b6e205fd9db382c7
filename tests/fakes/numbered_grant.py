"""A grant that numbers its tokens, so that a test can say which one arrived, and fails on demand."""

from __future__ import annotations

import asyncio

from shared.auth.token_endpoint import AccessToken


class NumberedGrant:
    """Answers with token-1, token-2, …, `latency` seconds after the request, or raises `failure` if there is one then.

    `again` is answered instead of a new token, as by a second cache. What was asked: `times` (the loop's, of each
    request), `issued` (when each value was last requested), `cancelled`, `under_way`, and `at_most`, the most requests
    that were under way at once.
    """

    def __init__(
        self, *, expires_in: float | None = 3600.0, refresh_in: float | None = None, latency: float = 0.0
    ) -> None:
        self.expires_in = expires_in
        self.refresh_in = refresh_in
        self.latency = latency
        self.failure: BaseException | None = None
        self.again: AccessToken | None = None
        self.times: list[float] = []
        self.issued: dict[str, float] = {}
        self.cancelled = 0
        self.under_way = 0
        self.at_most = 0

    @property
    def requests(self) -> int:
        return len(self.times)

    async def __call__(self) -> AccessToken:
        number = self.requests + 1
        self.times.append(asyncio.get_running_loop().time())
        self.under_way += 1
        self.at_most = max(self.at_most, self.under_way)
        try:
            await asyncio.sleep(self.latency)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        if self.failure is not None:
            raise self.failure
        token = self.again or AccessToken(f"token-{number}", self.expires_in, self.refresh_in)
        self.issued[token.value] = self.times[-1]
        return token
