"""How requests are made to wait: for a time, or at a named gate."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Gate:
    is_open: bool = False
    waiting: set[asyncio.Future[bool]] = field(default_factory=set)


class Waits:
    """Everything that a request can wait for. Both kinds of wait tell whether the request may go on."""

    def __init__(self) -> None:
        self._gates: dict[str, _Gate] = {}
        self._sleeping: set[asyncio.Future[bool]] = set()
        self._ended = False

    async def for_seconds(self, seconds: float) -> bool:
        """Wait so many seconds; False, at once, when all waiting is ended."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(seconds, _go_on, future)
        try:
            return await self._wait(self._sleeping, future)
        finally:
            timer.cancel()

    async def at_gate(self, name: str) -> bool:
        """Wait until the gate is open; False, at once, when all waiting is ended."""
        gate = self._gates.setdefault(name, _Gate())
        if gate.is_open:
            return not self._ended
        return await self._wait(gate.waiting, asyncio.get_running_loop().create_future())

    def open(self, name: str) -> int:
        """Open the gate and leave it open; tell how many requests it held."""
        gate = self._gates.setdefault(name, _Gate())
        gate.is_open = True
        held = [future for future in gate.waiting if not future.done()]
        for future in held:
            future.set_result(True)
        return len(held)

    def close(self, name: str) -> None:
        """Close the gate again."""
        self._gates.setdefault(name, _Gate()).is_open = False

    def end(self) -> None:
        """End all waiting, of now and later: no request goes on."""
        self._ended = True
        for waiting in (self._sleeping, *(gate.waiting for gate in self._gates.values())):
            for future in waiting:
                if not future.done():
                    future.set_result(False)

    def to_json(self) -> dict[str, dict[str, object]]:
        """Return each gate's state: whether it is open, and how many requests wait at it."""
        return {
            name: {"open": gate.is_open, "waiting": sum(not future.done() for future in gate.waiting)}
            for name, gate in self._gates.items()
        }

    async def _wait(self, waiting: set[asyncio.Future[bool]], future: asyncio.Future[bool]) -> bool:
        if self._ended:
            return False
        waiting.add(future)
        try:
            return await future
        finally:
            waiting.discard(future)


def _go_on(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)
