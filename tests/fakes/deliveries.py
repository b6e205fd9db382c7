"""Delivers records to a model of a partner as the app does: a look-up, then a post, each with a turn of its own."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.client.admission import Admission
    from shared.rules.flow import CallResult

    class CalledPartner(Protocol):
        """A partner, a model or a real one."""

        async def call(self, record: str, *, is_post: bool) -> CallResult:
            """Look a record up, or post it."""
            ...


WORKERS = 64
PATIENCE_OF_A_POST = 30.0


@dataclass
class Deliveries:
    """What one process delivers, and when each record was stored. Times are seconds of the loop."""

    admission: Admission
    partner: CalledPartner
    patience: float = 5.0
    stored: dict[str, float] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)
    sent_away: dict[str, int] = field(default_factory=dict)

    async def batch(self, name: str, records: int, *, deadline: float = float("inf"), workers: int = WORKERS) -> None:
        """Deliver a batch: a record that is deferred makes room for the others, and is tried again when it is due."""
        loop = asyncio.get_running_loop()
        due = [(0.0, index, 0) for index in range(records)]

        async def work() -> None:
            while due:
                at, index, attempts = heapq.heappop(due)
                if at > loop.time():
                    if at > deadline:
                        self.given_up[f"{name}-{index}"] = attempts
                        continue
                    await asyncio.sleep(at - loop.time())
                wait = await self._attempt(name, f"{name}-{index}")
                if wait is not None:
                    heapq.heappush(due, (loop.time() + max(wait, 2.0**attempts), index, min(attempts + 1, 5)))

        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(work())

    async def single(self, record: str) -> None:
        """Deliver one record, on durable timers between its attempts."""
        attempts = 0
        while (wait := await self._attempt(record, record)) is not None:
            await asyncio.sleep(max(wait, 2.0**attempts))
            attempts = min(attempts + 1, 5)

    async def singles(self, names: Sequence[str]) -> None:
        """Deliver many records at the same time."""
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(self.single(name))

    async def _attempt(self, delivery: str, record: str) -> float | None:
        """Call twice. Return None when the record is stored, else the seconds until its next attempt."""
        before = None
        for is_post in (False, True):
            patience = PATIENCE_OF_A_POST if is_post else self.patience
            if wait := await self.admission.enter(delivery, patience=patience, after=before):
                self.sent_away[delivery] = self.sent_away.get(delivery, 0) + 1
                await asyncio.sleep(wait)
                return await self._attempt(delivery, record)
            result = before = await self.partner.call(record, is_post=is_post)
            if is_post or result.is_failure:
                self.admission.leave(result)
            if result.is_failure:
                return result.retry_after or 0.0
        self.stored[record] = asyncio.get_running_loop().time()
        return None
