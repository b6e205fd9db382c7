"""W3C trace context: which trace an invocation belongs to, from the HTTP request through orchestration to activity."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from sandbox.host.messages import TraceContext

if TYPE_CHECKING:
    from collections.abc import Mapping

# W3C Trace Context, section 3.2.
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")


def new_trace_context() -> TraceContext:
    """Begin a trace, marked as sampled."""
    return TraceContext(trace_parent=f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01")


def trace_context_of(headers: Mapping[str, str]) -> TraceContext | None:
    """Return the trace context that a request carries, None where it has none or a malformed one."""
    parent = headers.get("traceparent", "")
    if _TRACEPARENT.fullmatch(parent) is None:
        return None
    return TraceContext(trace_parent=parent, trace_state=headers.get("tracestate", ""))
