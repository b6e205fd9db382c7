"""The management webhooks of Durable Functions, and the same operations for the client library.

Both are served without a key. Errors are JSON objects with a `Message`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from sandbox.host.durable import webhook_queries as queries
from sandbox.host.durable.client_binding import RPC, WEBHOOKS, management_urls
from sandbox.host.durable.instance_status import history_json, status_json
from sandbox.host.durable.payloads import PayloadResponse
from sandbox.host.durable.start_webhooks import StartWebhooks, json_text, message, origin_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from sandbox.host.durable.functions import DurableFunctions
    from sandbox.host.settings import HostConfiguration


def _reason(request: Request) -> str:
    return request.query_params.get("reason", "")


class Webhooks:
    """The operations on orchestration instances over HTTP."""

    def __init__(self, durable: DurableFunctions, configuration: HostConfiguration) -> None:
        self._hub = durable.hub
        self._starts = StartWebhooks(durable, configuration)
        self._configuration = configuration

    def routes(self) -> list[BaseRoute]:
        """Give the routes: the public ones, and the same below the client library's base URL."""
        hub, instance = self._hub, "/instances/{instance_id}"
        routes = [
            Route("/orchestrators/{name}", self._starts.start, methods=["POST"]),
            Route("/orchestrators/{name}/{instance_id}", self._starts.start, methods=["POST"]),
            *(Route(path, self.find, methods=["GET"]) for path in ("/instances", "/instances/")),
            *(Route(path, self.purge_all, methods=["DELETE"]) for path in ("/instances", "/instances/")),
            Route(instance, self.status, methods=["GET"]),
            Route(instance, self.purge, methods=["DELETE"]),
            Route(instance + "/raiseEvent/{name}", self.raise_event, methods=["POST"]),
            Route(instance + "/terminate", self._change(hub.terminate), methods=["POST"]),
            Route(instance + "/suspend", self._change(hub.suspend), methods=["POST"]),
            Route(instance + "/resume", self._change(hub.resume), methods=["POST"]),
            Route(instance + "/restart", self._starts.restart, methods=["POST"]),
            Route(instance + "/rewind", self.rewind, methods=["POST"]),
        ]
        return [Mount(prefix, routes=routes) for prefix in (WEBHOOKS, RPC)]

    async def status(self, request: Request) -> Response:
        """Answer the status of an instance: 202 while it runs, 200 when it is finished."""
        instance = self._hub.get(request.path_params["instance_id"])
        if instance is None:
            return message(404, f"No instance with ID '{request.path_params['instance_id']}' found.")
        query = request.query_params
        show_input = queries.flag(query, "showInput", default=True)
        document = status_json(instance, show_input=show_input)
        if queries.flag(query, "showHistory", default=False):
            document["historyEvents"] = history_json(
                self._hub.history(instance.instance_id),
                show_output=queries.flag(query, "showHistoryOutput", default=False),
                show_input=show_input,
            )
        if not instance.is_finished:
            links = management_urls(origin_of(request), self._configuration.hub_name, instance.instance_id)
            headers = {"Location": links["statusQueryGetUri"], "Retry-After": "5"}
            return PayloadResponse(document, status_code=202, headers=headers)
        is_error = instance.status == "Failed" and queries.flag(
            query, "returnInternalServerErrorOnFailure", default=False
        )
        return PayloadResponse(document, status_code=500 if is_error else 200)

    async def find(self, request: Request) -> Response:
        """List instances page by page; the token of the next page is in a header, both ways."""
        try:
            wanted, top = queries.instance_filter(request.query_params), queries.page_size(request.query_params)
        except ValueError as error:
            return message(400, str(error))
        token = request.headers.get("x-ms-continuation-token", "")
        found, next_token = self._hub.page(wanted, top=top, token=token)
        show_input = queries.flag(request.query_params, "showInput", default=True)
        headers = {"x-ms-continuation-token": next_token} if next_token else {}
        return PayloadResponse([status_json(each, show_input=show_input) for each in found], headers=headers)

    async def purge(self, request: Request) -> Response:
        """Delete a finished instance."""
        instance = self._hub.get(request.path_params["instance_id"])
        if instance is None:
            return message(404, f"No instance with ID '{request.path_params['instance_id']}' found.")
        if not instance.is_finished:
            return message(412, f"The instance is {instance.status}: only a finished one can be purged.")
        return JSONResponse({"instancesDeleted": self._hub.purge(instance.instance_id)})

    async def purge_all(self, request: Request) -> Response:
        """Delete the finished instances that the query names; 404 where there are none."""
        try:
            wanted = queries.instance_filter(request.query_params)
        except ValueError as error:
            return message(400, str(error))
        deleted = self._hub.purge_all(wanted)
        return JSONResponse({"instancesDeleted": deleted}, status_code=200 if deleted else 404)

    def _change(self, apply: Callable[[str, str], None]) -> Callable[[Request], Awaitable[Response]]:
        """Make the endpoint of an operation that takes an unfinished instance and a reason."""

        async def endpoint(request: Request) -> Response:
            refusal = self._refusal(request)
            if refusal is None:
                apply(request.path_params["instance_id"], _reason(request))
            return refusal or Response(status_code=202)

        return endpoint

    def _refusal(self, request: Request) -> Response | None:
        """Answer 404 or 410 where there is no such instance, or it is finished."""
        instance_id = request.path_params["instance_id"]
        instance = self._hub.get(instance_id)
        if instance is None:
            return message(404, f"No instance with ID '{instance_id}' found.")
        return message(410, f"The instance is {instance.status}.") if instance.is_finished else None

    async def raise_event(self, request: Request) -> Response:
        """Send an external event to an instance."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return message(400, "Only application/json request content is supported")
        try:
            payload = await json_text(request)
        except ValueError as error:
            return message(400, f"Invalid JSON content: {error}")
        refusal = self._refusal(request)
        if refusal is None:
            self._hub.raise_event(request.path_params["instance_id"], request.path_params["name"], payload or "null")
        return refusal or Response(status_code=202)

    async def rewind(self, request: Request) -> Response:
        """Refuse to rewind: the engine would need the orchestrator to rewrite its history, which Python's cannot."""
        instance_id = request.path_params["instance_id"]
        return message(501, f"The sandbox's host cannot rewind {instance_id!r}: restart the instance instead.")
