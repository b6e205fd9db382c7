"""The spans of orchestrations and activities, named as the Durable Functions extension names them (tracing V2).

create_orchestration:NAME  producer, the start of an instance, below the span of who starts it
orchestration:NAME         server, from an instance's first step to its end
activity:NAME              client, from the scheduling of an activity to its result
activity:NAME              server, below that: the activity itself
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind

if TYPE_CHECKING:
    from sandbox.host.messages import TraceContext
    from sandbox.host.spans import Span, Spans

INSTANCE_ID = "durabletask.task.instance_id"


def _attributes(kind: str, name: str, instance_id: str | None) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {"durabletask.type": kind, "durabletask.task.name": name}
    return attributes if instance_id is None else {**attributes, INSTANCE_ID: instance_id}


class DurableSpans:
    """The spans of one task hub. An orchestration's is held here, for it lasts as long as the instance."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._orchestrations: dict[str, Span] = {}

    def creation(self, name: str, parent: TraceContext | None) -> Span:
        """Begin the start of an instance, whose id is not known yet: set `INSTANCE_ID`."""
        attributes = _attributes("orchestration", name, None)
        return self._spans.begin(f"create_orchestration:{name}", SpanKind.PRODUCER, parent, attributes)

    def orchestration(self, name: str, instance_id: str, parent: TraceContext) -> TraceContext:
        """Return the trace context of an instance's steps; the first step begins its span."""
        span = self._orchestrations.get(instance_id)
        if span is None:
            attributes = _attributes("orchestration", name, instance_id)
            span = self._spans.begin(f"orchestration:{name}", SpanKind.SERVER, parent, attributes)
            self._orchestrations[instance_id] = span
        return span.context

    def context_of(self, instance_id: str | None) -> TraceContext | None:
        """Return the trace context of an orchestration under way, None where there is no such."""
        span = self._orchestrations.get(instance_id or "")
        return None if span is None else span.context

    def end_orchestration(self, instance_id: str, status: str) -> None:
        """End the span of an instance that has finished."""
        span = self._orchestrations.pop(instance_id, None)
        if span is not None:
            span.set("durabletask.task.status", status)
            span.end(failed=status == "Failed")

    def activity(self, name: str, instance_id: str, parent: TraceContext, *, is_scheduled: bool = False) -> Span:
        """Begin an activity, or the time from its scheduling to its result."""
        kind = SpanKind.CLIENT if is_scheduled else SpanKind.SERVER
        return self._spans.begin(f"activity:{name}", kind, parent, _attributes("activity", name, instance_id))
