"""The management webhooks of Durable Functions, and the same operations for the client library."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

from sandbox.host.durable import webhook_queries as queries
from sandbox.host.durable.client_binding import RPC, WEBHOOKS, management_urls
from sandbox.host.durable.engine import TERMINAL
from sandbox.host.durable.instance_status import history_json, status_json
from sandbox.host.durable.spans import INSTANCE_ID
from sandbox.host.durable.task_hub import STATUS_NAMES
from sandbox.host.errors import EngineError
from sandbox.host.json_response import JsonResponse, origin_of
from sandbox.host.trace import trace_context_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from durabletask.testing.in_memory_backend import OrchestrationInstance
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from sandbox.host.durable.functions import DurableFunctions
    from sandbox.host.messages import TraceContext
    from sandbox.host.settings import HostConfiguration

WRONG = "Something went wrong while processing your request"


def _failure(status: int, message: str, problem: object, kind: str) -> Response:
    """Answer as the extension does after an exception of .NET, whose type is `kind`."""
    document = {"Message": message, "ExceptionMessage": str(problem), "ExceptionType": kind, "StackTrace": ""}
    return JsonResponse(document, status_code=status)


class Webhooks:
    """The operations on orchestration instances over HTTP; `key` stands in the links of answers."""

    def __init__(self, durable: DurableFunctions, configuration: HostConfiguration, key: str | None = None) -> None:
        self._durable, self._hub = durable, durable.hub
        self._section = configuration.extensions.durable_task
        self._key = key

    def routes(self) -> list[BaseRoute]:
        """Return the routes: the public ones, and the same below the client library's base URL."""
        instance = "/instances/{instance_id}"
        routes = [
            ("POST", "/orchestrators/{name}", self.start),
            ("POST", "/orchestrators/{name}/{instance_id}", self.start),
            *(("GET", path, self.find) for path in ("/instances", "/instances/")),
            *(("DELETE", path, self.purge_all) for path in ("/instances", "/instances/")),
            ("GET", instance, self.status),
            ("DELETE", instance, self.purge),
            ("POST", instance + "/raiseEvent/{name}", self.raise_event),
            ("POST", instance + "/terminate", self._change(self._hub.terminate)),
            ("POST", instance + "/suspend", self._change(self._hub.suspend, unless="Suspended")),
            ("POST", instance + "/resume", self._change(self._hub.resume)),
            ("POST", instance + "/restart", self.restart),
            ("POST", instance + "/rewind", self.rewind),
        ]
        return [
            Route(prefix + path, endpoint, methods=[method])
            for prefix in (RPC, WEBHOOKS)
            for method, path, endpoint in routes
        ]

    def _instance(self, request: Request) -> OrchestrationInstance | None:
        return self._hub.get(request.path_params["instance_id"])

    async def start(self, request: Request) -> Response:
        """Start an instance."""
        name, instance_id = request.path_params["name"], request.path_params.get("instance_id")
        problem = queries.instance_id_problem(instance_id or "")
        if problem is not None:
            return _failure(400, problem, problem, "System.ArgumentException")
        try:
            payload = await queries.json_text(request)
        except ValueError as error:
            return _failure(500, WRONG, error, "Newtonsoft.Json.JsonSerializationException")
        version = request.query_params.get("version", self._section.default_version)
        try:
            return self._start(request, name, instance_id, payload, version)
        except EngineError:
            return JsonResponse({"Message": self._already_exists(instance_id)}, status_code=409)

    async def restart(self, request: Request) -> Response:
        """Start an instance again with its input, under a new id unless `restartWithNewInstanceId=false`."""
        instance = self._instance(request)
        if instance is None:
            message = "InstanceId does not match a valid orchestration instance."
            problem = f"No instance with ID '{request.path_params['instance_id']}' was found. (Parameter 'instanceId')"
            return _failure(400, message, problem, "System.ArgumentException")
        is_new = queries.flag(request.query_params, "restartWithNewInstanceId", default=True)
        instance_id = None if is_new else instance.instance_id
        try:
            return self._start(request, instance.name, instance_id, instance.input, instance.version)
        except EngineError:
            kind = "DurableTask.Core.Exceptions.OrchestrationAlreadyExistsException"
            message = "A non-terminal instance with this instance ID already exists."
            return _failure(409, message, self._already_exists(instance_id), kind)

    def _already_exists(self, instance_id: str | None) -> str:
        """Return why an instance cannot be started: the engine refuses it for no other reason."""
        found = self._hub.get(instance_id or "")
        status = STATUS_NAMES[found.status] if found is not None else "Pending"
        return f"An Orchestration instance with the status {status} already exists."

    def _start(
        self, request: Request, name: str, instance_id: str | None, payload: str | None, version: str | None
    ) -> Response:
        """Start an instance, and answer with its links.

        Raises:
            EngineError: an instance with this id is not finished.
        """
        span = self._durable.spans.creation(name, self._trace_context(request))
        try:
            started = self._hub.start_new(name, instance_id, payload, version=version, trace=span.context)
        except EngineError:
            span.end(failed=True)
            raise
        span.set(INSTANCE_ID, started)
        span.end()
        links = management_urls(origin_of(request), self._section.hub_name, started, self._key)
        headers = {"Location": links["statusQueryGetUri"], "Retry-After": "10"}
        return JsonResponse(links, status_code=202, headers=headers)

    def _trace_context(self, request: Request) -> TraceContext | None:
        """Return the trace in which a caller starts an instance: its own, or that of the function that calls."""
        own = trace_context_of(request.headers)
        invocation_id = request.headers.get("x-azure-functions-invocationid", "")
        return own or self._durable.worker.trace_of(invocation_id)

    async def status(self, request: Request) -> Response:
        """Answer the status of an instance: 202 while it runs, 200 when it is finished."""
        instance = self._instance(request)
        if instance is None:
            return Response(status_code=404)
        query = request.query_params
        show_input = queries.flag(query, "showInput", default=True)
        document = status_json(instance, show_input=show_input)
        if queries.flag(query, "showHistory"):
            document["historyEvents"] = history_json(
                instance.history,
                show_output=queries.flag(query, "showHistoryOutput"),
                show_input=show_input,
            )
        if instance.status not in TERMINAL:
            location = f"{origin_of(request)}{request.scope['raw_path'].decode('latin-1')}?{request.url.query}"
            return JsonResponse(document, status_code=202, headers={"Location": location, "Retry-After": "5"})
        is_asked = queries.flag(query, "returnInternalServerErrorOnFailure")
        is_error = is_asked and STATUS_NAMES[instance.status] == "Failed"
        return JsonResponse(document, status_code=500 if is_error else 200)

    async def find(self, request: Request) -> Response:
        """List instances page by page; the token of the next page is in a header, both ways."""
        query = request.query_params
        token = request.headers.get("x-ms-continuation-token", "")
        try:
            found, next_token = self._hub.page(
                queries.instance_filter(query), top=queries.page_size(query), token=token
            )
        except ValueError as error:
            return _failure(400, "Invalid continuation token", error, "System.FormatException")
        show_input = queries.flag(query, "showInput", default=True)
        headers = {"x-ms-continuation-token": next_token} if next_token else {}
        return JsonResponse([status_json(each, show_input=show_input) for each in found], headers=headers)

    async def purge(self, request: Request) -> Response:
        """Delete a finished instance."""
        instance = self._instance(request)
        if instance is None:
            return Response(status_code=404)
        if instance.status not in TERMINAL:
            text = "Only orchestrations in a terminal state can be purged, but the orchestration with instance ID "
            text += f"{instance.instance_id} has status {STATUS_NAMES[instance.status]}"
            return JsonResponse(text, status_code=412)
        return JsonResponse({"instancesDeleted": self._hub.purge(instance.instance_id)})

    async def purge_all(self, request: Request) -> Response:
        """Delete the finished instances that the query names; 404 where there are none."""
        wanted = queries.instance_filter(request.query_params)
        if wanted.created_from is None:
            return JsonResponse("Please provide value for 'createdTimeFrom' parameter.", status_code=400)
        deleted = self._hub.purge_all(wanted)
        return JsonResponse({"instancesDeleted": deleted}) if deleted else Response(status_code=404)

    def _change(
        self, apply: Callable[[str, str], None], *, unless: str | None = None
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the endpoint of an operation that takes an unfinished instance and a reason.

        An instance of the state `unless` is refused.
        """

        async def endpoint(request: Request) -> Response:
            instance = self._instance(request)
            if instance is None or instance.status in TERMINAL:
                return Response(status_code=404 if instance is None else 410)
            if STATUS_NAMES[instance.status] == unless:
                problem = (
                    f"Cannot suspend the orchestration instance {instance.instance_id} because instance is in the "
                    f"{unless} state."
                )
                return _failure(500, WRONG, problem, "System.InvalidOperationException")
            apply(instance.instance_id, request.query_params.get("reason", ""))
            return Response(status_code=202)

        return endpoint

    async def raise_event(self, request: Request) -> Response:
        """Send an external event to an instance."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return JsonResponse({"Message": "Only application/json request content is supported"}, status_code=400)
        try:
            payload = json.loads(await queries.json_text(request) or "null")
        except ValueError as error:
            return _failure(400, "Invalid JSON content", error, "Newtonsoft.Json.JsonReaderException")
        instance = self._instance(request)
        if instance is None or instance.status in TERMINAL:
            return Response(status_code=404 if instance is None else 410)
        text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"))
        self._hub.raise_event(instance.instance_id, request.path_params["name"], text)
        return Response(status_code=202)

    async def rewind(self, request: Request) -> Response:
        """Let a failed instance go on from before its failure."""
        instance = self._instance(request)
        if instance is None:
            # The dollar sign is the platform's.
            instance_id = request.path_params["instance_id"]
            return JsonResponse(f'No orchestration with instance ID "${instance_id}" found.', status_code=404)
        if STATUS_NAMES[instance.status] != "Failed":
            text = f"This orchestration has status {STATUS_NAMES[instance.status]}, but only orchestrations in the "
            return JsonResponse(f'{text}"Failed" state can be rewound.', status_code=412)
        self._hub.rewind(instance.instance_id, request.query_params.get("reason", ""))
        return Response(status_code=202)
