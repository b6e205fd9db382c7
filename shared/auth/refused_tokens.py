"""Which access tokens the API has refused. Times are seconds of the provider's clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.auth.access_token import AccessToken
    from shared.auth.token_lifetime import HeldToken

# So many refusals of fresh tokens in a row are answered at once; then the API has another problem than its token.
_FREE_RENEWALS = 2


class RefusedTokens:
    """Remembers each refused token for as long as it would have lived: a second cache may answer with it until then.

    `to_replace` is the refused token for which no other has come yet. A token not older than `fresh_for` is fresh.
    """

    def __init__(self, fresh_for: float) -> None:
        self._fresh_for = fresh_for
        self._fresh_in_a_row = 0
        self._until: dict[str, float] = {}
        self.to_replace: AccessToken | None = None

    def add(self, token: AccessToken, now: float, until: float) -> None:
        """Note that the API has refused a token, which would live until then; the first to say so is believed."""
        self._until = {value: end for value, end in self._until.items() if now < end}
        self._until.setdefault(token.value, until)

    def add_held(self, held: HeldToken, now: float) -> int:
        """Note that the API has refused the token in use; give how often too often in a row it refused a fresh one."""
        self.add(held.token, now, held.expires_at)
        self.to_replace = held.token
        self._fresh_in_a_row = self._fresh_in_a_row + 1 if now - held.requested_at <= self._fresh_for else 1
        return max(0, self._fresh_in_a_row - _FREE_RENEWALS)

    def values(self, now: float) -> frozenset[str]:
        """Give the values that must not be given out."""
        return frozenset(value for value, end in self._until.items() if now < end)
