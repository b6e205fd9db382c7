"""The task hub as the rest of the host uses it: the engine's operations without its protobuf."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.engine import TERMINAL, Engine
from sandbox.host.messages import TraceContext

if TYPE_CHECKING:
    from collections.abc import Collection
    from datetime import datetime

    from durabletask.testing.in_memory_backend import OrchestrationInstance

    from sandbox.host.durable.decisions import Decision

# "ContinuedAsNew" for ORCHESTRATION_STATUS_CONTINUED_AS_NEW.
STATUS_NAMES = {
    number: "".join(word.title() for word in name.split("_")[2:]) for name, number in pb.OrchestrationStatus.items()
}


_FAILURES = {"taskFailed", "subOrchestrationInstanceFailed", "executionCompleted"}


@dataclass(frozen=True, slots=True)
class InstanceFilter:
    """Which instances to list or purge: empty fields allow all. `statuses` has names."""

    statuses: Collection[str] = field(default_factory=tuple)
    created_from: datetime | None = None
    created_to: datetime | None = None
    prefix: str = ""

    def allows(self, record: OrchestrationInstance) -> bool:
        """Tell whether a record is wanted, whatever the prefix of its id."""
        return (
            (not self.statuses or STATUS_NAMES[record.status] in self.statuses)
            and (self.created_from is None or record.created_at >= self.created_from)
            and (self.created_to is None or record.created_at <= self.created_to)
        )


class TaskHub(Engine):
    """Orchestration instances: start, list, signal, end, rewind and purge them.

    An instance that is named must exist. Nothing happens to a finished one, except that it is rewound or purged.
    """

    def start_new(
        self, name: str, instance_id: str | None, payload: str | None, *, version: str | None, trace: TraceContext
    ) -> str:
        """Start an instance of the orchestrator `name` with a payload of JSON; return its id.

        A finished instance with the same id is replaced.

        Raises:
            EngineError: an instance with this id is not finished.
        """
        request = pb.CreateInstanceRequest(
            instanceId=instance_id or uuid.uuid4().hex,
            name=name,
            input=helpers.get_string_value(payload),
            version=helpers.get_string_value(version),
            orchestrationIdReusePolicy=pb.OrchestrationIdReusePolicy(replaceableStatus=sorted(TERMINAL)),
            tags={"traceparent": trace.trace_parent, "tracestate": trace.trace_state},
        )
        return self.StartInstance(request, self.context).instanceId

    def page(self, wanted: InstanceFilter, *, top: int, token: str) -> tuple[list[OrchestrationInstance], str]:
        """Return one page of instances in the order of their ids, and the token of the next page ("" at the end).

        A page looks at `top` instances whose ids have the prefix, so a filtered one may be short or empty and still
        have a next page, as with Azure Storage.
        """
        first = base64.urlsafe_b64decode(token).decode("utf-8", "surrogatepass") if token else ""
        found = [each for each in self.instances() if each.instance_id.startswith(wanted.prefix)]
        records = sorted((each for each in found if each.instance_id >= first), key=lambda each: each.instance_id)
        page, rest = records[:top], records[top : top + 1]
        tokens = [base64.urlsafe_b64encode(each.instance_id.encode("utf-8", "surrogatepass")).decode() for each in rest]
        return [each for each in page if wanted.allows(each)], "".join(tokens)

    def trace_context(self, instance_id: str) -> TraceContext:
        """Return the trace context in which an instance was started."""
        record = self.get(instance_id)
        tags = (record.tags if record is not None else None) or {}
        return TraceContext(trace_parent=tags.get("traceparent", ""), trace_state=tags.get("tracestate", ""))

    def raise_event(self, instance_id: str, name: str, payload: str) -> None:
        """Send an external event, with a payload of JSON."""
        self._tell(self._instances[instance_id], helpers.new_event_raised_event(name, payload))

    def terminate(self, instance_id: str, reason: str) -> None:
        """End an instance as soon as its present work item is done."""
        self._tell(self._instances[instance_id], helpers.new_terminated_event(encoded_output=json.dumps(reason)))

    def suspend(self, instance_id: str, reason: str) -> None:
        """Hold an instance: what reaches it from now on waits until `resume`."""
        self._tell(self._instances[instance_id], helpers.new_suspend_event(encoded_input=reason))

    def resume(self, instance_id: str, reason: str) -> None:
        """Let a suspended instance go on."""
        self._tell(self._instances[instance_id], helpers.new_resume_event(encoded_input=reason))

    def rewind(self, instance_id: str, reason: str) -> None:
        """Let a failed instance go on from before its failure: what had failed is scheduled again.

        In the history a generic event stands in the place of each failure, and of what was scheduled and failed. A
        failed sub-orchestration is rewound instead, and reports to its parent again.
        """
        with self._lock:
            self._rewind(instance_id, reason)

    def _rewind(self, instance_id: str, reason: str) -> None:
        self._touch(instance_id, history=True)
        instance = self._instances[instance_id]
        failed = {
            getattr(event, kind).taskScheduledId
            for event in instance.history
            if (kind := event.WhichOneof("eventType")) in ("taskFailed", "subOrchestrationInstanceFailed")
        }
        children = []
        for position, event in enumerate(instance.history):
            kind, is_gone = event.WhichOneof("eventType"), event.WhichOneof("eventType") in _FAILURES
            if event.eventId in failed and kind in ("taskScheduled", "subOrchestrationInstanceCreated"):
                child = self._instances.get(event.subOrchestrationInstanceCreated.instanceId)
                is_gone = child is None or child.status != pb.ORCHESTRATION_STATUS_FAILED
                if child is not None and not is_gone:
                    self._parents[child.instance_id] = instance, event.eventId
                    children.append(child)
            if is_gone:
                instance.history[position] = pb.HistoryEvent(
                    eventId=event.eventId, timestamp=event.timestamp, genericEvent=pb.GenericEvent()
                )
        instance.status = pb.ORCHESTRATION_STATUS_RUNNING
        instance.output = instance.failure_details = instance.completed_at = None
        for child in children:
            self._rewind(child.instance_id, reason)
        if not children:
            data = helpers.get_string_value(reason or None)
            self._tell(instance, pb.HistoryEvent(eventId=-1, genericEvent=pb.GenericEvent(data=data)))

    def purge(self, instance_id: str) -> int:
        """Delete a finished instance; return the number of deleted instances."""
        with self._lock:
            self._touch(instance_id)
            request = pb.PurgeInstancesRequest(instanceId=instance_id)
            return self.PurgeInstances(request, self.context).deletedInstanceCount

    def purge_all(self, wanted: InstanceFilter) -> int:
        """Delete the finished instances that a filter allows; return their number."""
        return sum(self.purge(each.instance_id) for each in self.instances() if wanted.allows(each))

    def complete_orchestrator(self, instance_id: str, completion_token: str, decision: Decision) -> None:
        """Apply what an orchestrator decided; a custom status of None leaves it as it was."""
        record = self.get(instance_id)
        status = decision.custom_status or (record.custom_status if record is not None else None)
        response = pb.OrchestratorResponse(
            instanceId=instance_id,
            completionToken=completion_token,
            actions=decision.actions,
            # The engine takes the absence of a status for an empty one.
            customStatus=helpers.get_string_value(status),
        )
        self.CompleteOrchestratorTask(response, self.context)

    def complete_activity(self, item: pb.WorkItem, result: str | None, failure: pb.TaskFailureDetails | None) -> None:
        """Record how the activity of a work item ended: with a result of JSON, or with a failure."""
        request = pb.ActivityResponse(
            instanceId=item.activityRequest.orchestrationInstance.instanceId,
            taskId=item.activityRequest.taskId,
            completionToken=item.completionToken,
            result=helpers.get_string_value(result),
            failureDetails=failure,
        )
        self.CompleteActivityTask(request, self.context)
