"""The host's own routes, which editors and other tools use. They ask for no key, as on Core Tools."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sandbox.host.durable.history import protocol_event
from sandbox.host.durable.start_webhooks import json_text, message, origin_of
from sandbox.host.errors import WorkerEndedError
from sandbox.host.functions import HTTP, ORCHESTRATOR, TIMER
from sandbox.host.trace import new_trace_context

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from sandbox.host.durable.functions import DurableFunctions
    from sandbox.host.functions import Function
    from sandbox.host.routes import RouteTable
    from sandbox.host.settings import HostConfiguration
    from sandbox.host.timers import TimerFunction
    from sandbox.host.worker_process import WorkerProcess

logger = logging.getLogger(__name__)

# The version of the Functions host whose routes these are.
HOST_VERSION = "4"


class Admin:
    """The `/admin` routes: what runs here, and running a function that HTTP does not trigger."""

    def __init__(  # noqa: PLR0913, PLR0917 - it tells of every part of the host
        self,
        functions: Sequence[Function],
        routes: RouteTable,
        durable: DurableFunctions,
        timers: Sequence[TimerFunction],
        worker: WorkerProcess,
        configuration: HostConfiguration,
    ) -> None:
        self._functions = {each.name.lower(): each for each in functions}
        self._templates = {route.function.name: route.template for route in routes.routes}
        self._durable = durable
        self._timers = {each.function.name: each for each in timers}
        self._worker = worker
        self._configuration = configuration
        self._runs: set[asyncio.Task[None]] = set()

    def routes(self) -> list[BaseRoute]:
        """Give the routes."""
        return [
            Route("/admin/host/status", self.status, methods=["GET"]),
            Route("/admin/host/ping", self.ping, methods=["GET", "POST"]),
            Route("/admin/functions", self.list, methods=["GET"]),
            Route("/admin/functions/{name}", self.show, methods=["GET"]),
            Route("/admin/functions/{name}", self.run, methods=["POST"]),
            Route("/sandbox/worker", self.worker, methods=["GET"]),
            Route("/sandbox/histories/{instance_id}", self.history, methods=["GET"]),
        ]

    async def status(self, _request: Request) -> Response:
        """Say that the host runs."""
        return JSONResponse(
            {
                "id": "sandbox",
                "state": "Running",
                "version": HOST_VERSION,
                "versionDetails": "the sandbox's host",
                "platformVersion": "",
                "instanceId": "",
                "computerName": "",
                "processUptime": 0,
                "processId": os.getpid(),
            }
        )

    async def ping(self, _request: Request) -> Response:
        """Answer, to show that the host can."""
        return Response(status_code=200)

    async def worker(self, _request: Request) -> Response:
        """Name the worker process, so that a test can end it."""
        return JSONResponse({"pid": self._worker.pid, "restarts": self._worker.restarts})

    async def history(self, request: Request) -> Response:
        """Show an instance's history as its orchestrator is given it, so that a test can replay it."""
        history = self._durable.hub.history(request.path_params["instance_id"])
        if not history:
            return Response(status_code=404)
        return JSONResponse([protocol_event(event, is_played=True) for event in history])

    def _document(self, request: Request, function: Function) -> dict[str, Any]:
        href = f"{origin_of(request)}/admin/functions/{function.name}"
        template = self._templates.get(function.name)
        return {
            "name": function.name,
            "href": href,
            "script_href": f"{origin_of(request)}/admin/vfs/{function.script_file}",
            "invoke_url_template": f"{origin_of(request)}/{template}" if template is not None else None,
            "language": "python",
            "isDisabled": False,
            "config": {
                "name": function.name,
                "scriptFile": function.script_file,
                "language": "python",
                "entryPoint": function.name,
                "bindings": [dict(binding) for binding in function.bindings],
            },
        }

    async def list(self, request: Request) -> Response:
        """List the functions with their bindings."""
        return JSONResponse([self._document(request, each) for each in self._functions.values()])

    async def show(self, request: Request) -> Response:
        """Show one function with its bindings."""
        function = self._functions.get(request.path_params["name"].lower())
        return JSONResponse(self._document(request, function)) if function is not None else Response(status_code=404)

    async def run(self, request: Request) -> Response:
        """Run a function that HTTP does not trigger, with the `input` of the body; answers before it is done."""
        function = self._functions.get(request.path_params["name"].lower())
        if function is None:
            return Response(status_code=404)
        try:
            document = json.loads(await json_text(request) or "{}")
            given = document.get("input", "") if isinstance(document, dict) else None
        except ValueError:
            given = None
        if not isinstance(given, str):
            return message(400, 'The body must be a JSON object with a text as its "input".')
        if function.kind == HTTP:
            return message(400, f"{function.name} is triggered by HTTP: call its own route.")
        if function.kind == ORCHESTRATOR:
            version = self._configuration.default_version
            self._durable.hub.start(
                function.durable_name, None, json.dumps(given), version=version, trace=new_trace_context()
            )
            return Response(status_code=202)
        self._start(self._run_timer(function) if function.kind == TIMER else self._run_activity(function, given))
        return Response(status_code=202)

    async def _run_timer(self, function: Function) -> None:
        await self._timers[function.name].run_once()

    async def _run_activity(self, function: Function, given: str) -> None:
        answer = await self._durable.run_activity(function, given)
        if answer.exception is not None:
            logger.error("Activity function %s failed: %s", function.name, answer.exception.message)

    def _start(self, run: Coroutine[Any, Any, None]) -> None:
        """Run in the background; the task is held until it is done."""
        task = asyncio.create_task(run)
        self._runs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._runs.discard(task)
        error = task.exception() if not task.cancelled() else None
        if error is not None and not isinstance(error, WorkerEndedError):
            logger.error("A run on request failed", exc_info=error)

    async def close(self) -> None:
        """Stop what runs on request."""
        for task in self._runs:
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
