"""A token store in memory that several grants can share, and that fails on demand."""

from __future__ import annotations

import asyncio

from shared.errors import TokenStoreError


class MemoryStore:
    """Counts its calls; raises while `down`, hangs while `hangs`, and loses the answer of what is in `loses`."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lifetimes: list[float] = []
        self.leases: dict[str, str] = {}
        self.calls: list[str] = []
        self.down = False
        self.hangs = False
        self.loses: set[str] = set()
        self.is_closed = False

    async def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.down:
            raise TokenStoreError("the store is down")
        if self.hangs:
            await asyncio.Event().wait()

    def _answered(self, method: str) -> None:
        if method in self.loses:
            raise TokenStoreError("the answer came too late")

    async def read(self, name: str) -> bytes | None:
        await self._called("read")
        return self.values.get(name)

    async def write(self, name: str, value: bytes, seconds: float) -> None:
        await self._called("write")
        self.values[name] = value
        self.lifetimes.append(seconds)

    async def acquire(self, name: str, owner: str, seconds: float) -> bool:
        await self._called("acquire")
        assert seconds > 0
        is_ours = self.leases.setdefault(name, owner) == owner
        self._answered("acquire")
        return is_ours

    async def release(self, name: str, owner: str) -> None:
        await self._called("release")
        if self.leases.get(name) == owner:
            del self.leases[name]

    async def aclose(self) -> None:
        self.is_closed = True
