"""A task hub with no worker process: the test is its dispatcher."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.decisions import Decision
from sandbox.host.durable.engine import PARENT_ID
from sandbox.host.durable.task_hub import STATUS_NAMES, TaskHub
from sandbox.host.messages import TraceContext

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sandbox.host.durable.store import Store

TRACE = TraceContext(trace_parent="parent", trace_state="state")
COMPLETED = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_COMPLETED, '"done"')


def kinds(events: Iterable[pb.HistoryEvent]) -> list[str]:
    return [str(event.WhichOneof("eventType")) for event in events]


class Hub:
    """A task hub, and the work items that it handed out."""

    def __init__(self, store: Store | None = None) -> None:
        self.items: asyncio.Queue[pb.WorkItem] = asyncio.Queue()
        self.hub = TaskHub(self.items.put_nowait, store=store, longest_wait=0.02)

    def start(self, instance_id: str = "one") -> str:
        return self.hub.start_new("Orchestrator", instance_id, '"in"', version="1", trace=TRACE)

    async def item(self) -> pb.WorkItem:
        return await asyncio.wait_for(self.items.get(), 5)

    async def is_idle(self) -> bool:
        for _ in range(5):
            await asyncio.sleep(0)
        return self.items.empty()

    def decide(self, item: pb.WorkItem, *actions: pb.OrchestratorAction, status: str | None = None) -> None:
        request = item.orchestratorRequest
        self.hub.complete_orchestrator(request.instanceId, item.completionToken, Decision(list(actions), status))

    def status(self, instance_id: str = "one") -> str:
        instance = self.hub.get(instance_id)
        return "" if instance is None else STATUS_NAMES[instance.status]

    def history(self, instance_id: str = "one") -> list[str]:
        return kinds(self.events(instance_id))

    def events(self, instance_id: str = "one") -> list[pb.HistoryEvent]:
        instance = self.hub.get(instance_id)
        return [] if instance is None else instance.history

    def parent_id(self, instance_id: str) -> str | None:
        instance = self.hub.get(instance_id)
        return None if instance is None else (instance.tags or {}).get(PARENT_ID)


def activity(number: int, name: str = "Activity") -> pb.OrchestratorAction:
    return helpers.new_schedule_task_action(number, name, None, None)


def timer(number: int, seconds: float) -> pb.OrchestratorAction:
    return helpers.new_create_timer_action(number, datetime.now(UTC) + timedelta(seconds=seconds))


def new_kinds(item: pb.WorkItem) -> list[str]:
    return kinds(item.orchestratorRequest.newEvents)
