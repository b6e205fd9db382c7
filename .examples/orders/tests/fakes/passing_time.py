"""Time that passes at once.

What a test waits for becomes due when the test says so, not after a time that a busy machine may eat.
"""

from __future__ import annotations

import asyncio


async def let_pass(seconds: float) -> None:
    """Put the clock of the running loop forward, once what is under way on its sockets has come in."""
    for _ in range(3):
        await asyncio.sleep(0)
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
