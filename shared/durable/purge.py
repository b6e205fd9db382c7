"""Purges the history of finished orchestrations that are old enough."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

logger = logging.getLogger(__name__)

# Before there was anything to purge; the API wants a beginning.
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
# A run that has purged so many pages leaves the rest to the next one.
MAX_PAGES = 10_000


class PurgingClient(Protocol):
    """What is used of `DurableOrchestrationClient`."""

    async def purge_instance_history_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: list[Any] | None = None,
    ) -> Any:  # noqa: ANN401, the Durable SDK is untyped
        """Purge the instances that match; the result counts them."""


async def purge_history(client: PurgingClient, days: float, finished: list[Any], now: datetime) -> int:
    """Purge instances that are `finished` and were created more than `days` days before `now`; give their number.

    A host may purge page by page: it is asked until nothing is left.
    """
    purged = 0
    for _ in range(MAX_PAGES):
        result = await client.purge_instance_history_by(_BEGINNING, now - timedelta(days=days), finished)
        if not result.instances_deleted:
            break
        purged += result.instances_deleted
    logger.info("history purged", extra={"instances": purged, "older_than_days": days})
    return purged
