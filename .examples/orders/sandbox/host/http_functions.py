"""Serves the HTTP functions of the app: finds the function of a request, runs it, and answers with what it returned."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from sandbox.host.errors import BodyTooLargeError, WorkerEndedError
from sandbox.host.http_invocation import request_data, response_from_data
from sandbox.host.spans import Spans
from sandbox.host.trace import trace_context_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from sandbox.host.functions import Function
    from sandbox.host.keys import Keys
    from sandbox.host.messages import TraceContext, TypedData
    from sandbox.host.routes import RouteTable
    from sandbox.host.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

# A server's span has failed where the server has: a 4xx is the caller's.
FIRST_FAILURE = 500


class HttpFunctions:
    """The HTTP functions of one app; without `keys` everybody may call them."""

    def __init__(
        self, routes: RouteTable, worker: WorkerProcess, spans: Spans | None = None, keys: Keys | None = None
    ) -> None:
        self._routes = routes
        self._spans = spans or Spans()
        self._worker = worker
        self._keys = keys

    async def respond(self, request: Request, path: str) -> Response | None:
        """Answer a request for the decoded path `path`, None where no function has that route and method."""
        found = self._routes.find(request.method, path)
        if found is None:
            return None
        route, params = found
        function = route.function
        if self._keys is not None and not self._keys.opens_function(request, function.level):
            return Response(status_code=401)
        try:
            value = await request_data(request, params)
        except BodyTooLargeError:
            return Response(status_code=413)
        except ClientDisconnect:
            # Nobody is there to read this.
            return Response(status_code=400)
        # No URL and no query: they may hold a key.
        attributes = {"http.request.method": request.method, "http.route": f"/{route.template}"}
        name = f"{request.method} /{route.template}"
        span = self._spans.begin(name, SpanKind.SERVER, trace_context_of(request.headers), attributes)
        response = await self._run(function, value, span.context)
        span.set("http.response.status_code", response.status_code)
        span.end(failed=response.status_code >= FIRST_FAILURE)
        return response

    async def _run(self, function: Function, value: TypedData, trace: TraceContext) -> Response:
        try:
            answer = await self._worker.invoke(function, value, trace)
            if answer.exception is None:
                return response_from_data(answer.return_value)
            text, stack = answer.exception.message, answer.exception.stack_trace
            logger.error("HTTP function %s failed: %s\n%s", function.name, text, stack)
        except (WorkerEndedError, ValueError) as error:
            logger.error("HTTP function %s failed: %s", function.name, error)  # noqa: TRY400 - the text says it all
        return Response(status_code=500)
