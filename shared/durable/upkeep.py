"""What the app's timers do: have failed deliveries go on, purge the history of old ones, count those under way."""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from shared.durable.durable_client import FINISHED
from shared.durable.inputs import BatchInput, SingleInput, from_json, is_batch
from shared.durable.starting import orchestrator, running_redelivery, started_again
from shared.errors import DeliveryInputError, RefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable
    from datetime import datetime

    from shared.durable.durable_client import DurableClient, Instance
    from shared.resource import Resource

logger = logging.getLogger(__name__)

MAX_REWINDS = 3


class Recovery:
    """Has deliveries go on that failed without a verdict: with their worker process, or by a defect.

    Each is rewound at most `MAX_REWINDS` times. Where that is not possible it is started again under its id. What is
    failed after that stays so, and is reported once by this process. `on_rewound` is called for each recovery with the
    name of its resource.
    """

    def __init__(self, resources: Iterable[Resource], on_rewound: Callable[[str], None]) -> None:
        self._resources = {name: each for each in resources for name in (each.deliver, each.deliver_batch)}
        self._on_rewound = on_rewound
        self._given_up: dict[str, datetime] = {}

    async def run(self, client: DurableClient, call_timeout: Callable[[Resource], float]) -> int:
        """Look at all failed deliveries. Return how many go on. `call_timeout` is the seconds of one call."""
        recovered = 0
        async for failed in _instances(client, runtimeStatus="Failed"):
            resource = self._resources.get(failed.name)
            if resource is None or self._given_up.get(failed.id) == failed.updated:
                continue
            try:
                recovered += await self._recover(client, failed.id, resource, call_timeout(resource))
            except RefusedError as exc:
                # One that cannot be recovered now must not hold back the others.
                logger.warning("delivery not recovered", extra={"instance_id": failed.id, "reason": str(exc)})
        return recovered

    async def _recover(self, client: DurableClient, id_: str, resource: Resource, call_timeout: float) -> bool:
        failed = await client.find(id_, show_input=True, show_history=True)
        if failed is None or failed.status != "Failed" or await running_redelivery(client, failed):
            return False
        kind: type[BatchInput | SingleInput] = BatchInput if is_batch(failed.input) else SingleInput
        try:
            recoveries = from_json(failed.input, kind).recoveries
        except DeliveryInputError:
            recoveries = MAX_REWINDS  # it can only fail again
        kinds = [event.get("EventType") for event in failed.history]
        # The extension replaces what failed by events of this type, and adds one: two for each rewind.
        recoveries += -(-kinds.count("GenericEvent") // 2)
        fields = {"instance_id": id_, "recoveries": recoveries, "reason": str(failed.output)[:500]}
        if recoveries >= MAX_REWINDS:
            self._given_up[id_] = failed.updated
            logger.error("delivery failed for good", extra=fields)
            return False
        # A rewind would run activities again that have failed, and the history would fit no more. It would not run
        # again what ended after the instance: a batch, which has several activities at once, would wait for ever.
        is_rewound = False
        if kind is SingleInput and "TaskFailed" not in kinds:
            with suppress(RefusedError):  # the engine may not offer it
                is_rewound = await client.manage("rewind", id_, "RecoverDeliveries")
        if is_rewound:
            logger.warning("delivery rewound", extra=fields)
        else:
            input_ = started_again(failed, failed.input, call_timeout) | {"recoveries": recoveries + 1}
            if not await client.start(orchestrator(resource, input_), id_, input_):
                return False
            logger.warning("delivery started again", extra=fields)
        self._on_rewound(resource.name)
        return True


async def purge_history(client: DurableClient, days: float, least: float, now: datetime) -> int:
    """Purge deliveries that ended more than `days` days and `least` seconds before `now`. Return their number.

    `least` is the deadline of a delivery: its caller may send it again until then, and must find it. What ended lately
    is never purged, for an activity of it may be posting.
    """
    before = now - max(timedelta(days=days), timedelta(seconds=least), timedelta(hours=1))
    purged = 0
    # What was started later has not ended earlier.
    async for instance in _instances(client, runtimeStatus=",".join(sorted(FINISHED)), createdTimeTo=before):
        if instance.updated < before:
            try:
                purged += await client.purge(instance.id)
            except RefusedError as exc:
                logger.warning("history not purged", extra={"instance_id": instance.id, "reason": str(exc)})
    logger.info("history purged", extra={"instances": purged, "older_than_days": days})
    return purged


async def backlog(client: DurableClient, now: datetime) -> dict[str, tuple[int, float]]:
    """Count the deliveries that are under way, and the age of the oldest in seconds, by the orchestrator's name."""
    found: dict[str, tuple[int, float]] = {}
    async for instance in _instances(client, runtimeStatus="Pending,Running,Suspended"):
        count, oldest = found.get(instance.name, (0, 0.0))
        found[instance.name] = count + 1, max(oldest, (now - instance.created).total_seconds())
    return found


async def _instances(client: DurableClient, **filters: str | datetime) -> AsyncIterator[Instance]:
    token = None
    while True:
        page, token = await client.list_instances(token, **filters, top=100)
        for instance in page:
            yield instance
        if token is None:
            return
