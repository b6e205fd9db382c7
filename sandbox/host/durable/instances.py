"""Orchestration instances as values: their state, their statuses by name, and which of them somebody wants."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.engine import PARENT_ID, TERMINAL

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from durabletask.testing.in_memory_backend import OrchestrationInstance

STATUS_NAMES = {
    pb.ORCHESTRATION_STATUS_PENDING: "Pending",
    pb.ORCHESTRATION_STATUS_RUNNING: "Running",
    pb.ORCHESTRATION_STATUS_COMPLETED: "Completed",
    pb.ORCHESTRATION_STATUS_FAILED: "Failed",
    pb.ORCHESTRATION_STATUS_TERMINATED: "Terminated",
    pb.ORCHESTRATION_STATUS_SUSPENDED: "Suspended",
    pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW: "ContinuedAsNew",
    pb.ORCHESTRATION_STATUS_CANCELED: "Canceled",
}
STATUSES = {name.lower(): status for status, name in STATUS_NAMES.items()}


@dataclass(frozen=True, slots=True)
class Instance:
    """An orchestration instance as it is now; `input`, `output` and `custom_status` are JSON, None where absent."""

    instance_id: str
    name: str
    version: str | None
    parent_instance_id: str | None
    status: str
    is_finished: bool
    created_at: datetime
    last_updated_at: datetime
    input: str | None
    output: str | None
    custom_status: str | None


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Which instances to list or purge: empty fields allow all."""

    statuses: Collection[pb.OrchestrationStatus] = field(default_factory=tuple)
    created_from: datetime | None = None
    created_to: datetime | None = None
    prefix: str = ""

    def allows(self, record: OrchestrationInstance) -> bool:
        """Tell whether a record is wanted, whatever the prefix of its id."""
        return (
            (not self.statuses or record.status in self.statuses)
            and (self.created_from is None or record.created_at >= self.created_from)
            and (self.created_to is None or record.created_at <= self.created_to)
        )


def instance_from_record(record: OrchestrationInstance) -> Instance:
    """Return the state of an engine's record."""
    return Instance(
        instance_id=record.instance_id,
        name=record.name,
        version=record.version,
        parent_instance_id=(record.tags or {}).get(PARENT_ID),
        status=STATUS_NAMES[record.status],
        is_finished=record.status in TERMINAL,
        created_at=record.created_at,
        last_updated_at=record.last_updated_at,
        input=record.input or None,
        output=record.output or None,
        custom_status=record.custom_status or None,
    )
