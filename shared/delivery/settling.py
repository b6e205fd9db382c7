"""When a batch has ended before its time, activities of it may still be posting: how they notice, and who waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.delivery.durable_client import find
from shared.delivery.problem import ProblemError

if TYPE_CHECKING:
    from shared.delivery.durable_client import DurableClient, Instance

LOOK = 2.0
"""Seconds between two looks of an activity whether its batch goes on."""

# Azure Storage hands activities on before it says of their orchestration that it runs.
GOES_ON = {"Pending", "Running"}


async def until_it_ends(client: DurableClient, instance_id: str) -> None:
    """Return when the batch does not go on any more: terminated, suspended, broken off, purged, or begun anew."""
    begun: datetime | None = None
    while True:
        await asyncio.sleep(LOOK)
        try:
            instance = await find(client, instance_id)
        except ProblemError:
            # Durable's state cannot be read now; find() has logged it.
            continue
        if instance is None or instance.status not in GOES_ON or (begun is not None and instance.created != begun):
            return
        begun = instance.created


def settling_pause(ended: Instance, call_timeout: float) -> dict[str, float]:
    """Give the terms of what is started in the place of a batch that has ended before its time.

    `{"pause": seconds}` until none of its activities posts any more, nothing where that is so already: an activity has
    looked by then, and the look-up and the post that it was at are over.
    """
    settled = LOOK + 2 * call_timeout
    if ended.updated is not None:
        settled -= max(timedelta(), datetime.now(UTC) - ended.updated).total_seconds()
    return {"pause": settled} if settled > 0 else {}
