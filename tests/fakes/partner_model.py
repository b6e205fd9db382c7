"""A partner as a model: it answers calls in virtual time, and counts what it did."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.rules.flow import CallResult

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping


@dataclass
class PartnerModel:
    """Its settings may change at any time. Times are those of the running loop.

    `rate` and `burst` are those of a token bucket; `most` is the number of calls at a time, above which it answers
    `busy_status`; `servers` work on calls at a time, and the others queue. An outage ends at `down_until`: it refuses
    connections, or keeps silent for `silence` seconds. It answers `busy_status` to the part `fickle` of the calls, too.
    """

    random: random.Random
    latency: float = 0.05
    rate: float = math.inf
    burst: float = 50.0
    window: float | None = None
    most: float = math.inf
    busy_status: int = 503
    fickle: float = 0.0
    servers: int | None = None
    retry_after: float | None = 1.0
    quota_headers: bool = False
    down_until: float = -math.inf
    silence: float | None = None
    poisoned: Mapping[str, CallResult] = field(default_factory=dict)
    script: list[int] = field(default_factory=list)

    calls: int = 0
    refused: int = 0
    calls_while_down: int = 0
    accepted_at: list[float] = field(default_factory=list)
    in_flight: int = 0
    _tokens: float | None = None
    _filled_at: float = 0.0
    _queue: asyncio.Semaphore | None = None

    async def call(self, record: str, *, is_post: bool) -> CallResult:  # noqa: ARG002, both cost the same
        """Answer one call after its latency, which varies by a third."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        travel = self.latency * self.random.uniform(0.05, 0.15)
        await asyncio.sleep(travel)
        status, headers = await self._work(record)
        await asyncio.sleep(travel)
        seconds = loop.time() - start
        if isinstance(status, CallResult):
            return CallResult(seconds, status.status, status.headers, status.retry_after)
        waits = status == 429 or (status == 503 and self.busy_status != 503)
        return CallResult(seconds, status, headers, self.retry_after if waits else None)

    async def _work(self, record: str) -> tuple[int | CallResult | None, Mapping[str, str]]:
        now = asyncio.get_running_loop().time()
        self.calls += 1
        if now < self.down_until:
            self.calls_while_down += 1
            if self.silence is not None:
                await asyncio.sleep(self.silence)
            return None, {}
        if self.script:
            return self.script.pop(0), {}
        if record in self.poisoned:
            return self.poisoned[record], {}
        if self.in_flight >= self.most or (self.fickle and self.random.random() < self.fickle):
            self.refused += 1
            return self.busy_status, {}
        if not self._take(now):
            self.refused += 1
            return 429, self._headers(now)
        headers = self._headers(now)
        self.in_flight += 1
        try:
            work = self.latency * self.random.uniform(0.6, 1.0)
            if self.servers is not None:
                self._queue = self._queue or asyncio.Semaphore(self.servers)
                async with self._queue:
                    await asyncio.sleep(work)
            else:
                await asyncio.sleep(work)
        finally:
            self.in_flight -= 1
        self.accepted_at.append(asyncio.get_running_loop().time())
        return 200, headers

    def _take(self, now: float) -> bool:
        if self.rate == math.inf:
            return True
        if self.window is not None:
            if self._tokens is None or now // self.window != self._filled_at // self.window:
                self._tokens = self.rate * self.window
        else:
            tokens = self.burst if self._tokens is None else self._tokens
            self._tokens = min(self.burst, tokens + (now - self._filled_at) * self.rate)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _headers(self, now: float) -> Mapping[str, str]:
        if not self.quota_headers or self._tokens is None:
            return {}
        if self.window is not None:
            most, window = self.rate * self.window, self.window
            reset = window - now % window
        else:
            most, window = self.burst, self.burst / self.rate
            reset = (self.burst - self._tokens) / self.rate
        return {
            "ratelimit-policy": f'"default";q={int(most)};w={math.ceil(window)}',
            "ratelimit": f'"default";r={int(self._tokens)};t={math.ceil(reset)}',
        }
