"""The access tokens that the partner issued, numbered in the order of issue."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

# Lets a test look for tokens in logs and histories without knowing one.
TOKEN_PREFIX = "sandbox-access-token-"  # noqa: S105, what all of them start with, not one of them


@dataclass(slots=True, kw_only=True)
class IssuedToken:
    """An access token; `request` is what the client asked for, without credentials."""

    number: int
    value: str = field(repr=False)
    expires_at: float
    request: dict[str, object]
    revoked: bool = False
    used: int = 0


class Tokens:
    """Issues opaque access tokens and tells whether one is good. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._issued: dict[str, IssuedToken] = {}

    def issue(self, lifetime: float, request: dict[str, object]) -> IssuedToken:
        """Issue a token that lives `lifetime` seconds."""
        token = IssuedToken(
            number=len(self._issued) + 1,
            value=TOKEN_PREFIX + secrets.token_urlsafe(32),
            expires_at=self._clock() + lifetime,
            request=request,
        )
        self._issued[token.value] = token
        return token

    def newest(self) -> IssuedToken | None:
        """Return the newest token, if it has not expired."""
        newest = next(reversed(self._issued.values()), None)
        return newest if newest is not None and self.seconds_left(newest) > 0 else None

    def seconds_left(self, token: IssuedToken) -> float:
        """Return the seconds for which a token is still good."""
        return token.expires_at - self._clock()

    def check(self, value: str) -> IssuedToken | Literal["unknown", "revoked", "expired"]:
        """Return the token of this value, or what is wrong with it."""
        token = self._issued.get(value)
        if token is None:
            return "unknown"
        if token.revoked:
            return "revoked"
        if self._clock() >= token.expires_at:
            return "expired"
        token.used += 1
        return token

    def revoke(self, value: str | None) -> None:
        """Revoke the token of this value, if there is one."""
        token = self._issued.get(value or "")
        if token is not None:
            token.revoked = True

    def revoke_issued(self, which: Literal["all", "newest"]) -> int:
        """Revoke all tokens issued so far, or the newest; tell how many that were still good."""
        now = self._clock()
        tokens = list(self._issued.values())
        revoked = 0
        for token in tokens if which == "all" else tokens[-1:]:
            revoked += not token.revoked and now < token.expires_at
            token.revoked = True
        return revoked

    def to_json(self) -> list[dict[str, object]]:
        """Return every token but for its value: its number, what was asked for, its fate and how often it was used."""
        now = self._clock()
        return [
            {
                "number": token.number,
                **token.request,
                "expired": now >= token.expires_at,
                "revoked": token.revoked,
                "used": token.used,
            }
            for token in self._issued.values()
        ]
