"""The host's own routes, which editors and other tools use. With keys they ask for the master key, but for `ping`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from sandbox.host.durable.history import protocol_event
from sandbox.host.functions import HTTP, ORCHESTRATOR, TIMER
from sandbox.host.http_invocation import read_body
from sandbox.host.json_response import JsonResponse, origin_of
from sandbox.host.keys import MASTER
from sandbox.host.trace import new_trace_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from sandbox.host.durable.functions import DurableFunctions
    from sandbox.host.functions import Function
    from sandbox.host.keys import Keys
    from sandbox.host.routes import RouteTable
    from sandbox.host.settings import HostConfiguration
    from sandbox.host.timers import TimerFunction
    from sandbox.host.worker_process import WorkerProcess

    Endpoint = Callable[[Request], Awaitable[Response]]

logger = logging.getLogger(__name__)

# The version of the Functions host whose answers these are.
HOST_VERSION = "4.1037.0.0"


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
        keys: Keys | None = None,
    ) -> None:
        self._functions = {each.name.lower(): each for each in functions}
        self._templates = {route.function.name: route.template for route in routes.routes}
        self._durable = durable
        self._timers = {each.function.name: each for each in timers}
        self._worker = worker
        self._configuration = configuration
        self._keys = keys
        self._runs: set[asyncio.Task[None]] = set()

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        guarded = self._guarded
        return [
            Route("/admin/host/status", guarded(self.status), methods=["GET"]),
            Route("/admin/host/ping", self.ping, methods=["GET", "POST"]),
            Route("/admin/host/keys", guarded(self.list_keys), methods=["GET"]),
            Route("/admin/functions", guarded(self.list), methods=["GET"]),
            Route("/admin/functions/{name}", guarded(self.show), methods=["GET"]),
            Route("/admin/functions/{name}", guarded(self.run), methods=["POST"]),
            Route("/sandbox/worker", self.worker, methods=["GET"]),
            Route("/sandbox/histories/{instance_id}", self.history, methods=["GET"]),
        ]

    def _guarded(self, endpoint: Endpoint) -> Endpoint:
        """Ask for the master key before an endpoint."""

        async def guarded(request: Request) -> Response:
            refusal = self._keys.refusal(request, MASTER) if self._keys is not None else None
            return refusal or await endpoint(request)

        return guarded

    async def status(self, _request: Request) -> Response:
        """Answer that the host runs."""
        document = {
            "id": "sandbox",
            "state": "Running",
            "version": HOST_VERSION,
            "versionDetails": "the sandbox's host",
            "platformVersion": "",
            "instanceId": "",
            "computerName": "",
            "processUptime": 0,
            "processId": os.getpid(),
            "functionAppContentEditingState": "Unknown",
        }
        bundle = self._configuration.extension_bundle
        if bundle is not None:
            document["extensionBundle"] = {"id": bundle.id, "version": bundle.lowest_version}
        return JsonResponse(document)

    async def ping(self, _request: Request) -> Response:
        """Answer, to show that the host can."""
        return Response(status_code=200, headers={"Cache-Control": "no-store,no-cache", "Pragma": "no-cache"})

    async def list_keys(self, _request: Request) -> Response:
        """Name the function key."""
        keys = [] if self._keys is None else [{"name": "default", "value": self._keys.function}]
        return JsonResponse({"keys": keys, "links": []})

    async def worker(self, _request: Request) -> Response:
        """Name the worker process, so that a test can end it."""
        return JsonResponse({"pid": self._worker.pid, "restarts": self._worker.restarts})

    async def history(self, request: Request) -> Response:
        """Show an instance's history as its orchestrator is given it, so that a test can replay it."""
        record = self._durable.hub.get(request.path_params["instance_id"])
        if record is None or not record.history:
            return Response(status_code=404)
        return JsonResponse([protocol_event(event, is_played=True) for event in record.history])

    def _document(self, request: Request, function: Function) -> dict[str, Any]:
        origin, template = origin_of(request), self._templates.get(function.name)
        return {
            "name": function.name,
            "script_root_path_href": None,
            "script_href": f"{origin}/admin/vfs/{function.script_file}",
            "config_href": None,
            "test_data_href": None,
            "href": f"{origin}/admin/functions/{function.name}",
            "invoke_url_template": f"{origin}/{template}" if template is not None else None,
            "language": "python",
            "config": {
                "name": function.name,
                "entryPoint": function.name,
                "scriptFile": function.script_file,
                "language": "python",
                "bindings": [dict(binding) for binding in function.bindings],
            },
            "files": None,
            "test_data": "",
            "isDisabled": False,
            "isDirect": False,
            "isProxy": False,
        }

    async def list(self, request: Request) -> Response:
        """List the functions with their bindings."""
        return JsonResponse([self._document(request, each) for each in self._functions.values()])

    async def show(self, request: Request) -> Response:
        """Show one function with its bindings."""
        function = self._functions.get(request.path_params["name"].lower())
        return JsonResponse(self._document(request, function)) if function is not None else Response(status_code=404)

    async def run(self, request: Request) -> Response:
        """Run a function that HTTP does not trigger, with the `input` of the body; answers before it is done."""
        function = self._functions.get(request.path_params["name"].lower())
        if function is None:
            return Response(status_code=404)
        try:
            document = json.loads((await read_body(request)).decode() or "{}")
            given = document.get("input", "") if isinstance(document, dict) else None
        except ValueError:
            given = None
        if not isinstance(given, str):
            return Response(status_code=400)
        if function.kind == ORCHESTRATOR:
            version = self._configuration.extensions.durable_task.default_version
            trace = new_trace_context()
            self._durable.hub.start_new(function.durable_name, None, json.dumps(given), version=version, trace=trace)
        elif function.kind == HTTP:
            logger.warning("%s is triggered by HTTP: call its own route", function.name)
        elif function.kind == TIMER:
            self._start(self._timers[function.name].run_once())
        else:
            self._start(self._durable.run_activity(function, given))
        return Response(status_code=202)

    def _start(self, run: Coroutine[Any, Any, None]) -> None:
        """Run in the background; the task is held until it is done."""
        task = asyncio.create_task(run)
        self._runs.add(task)
        task.add_done_callback(self._runs.discard)

    async def close(self) -> None:
        """Stop what runs on request."""
        for task in self._runs:
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
