"""The task hub as the rest of the host uses it: the engine's operations without its protobuf."""

from __future__ import annotations

import base64
import json
import uuid
from typing import TYPE_CHECKING

from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.engine import LONGEST_WAIT_SECONDS, TERMINAL, Engine
from sandbox.host.durable.instances import Instance, InstanceFilter, instance_from_record
from sandbox.host.messages import TraceContext

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.host.durable.decisions import Decision


class TaskHub:
    """Orchestration instances: start, look at, signal, end and purge them.

    Nothing happens to a finished instance, except that it is purged; EngineError tells of one that does not exist.
    A durable timer looks at the wall clock at least every `longest_wait` seconds.
    """

    def __init__(self, dispatch: Callable[[pb.WorkItem], None], *, longest_wait: float = LONGEST_WAIT_SECONDS) -> None:
        self._engine = Engine(dispatch, longest_wait=longest_wait)

    def start(
        self, name: str, instance_id: str | None, payload: str | None, *, version: str | None, trace: TraceContext
    ) -> str:
        """Start an instance of the orchestrator `name` with a payload of JSON; return its id.

        A finished instance with the same id is replaced.

        Raises:
            EngineError: an instance with this id is not finished (ALREADY_EXISTS).
        """
        request = pb.CreateInstanceRequest(
            instanceId=instance_id or uuid.uuid4().hex,
            name=name,
            input=helpers.get_string_value(payload),
            version=helpers.get_string_value(version),
            orchestrationIdReusePolicy=pb.OrchestrationIdReusePolicy(replaceableStatus=sorted(TERMINAL)),
            tags={"traceparent": trace.trace_parent, "tracestate": trace.trace_state},
        )
        return self._engine.StartInstance(request, self._engine.context).instanceId

    def get(self, instance_id: str) -> Instance | None:
        """Return an instance, None where there is none."""
        record = self._engine.instance(instance_id)
        return None if record is None else instance_from_record(record)

    def page(self, wanted: InstanceFilter, *, top: int, token: str) -> tuple[list[Instance], str]:
        """Return one page of instances in the order of their ids, and the token of the next page ("" at the end).

        A page looks at `top` instances whose ids have the prefix, so a filtered one may be short or empty and still
        have a next page, as with Azure Storage.
        """
        after = base64.urlsafe_b64decode(token).decode("utf-8", "surrogatepass") if token else ""
        found = (each for each in self._engine.instances() if each.instance_id.startswith(wanted.prefix))
        records = sorted((each for each in found if each.instance_id >= after), key=lambda each: each.instance_id)
        page, rest = records[:top], records[top:]
        next_token = (
            base64.urlsafe_b64encode(rest[0].instance_id.encode("utf-8", "surrogatepass")).decode() if rest else ""
        )
        return [instance_from_record(each) for each in page if wanted.allows(each)], next_token

    def history(self, instance_id: str) -> list[pb.HistoryEvent]:
        """Return the history of an instance."""
        record = self._engine.instance(instance_id)
        return [] if record is None else list(record.history)

    def trace_context(self, instance_id: str) -> TraceContext:
        """Return the trace context in which an instance was started."""
        record = self._engine.instance(instance_id)
        tags = (record.tags if record is not None else None) or {}
        return TraceContext(trace_parent=tags.get("traceparent", ""), trace_state=tags.get("tracestate", ""))

    def name_of(self, instance_id: str) -> str:
        """Name the orchestrator of an instance, "" where there is no such instance."""
        record = self._engine.instance(instance_id)
        return "" if record is None else record.name

    def raise_event(self, instance_id: str, name: str, payload: str) -> None:
        """Send an external event, with a payload of JSON, to an instance that is not finished."""
        request = pb.RaiseEventRequest(instanceId=instance_id, name=name, input=helpers.get_string_value(payload))
        self._engine.RaiseEvent(request, self._engine.context)

    def terminate(self, instance_id: str, reason: str) -> None:
        """End an instance as soon as its present work item is done."""
        output = helpers.get_string_value(json.dumps(reason))
        self._engine.TerminateInstance(pb.TerminateRequest(instanceId=instance_id, output=output), self._engine.context)

    def suspend(self, instance_id: str, reason: str) -> None:
        """Hold an instance: what reaches it from now on waits until `resume`."""
        request = pb.SuspendRequest(instanceId=instance_id, reason=helpers.get_string_value(reason))
        self._engine.SuspendInstance(request, self._engine.context)

    def resume(self, instance_id: str, reason: str) -> None:
        """Let a suspended instance go on."""
        request = pb.ResumeRequest(instanceId=instance_id, reason=helpers.get_string_value(reason))
        self._engine.ResumeInstance(request, self._engine.context)

    def rewind(self, instance_id: str, reason: str) -> None:
        """Let a failed instance go on from before its failure."""
        self._engine.rewind(instance_id, reason)

    def purge(self, instance_id: str) -> int:
        """Delete a finished instance; return the number of deleted instances."""
        request = pb.PurgeInstancesRequest(instanceId=instance_id)
        return self._engine.PurgeInstances(request, self._engine.context).deletedInstanceCount

    def purge_all(self, wanted: InstanceFilter) -> int:
        """Delete the finished instances that a filter allows; return their number."""
        return sum(self.purge(each.instance_id) for each in list(self._engine.instances()) if wanted.allows(each))

    def postpone(self, instance_id: str, count: int) -> None:
        """Put the last `count` events of an instance's work item back, for the next one."""
        self._engine.postpone(instance_id, count)

    def complete_orchestrator(self, instance_id: str, completion_token: str, decision: Decision) -> None:
        """Apply what an orchestrator decided; a custom status of None leaves it as it was."""
        record = self._engine.instance(instance_id)
        status = decision.custom_status or (record.custom_status if record is not None else None)
        response = pb.OrchestratorResponse(
            instanceId=instance_id,
            completionToken=completion_token,
            actions=decision.actions,
            # The engine takes the absence of a status for an empty one.
            customStatus=helpers.get_string_value(status),
        )
        self._engine.CompleteOrchestratorTask(response, self._engine.context)

    def complete_activity(self, item: pb.WorkItem, result: str | None, failure: pb.TaskFailureDetails | None) -> None:
        """Record how the activity of a work item ended: with a result of JSON, or with a failure."""
        request = pb.ActivityResponse(
            instanceId=item.activityRequest.orchestrationInstance.instanceId,
            taskId=item.activityRequest.taskId,
            completionToken=item.completionToken,
            result=helpers.get_string_value(result),
            failureDetails=failure,
        )
        self._engine.CompleteActivityTask(request, self._engine.context)

    def close(self) -> None:
        """Drop all durable timers; the instances are gone with the process."""
        self._engine.close()
