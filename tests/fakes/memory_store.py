"""A token store in memory that several grants can share, and that fails on demand."""

from __future__ import annotations

from shared.auth.shared_token import TokenStoreError


class MemoryStore:
    """Counts its calls; raises while `down`."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.lifetimes: list[float] = []
        self.leases: dict[str, str] = {}
        self.calls: list[str] = []
        self.down = False

    def _called(self, method: str) -> None:
        self.calls.append(method)
        if self.down:
            raise TokenStoreError("the store is down")

    async def read(self, name: str) -> bytes | None:
        self._called("read")
        return self.values.get(name)

    async def write(self, name: str, value: bytes, seconds: float) -> None:
        self._called("write")
        self.values[name] = value
        self.lifetimes.append(seconds)

    async def acquire(self, name: str, owner: str, seconds: float) -> bool:
        self._called("acquire")
        assert seconds > 0
        return self.leases.setdefault(name, owner) == owner

    async def release(self, name: str, owner: str) -> None:
        self._called("release")
        if self.leases.get(name) == owner:
            del self.leases[name]
