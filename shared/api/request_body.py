"""The body of a request, ready to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter


class RequestBody(aiohttp.Payload):
    """The bytes of a JSON text. `aiohttp.BytesPayload` is the same for any bytes, and takes 5 µs of each call more."""

    _default_content_type = "application/json"
    _value: bytes

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return len(self._value)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Give the text."""
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        await writer.write(self._value)
