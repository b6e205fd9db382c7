"""Serves the HTTP functions of the app: finds the function of a request, runs it, and answers with what it returned."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from sandbox.host.errors import BodyTooLargeError, WorkerEndedError
from sandbox.host.http_invocation import request_data, response_from_data
from sandbox.host.spans import Spans
from sandbox.host.trace import trace_context_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from sandbox.host.functions import Function
    from sandbox.host.messages import Answer, TraceContext, TypedData
    from sandbox.host.routes import RouteTable
    from sandbox.host.settings import HostConfiguration
    from sandbox.host.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

# Running these again does no work twice (RFC 9110 section 9.2.1).
SAFE_METHODS = frozenset({"GET", "HEAD"})
# A request that ends its worker process each time must not do so forever.
MAX_RUNS = 3
# A server's span has failed where the server has: a 4xx is the caller's.
FIRST_FAILURE = 500


def _problem(status: int, title: str, detail: str) -> Response:
    """Answer with problem details (RFC 9457)."""
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return JSONResponse(document, status_code=status, media_type="application/problem+json")


class HttpFunctions:
    """The HTTP functions of one app."""

    def __init__(
        self,
        routes: RouteTable,
        worker: WorkerProcess,
        configuration: HostConfiguration,
        spans: Spans | None = None,
    ) -> None:
        self._routes = routes
        self._spans = spans or Spans()
        self._worker = worker
        self._configuration = configuration

    async def respond(self, request: Request, path: str) -> Response | None:
        """Answer a request for the decoded path `path`, None where no function has that route and method."""
        found = self._routes.find(request.method, path)
        if found is None:
            return None
        route, params = found
        function = route.function
        try:
            value = await request_data(request, path, params)
        except BodyTooLargeError:
            return Response(status_code=413)
        except ClientDisconnect:
            # Nobody is there to read this.
            return Response(status_code=400)
        # No URL and no query: they may hold a key.
        attributes = {"http.request.method": request.method, "http.route": f"/{route.template}"}
        name = f"{request.method} /{route.template}"
        span = self._spans.begin(name, SpanKind.SERVER, trace_context_of(request.headers), attributes)
        response = await self._run(request, function, value, span.context)
        span.set("http.response.status_code", response.status_code)
        span.end(failed=response.status_code >= FIRST_FAILURE)
        return response

    async def _run(self, request: Request, function: Function, value: TypedData, trace: TraceContext) -> Response:
        try:
            answer = await self._invoke(function, value, trace, is_safe=request.method in SAFE_METHODS)
        except WorkerEndedError as error:
            if error.is_final:
                return _problem(503, "Service Unavailable", "The host is stopping.")
            return _problem(502, "Bad Gateway", f"{error} Whether the function {function.name} has acted is unknown.")
        return self._response(function, answer)

    async def _invoke(self, function: Function, value: TypedData, trace: TraceContext, *, is_safe: bool) -> Answer:
        """Run a function; a safe request is run again where its worker process ended.

        Raises:
            WorkerEndedError: the worker process ended, and the request is not safe or had its chances.
        """
        runs = 1
        while True:
            try:
                return await self._worker.invoke(function, value, trace)
            except WorkerEndedError as error:
                if error.is_final or not is_safe or runs == MAX_RUNS:
                    raise
                logger.warning("Running %s again in another worker process", function.name)
                runs += 1

    def _response(self, function: Function, answer: Answer) -> Response:
        if answer.exception is not None:
            text, trace = answer.exception.message, answer.exception.stack_trace
            logger.error("HTTP function %s failed: %s\n%s", function.name, text, trace)
            return Response(status_code=500)
        try:
            return response_from_data(answer.return_value, self._configuration.custom_headers)
        except ValueError:
            logger.exception("HTTP function %s answered what HTTP cannot carry", function.name)
            return Response(status_code=500)
