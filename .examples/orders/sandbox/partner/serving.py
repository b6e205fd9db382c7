"""One request from its arrival to its answer, through the faults that hit it: the partners as an ASGI application."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response

from sandbox.partner.answers import (
    PROBLEM,
    Answer,
    altered,
    garbled,
    normalised,
    problem,
    retry_after,
    status_answer,
)
from sandbox.partner.call import Call, Endpoint
from sandbox.partner.control import Control
from sandbox.partner.faults import (
    Alter,
    Concurrency,
    Drop,
    Duplicate,
    Garble,
    Hold,
    Latency,
    Limit,
    Normalise,
    Revoke,
    Status,
)
from sandbox.partner.record_api import get_record, honours_keys, post_record
from sandbox.partner.token_endpoint import DISCOVERY_PATH, TOKEN_PATH, get_discovery, post_token
from sandbox.partner.wire import Wire
from sandbox.resources import base_path

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from sandbox.partner.fault_plan import Hit
    from sandbox.partner.state import PartnerSandbox, Site

logger = logging.getLogger(__name__)

# Bytes of a request's body.
MAX_BODY = 1024 * 1024
# How a request ends that still waits when the partners are reset or stopped.
_CUT_SHORT = Drop(route="any", how="close")
_CORS = Middleware(
    CORSMiddleware,
    allow_origin_regex=r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?",
    allow_methods=["*"],
    allow_headers=["*"],
)


class PartnerApp:
    """The ASGI application of all partners. It is to be served by a `sandbox.partner.wire.PartnerProtocol`."""

    def __init__(self, sandbox: PartnerSandbox) -> None:
        self._sandbox = sandbox
        self._endpoints = [
            endpoint
            for resource in sandbox.config.resources
            for endpoint in Endpoint.of(resource, base_path(resource.partner))
        ]
        self._control = Starlette(
            routes=Control(sandbox).routes(),
            exception_handlers={HTTPException: self._no_route},
            middleware=[_CORS],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request to its end."""
        call = self._call(scope)
        if call is None:
            await self._control(scope, receive, send)
            return
        wire, counters = Wire(scope, receive, send), call.site.counters
        call.state.tick()
        counters.arrived(call.route)
        counters.without_token += call.resource is not None and call.bearer_token is None
        body = await wire.read_body(MAX_BODY)
        if body is None:
            _count(call, "client_gone")
            return
        call.body = body
        key = call.idempotency_key
        if key is not None and call.resource and honours_keys(call.resource, self._sandbox.config):
            call.reserved_key = key if call.site.keys.reserve(key) else None
        try:
            ending = await self._ending(call)
        finally:
            if call.reserved_key is not None:
                call.site.keys.release(call.reserved_key)
        await _deliver(ending, wire, call)

    def _call(self, scope: Scope) -> Call | None:
        """Return the call to the endpoint that the request names; None where it is for the control routes."""
        method, path = scope["method"], scope["path"]
        for site in self._sandbox.state.sites:
            if not path.startswith(site.base_path + "/"):
                continue
            if (method, path) == ("POST", site.base_path + TOKEN_PATH):
                return Call(site, "token", scope)
            if (method, path) == ("GET", site.base_path + DISCOVERY_PATH):
                return Call(site, "discovery", scope)
            for endpoint in self._endpoints:
                if endpoint.method == method and endpoint.resource.partner.name == site.partner.name:
                    is_meant, path_id = endpoint.matched_id(scope)
                    if is_meant:
                        return Call(site, endpoint.route, scope, endpoint.resource, path_id)
        return None

    async def _no_route(self, request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)  # noqa: S101, it is registered for that class alone
        site = self._site_of(request.url.path)
        if site is not None:
            site.counters.other_requests += 1
        answer = problem(exc.status_code, exc.detail, f"There is no {request.method} {request.url.path}")
        return Response(answer.body, status_code=exc.status_code, headers=exc.headers, media_type=PROBLEM)

    def _site_of(self, path: str) -> Site | None:
        sites = self._sandbox.state.sites
        return next((site for site in sites if path.startswith(site.base_path + "/")), sites[0] if sites else None)

    async def _ending(self, call: Call) -> Answer | Drop:
        """Return the answer to the request, or the way in which its connection is broken."""
        if len(call.body) > MAX_BODY:
            return problem(413, "Content too large", f"At most {MAX_BODY} bytes are taken")
        if not call.state.plan:
            return self._handle(call)
        ending, headers = await _before(call)
        if ending is None:
            answer = self._handle(call)
            ending = await _after(call, answer) if answer.is_success else answer
        return ending if isinstance(ending, Drop) else replace(ending, headers=(*ending.headers, *headers))

    def _handle(self, call: Call) -> Answer:
        config = self._sandbox.config
        if call.resource is None:
            return post_token(call, config) if call.route == "token" else get_discovery(call, config)
        return post_record(call, call.resource, config) if call.route == "post" else get_record(call, call.resource)


async def _before(call: Call) -> tuple[Answer | Drop | None, tuple[tuple[str, str], ...]]:
    """Let the faults hit that come before the request is handled; None where it is to be handled.

    Also returns the headers that every answer to this request has.
    """
    headers: tuple[tuple[str, str], ...] = ()
    for hit in call.state.plan.hitting("before", call.target, call.site.counters.in_flight):
        headers += hit.headers
        if isinstance(hit.fault, Revoke):
            call.site.tokens.revoke(call.bearer_token)
        ending = await _ended_by(hit, call)
        if ending is not None:
            return ending, headers
    return None, headers


async def _after(call: Call, answer: Answer) -> Answer | Drop:
    """Let the faults hit that come between what was done and its answer."""
    for hit in call.state.plan.hitting("after", call.target, call.site.counters.in_flight):
        fault = hit.fault
        if isinstance(fault, Garble):
            answer = garbled(fault, answer)
        elif isinstance(fault, Alter):
            answer = altered(fault, answer)
        elif isinstance(fault, Normalise):
            answer = normalised(answer, fault.rules, call.resource.id_member if call.resource else "")
        elif isinstance(fault, Duplicate):
            answer = replace(answer, again_after=fault.seconds)
        ending = await _ended_by(hit, call)
        if ending is not None:
            return ending
    return answer


async def _ended_by(hit: Hit, call: Call) -> Answer | Drop | None:
    """Wait if that is the fault; return what ends the request if it does."""
    fault, goes_on = hit.fault, True
    if isinstance(fault, Status):
        return status_answer(fault, time.time())
    if isinstance(fault, Drop):
        return fault
    if isinstance(fault, Limit):
        # Whole seconds, as RFC 9110 section 10.2.3 has them, and not too early.
        headers = retry_after(int(hit.next_after) + 1) if fault.retry_after else ()
        return problem(fault.status, "Too many requests", f"At most {fault.rate:g} a second are taken", headers=headers)
    if isinstance(fault, Concurrency):
        headers = retry_after(fault.retry_after)
        return problem(fault.status, "Too busy", f"At most {fault.most} at once are taken", headers=headers)
    if isinstance(fault, Latency):
        goes_on = await call.state.waits.for_seconds(fault.duration(hit.fraction))
    if isinstance(fault, Hold):
        goes_on = await call.state.waits.at_gate(fault.gate)
    return None if goes_on else _CUT_SHORT


async def _deliver(ending: Answer | Drop, wire: Wire, call: Call) -> None:
    """Send the answer or break the connection; what is counted is what the client meets."""
    if wire.client_gone:
        _count(call, "client_gone")
        await wire.closed()
    elif isinstance(ending, Drop):
        _count(call, "dropped")
        await wire.drop(ending.how)
    elif ending.is_half:
        _count(call, "half")
        await wire.send_half(ending)
    else:
        _count(call, ending.outcome or str(ending.status))
        await wire.send(ending)


def _count(call: Call, outcome: str) -> None:
    """Count and log the outcome, before it is sent: whoever has the answer finds it counted."""
    call.site.counters.ended(call.route, outcome)
    if logger.isEnabledFor(logging.INFO):
        target = call.target
        fields = {"partner": target.partner, "route": call.route, "record_id": target.record, "outcome": outcome}
        what = call.route if target.record is None else f"{call.route} {target.record!r}"
        logger.info("%s %s: %s", target.partner, what, outcome, extra=fields)
