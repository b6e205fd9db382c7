"""Which access tokens the API has refused. Times are seconds of the provider's clock."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.auth.access_token import AccessToken
    from shared.auth.token_lifetime import HeldToken


class RefusedTokens:
    """Remembers each refused token for as long as it would have lived: a second cache may answer with it until then.

    `to_replace` is the refused token for which no other has come yet. `fresh_in_a_row` counts the refusals of tokens
    that were not older than `fresh_for` seconds: one is a revocation, many are an API that likes no token of ours.
    """

    def __init__(self, fresh_for: float) -> None:
        self._fresh_for = fresh_for
        self._until: dict[str, float] = {}
        self.to_replace: AccessToken | None = None
        self.fresh_in_a_row = 0

    def add(self, token: AccessToken, now: float, until: float) -> None:
        """Note that the API has refused a token, which would live until then."""
        self._until = {value: end for value, end in self._until.items() if now < end}
        self._until[token.value] = max(until, self._until.get(token.value, until))

    def add_held(self, held: HeldToken, now: float) -> None:
        """Note that the API has refused the token in use, so that another has to replace it."""
        self.add(held.token, now, held.expires_at)
        self.to_replace = held.token
        self.fresh_in_a_row = self.fresh_in_a_row + 1 if now - held.requested_at <= self._fresh_for else 1

    def has(self, token: AccessToken, now: float) -> bool:
        """Tell whether the API has refused this token."""
        return now < self._until.get(token.value, -math.inf)
