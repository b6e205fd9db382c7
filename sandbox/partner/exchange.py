"""One request from its arrival to its answer, through the faults that hit it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeAlias

from sandbox.partner.answers import Answer, problem
from sandbox.partner.call import Call
from sandbox.partner.fault_answers import altered, garbled, status_answer
from sandbox.partner.faults import Alter, Drop, Garble, Hold, Latency, Revoke, Status
from sandbox.partner.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from sandbox.partner.config import PartnerConfig
    from sandbox.partner.faults import AnyFault, Route
    from sandbox.partner.state import Partner, State

    Handler: TypeAlias = Callable[[Call, State, PartnerConfig], Answer]

logger = logging.getLogger(__name__)

# Bytes of a request's body.
MAX_BODY = 1024 * 1024
# How a request ends that still waits when the partner is reset or stopped.
_CUT_SHORT = Drop(route="any", how="close")


class Exchange:
    """The ASGI application of one route: `handle` makes the answers, this adds the counters and the faults."""

    def __init__(self, partner: Partner, route: Route, handle: Handler) -> None:
        self._partner = partner
        self._route: Route = route
        self._handle = handle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request to its end."""
        state = self._partner.state
        wire = Wire(scope, receive, send)
        call = Call(self._route, scope)
        state.counters.arrived(self._route)
        if self._route in {"post", "get"} and call.bearer_token is None:
            state.counters.without_token += 1
        body = await wire.read_body(MAX_BODY)
        if body is None:
            _count(state, call, "client_gone")
            return
        call.body = body
        try:
            ending = await self._ending(call, state)
        finally:
            if call.reserved_key is not None:
                state.keys.finish(call.reserved_key)
        await _deliver(ending, wire, call, state)

    async def _ending(self, call: Call, state: State) -> Answer | Drop:
        """Give the answer to the request, or the way in which its connection is broken."""
        if len(call.body) > MAX_BODY:
            return problem(413, "Content too large", f"At most {MAX_BODY} bytes are taken")
        if not state.plan:
            return self._handle(call, state, self._partner.config)
        ending = await _before(call, state)
        if ending is not None:
            return ending
        answer = self._handle(call, state, self._partner.config)
        return await _after(call, state, answer) if answer.succeeded else answer


async def _before(call: Call, state: State) -> Answer | Drop | None:
    """Let the faults hit that come before the request is handled; None where it is to be handled."""
    for fault, fraction in state.plan.hitting(call.route, "before", call.external_id):
        if isinstance(fault, Revoke):
            state.tokens.revoke(call.bearer_token)
        ending = await _ended_by(fault, fraction, state)
        if ending is not None:
            return ending
    return None


async def _after(call: Call, state: State, answer: Answer) -> Answer | Drop:
    """Let the faults hit that come between what was done and its answer."""
    for fault, fraction in state.plan.hitting(call.route, "after", call.external_id):
        if isinstance(fault, Garble):
            answer = garbled(fault, answer)
        if isinstance(fault, Alter):
            answer = altered(fault, answer)
        ending = await _ended_by(fault, fraction, state)
        if ending is not None:
            return ending
    return answer


async def _ended_by(fault: AnyFault, fraction: float, state: State) -> Answer | Drop | None:
    """Wait if that is the fault; give what ends the request if it does."""
    if isinstance(fault, Status):
        return status_answer(fault, time.time())
    if isinstance(fault, Drop):
        return fault
    goes_on = True
    if isinstance(fault, Latency):
        goes_on = await state.waits.for_seconds(fault.duration(fraction))
    if isinstance(fault, Hold):
        goes_on = await state.waits.at_gate(fault.gate)
    return None if goes_on else _CUT_SHORT


async def _deliver(ending: Answer | Drop, wire: Wire, call: Call, state: State) -> None:
    """Send the answer or break the connection; what is counted is what the client meets."""
    if wire.client_gone:
        _count(state, call, "client_gone")
        await wire.closed()
    elif isinstance(ending, Drop):
        _count(state, call, "dropped")
        await wire.drop(ending.how)
    elif ending.half:
        _count(state, call, "half")
        await wire.send_half(ending)
    else:
        _count(state, call, ending.outcome or str(ending.status))
        await wire.send(ending)


def _count(state: State, call: Call, outcome: str) -> None:
    """Count the outcome and log it; counted before it is sent, so that who has the answer finds it counted."""
    state.counters.ended(call.route, outcome)
    if logger.isEnabledFor(logging.INFO):
        external_id = call.external_id
        request = call.route if external_id is None else f"{call.route} {external_id!r}"
        fields = {"route": call.route, "external_id": external_id, "outcome": outcome}
        logger.info("%s: %s", request, outcome, extra=fields)
