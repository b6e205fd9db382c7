"""What one client of the benchmark's partner meets: its token endpoint, its limits, its outages; and what it has done.

No I/O and no clock: `now` is in monotonic seconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOKEN_SIZE = 800  # characters, as many as a JSON Web Token of a large vendor has
ABORT = 0
"""In the place of a status: the connection is aborted."""


@dataclass
class Counts:
    """What the partner has counted since its settings were last changed with `reset`. Look-ups are calls, too."""

    connections: int = 0
    token_requests: int = 0
    calls: int = 0
    posts: int = 0
    refused: int = 0
    while_down: int = 0
    unauthorized: int = 0
    stored: int = 0
    processor: int = 0


@dataclass
class Room:
    """The settings, all in seconds or calls per second, and the state.

    `rate` and `burst` are a token bucket, `most` the calls at a time; 0 is no limit. With `quota` responses have the
    RateLimit fields. `poison` is a text in the path or the body of one record. `script` are the statuses of the first
    calls. `silent_for` seconds from the first call on, connections are aborted; the token endpoint is down from
    `down_from` to `down_until`, and tokens are revoked at `revoke_at`, both counted from `epoch`.
    """

    latency: float = 0.0
    token_latency: float = 0.0
    expires_in: int = 3600
    down_from: float = float("inf")
    down_until: float = float("inf")
    revoke_at: float = float("inf")
    rate: float = 0.0
    burst: float = 50.0
    most: int = 0
    quota: bool = False
    poison: str = ""
    poison_status: int = 429
    poison_retry_after: int = 1
    script: list[int] = field(default_factory=list)
    silent_for: float = 0.0

    counts: Counts = field(default_factory=Counts)
    epoch: float = 0.0
    keys: set[str] = field(default_factory=set)
    waiting: list[tuple[str, int, Callable[[], None]]] = field(default_factory=list)
    tokens: dict[bytes, tuple[float, float]] = field(default_factory=dict)  # requested at, expires at
    began: float = 0.0
    in_flight: int = 0
    bucket: float = float("inf")
    filled_at: float = 0.0

    def change(self, settings: Mapping[str, Any], now: float, *, is_new: bool) -> None:
        """Change settings. With `is_new` the counts and the stored keys go, and `epoch` is now."""
        for name, value in settings.items():
            setattr(self, name, value)
        if is_new:
            self.epoch, self.began, self.counts = now, 0.0, Counts()
            self.keys.clear()

    def issue(self, now: float) -> bytes | None:
        """Issue a token, None while the token endpoint is down."""
        self.counts.token_requests += 1
        if self.down_from <= now - self.epoch < self.down_until:
            return None
        value = f"token-{len(self.tokens)}-".encode().ljust(TOKEN_SIZE, b"x")
        self.tokens[b"Bearer " + value] = now, now + self.expires_in
        return value

    def accepts(self, authorization: bytes, now: float) -> bool:
        """Return whether a token is one of the room's and valid."""
        issued, expires = self.tokens.get(authorization, (0.0, 0.0))
        return now < expires and not issued < self.epoch + self.revoke_at <= now

    def answer(self, is_post: bool, sent: bytes, authorization: bytes, now: float) -> tuple[int, dict[str, str]]:  # noqa: FBT001, PLR0911, one caller; an answer of each kind
        """Take a call in. Return the status and the headers of the response; 2xx and 404 are work for `finish`."""
        counts = self.counts
        counts.calls += 1
        counts.posts += is_post
        self.began = self.began or now
        if now - self.began < self.silent_for:
            counts.while_down += 1
            return ABORT, {}
        if not self.accepts(authorization, now):
            counts.unauthorized += 1
            return 401, {"www-authenticate": 'Bearer error="invalid_token"'}
        if self.script:
            return self.script.pop(0), {}
        if self.poison and self.poison.encode() in sent:
            return self.poison_status, {"retry-after": str(self.poison_retry_after)}
        if self.most and self.in_flight >= self.most:
            counts.refused += 1
            return 503, {}
        if self.rate:
            self.bucket = min(self.burst, self.bucket + (now - self.filled_at) * self.rate)
            self.filled_at = now
            if self.bucket < 1:
                counts.refused += 1
                return 429, {"retry-after": "1", **self._quota()}
            self.bucket -= 1
        self.in_flight += 1
        return (201 if is_post else 404), self._quota()

    def finish(self, key: str | None) -> None:
        """End the work on a call. `key` is the idempotency key of a record that is stored now."""
        self.in_flight -= 1
        if key is None or key in self.keys:
            return
        self.keys.add(key)
        self.counts.stored += 1
        for wait in [wait for wait in self.waiting if self.count(wait[0]) >= wait[1]]:
            self.waiting.remove(wait)
            wait[2]()

    def count(self, prefix: str) -> int:
        """Return how many records are stored whose keys begin with `prefix`."""
        return sum(key.startswith(prefix) for key in self.keys) if prefix else len(self.keys)

    def counted(self) -> dict[str, int]:
        """Return the counts, with the µs of a processor that the whole process has taken so far."""
        self.counts.processor = round(time.process_time() * 1e6)
        return dict(vars(self.counts))

    def _quota(self) -> dict[str, str]:
        if not self.quota:
            return {}
        seconds = max(1, round((self.burst - self.bucket) / self.rate))
        window = max(1, round(self.burst / self.rate))
        return {
            "ratelimit": f'"default";r={int(self.bucket)};t={seconds}',
            "ratelimit-policy": f'"default";q={int(self.burst)};w={window}',
        }
