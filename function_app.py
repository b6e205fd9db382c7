"""The app's functions, registered for every resource of `shared/partner.py`; nothing else here knows Azure.

No authentication of the host is configured: `/admin` and the function keys stay as the platform has them. The host
tries HTTP functions in the order of their names, so `UnknownRoute` must sort last.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func

from shared.container import container
from shared.durable import activities, upkeep
from shared.durable.durable_client import DurableClient
from shared.durable.orchestrators import deliver_batch, deliver_one, first_start
from shared.http import deliveries, routes, service
from shared.http.messages import Reply, Request, answered

if TYPE_CHECKING:
    from shared.resource import Resource

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

Handler = Callable[[Request], Awaitable[Reply]]
ClientHandler = Callable[[Request, DurableClient], Awaitable[Reply]]


def http_function(
    name: str, route: str, methods: Sequence[str], handler: Handler, level: func.AuthLevel = func.AuthLevel.FUNCTION
) -> None:
    """Register an HTTP function that answers with what `handler` returns."""

    @app.function_name(name)
    @app.route(route=route, methods=methods, auth_level=level)
    async def function(req: func.HttpRequest) -> func.HttpResponse:
        container.start()
        return _response(await answered(handler(_request(req))))


def client_function(name: str, route: str, methods: Sequence[str], handler: ClientHandler) -> None:
    """Register an HTTP function whose `handler` gets the Durable client as well."""

    @app.function_name(name)
    @app.route(route=route, methods=methods)
    @app.generic_input_binding(arg_name="client", type="durableClient")
    async def function(req: func.HttpRequest, client: str, context: func.Context) -> func.HttpResponse:
        container.start()
        durable = container.durable_client(client, context.invocation_id)
        return _response(await answered(handler(_request(req), durable)))


def orchestrator(name: str, resource: Resource, deliver: Callable[..., Any]) -> None:
    """Register an orchestrator of a resource."""

    @app.function_name(name)
    @app.orchestration_trigger(context_name="context")
    def function(context: df.DurableOrchestrationContext) -> Any:  # noqa: ANN401, a generator that the SDK drives
        began = context.current_utc_datetime
        output = yield from deliver(context, resource)
        if output is not None and not context.is_replaying:
            seconds = (context.current_utc_datetime - first_start(context, began)).total_seconds()
            container.count_end(resource, output, seconds)
        return output


def register(resource: Resource) -> None:
    """Register the routes, orchestrators and activities of a resource."""

    async def accept(request: Request, client: DurableClient) -> Reply:
        options, call_timeout = container.options(resource), container.call_timeout(resource)
        return await routes.accept_record(request, client, resource, options, call_timeout)

    async def accept_batch(request: Request, client: DurableClient) -> Reply:
        options, call_timeout = container.options(resource), container.call_timeout(resource)
        with container.budget.hold(request):
            return await routes.accept_batch(request, client, resource, options, call_timeout)

    async def get(request: Request) -> Reply:
        return await routes.get_record(request, resource, container.access(resource.partner).api)

    client_function(f"Accept{resource.name}", resource.route, ["POST"], accept)
    client_function(f"Accept{resource.name}Batch", f"{resource.route}/batch", ["POST"], accept_batch)
    http_function(f"Get{resource.name}", f"{resource.route}/{{id}}", ["GET"], get)
    orchestrator(resource.deliver, resource, deliver_one)
    orchestrator(resource.deliver_batch, resource, deliver_batch)

    @app.function_name(resource.post_one)
    @app.activity_trigger(input_name="order")
    @app.generic_input_binding(arg_name="client", type="durableClient")
    async def post_one(order: dict, client: str) -> dict:  # type: ignore[type-arg]  # the worker cannot index generic annotations
        container.start()
        access = container.access(resource.partner)
        return await activities.post_one(order, resource, container.durable_client(client), access)

    @app.function_name(resource.post_batch)
    @app.activity_trigger(input_name="order")
    @app.generic_input_binding(arg_name="client", type="durableClient")
    async def post_batch(order: dict, client: str) -> dict:  # type: ignore[type-arg]  # the same
        container.start()
        access = container.access(resource.partner)
        durable = container.durable_client(client)
        return await activities.post_batch(order, resource, durable, container.batches, access)


RESOURCES = container.resources

for each in RESOURCES:
    register(each)


client_function("ListDeliveries", "deliveries", ["GET"], lambda r, c: deliveries.list_deliveries(r, c, RESOURCES))
client_function("GetDelivery", "deliveries/{id}", ["GET"], lambda r, c: deliveries.get_delivery(r, c, RESOURCES))
client_function(
    "GetDeliveryHistory", "deliveries/{id}/history", ["GET"], lambda r, c: deliveries.get_history(r, c, RESOURCES)
)
for verb in ("cancel", "suspend", "resume"):
    act = partial(deliveries.act, resources=RESOURCES, verb=verb)
    client_function(f"{verb.capitalize()}Delivery", f"deliveries/{{id}}/{verb}", ["POST"], act)
client_function(
    "RedeliverDelivery",
    "deliveries/{id}/redeliver",
    ["POST"],
    lambda r, c: deliveries.redeliver(r, c, RESOURCES, container.options, container.call_timeout),
)


async def _health(_request: Request) -> Reply:
    return service.get_health(container.check_settings)


async def _deep_health(request: Request) -> Reply:
    probes = {name: partial(container.probe, partner) for name, partner in container.partners.items()}
    return await service.get_deep_health(request, probes, container.figures)


async def _openapi(_request: Request) -> Reply:
    return service.get_openapi(RESOURCES)


async def _docs(_request: Request) -> Reply:
    return service.get_page("docs")


async def _console(_request: Request) -> Reply:
    return service.get_page("console")


async def _unknown(request: Request) -> Reply:
    return service.unknown_route(request, RESOURCES)


http_function("GetHealth", "health", ["GET", "HEAD"], _health, func.AuthLevel.ANONYMOUS)
http_function("GetHealthDeep", "health/deep", ["GET"], _deep_health)
http_function("GetOpenApi", "openapi.json", ["GET"], _openapi)
http_function("GetDocs", "docs", ["GET"], _docs, func.AuthLevel.ANONYMOUS)
http_function("GetConsole", "console", ["GET"], _console, func.AuthLevel.ANONYMOUS)
http_function("UnknownRoute", "{*path}", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"], _unknown)


@app.function_name("RecoverDeliveries")
@app.timer_trigger(arg_name="timer", schedule=container.recovery_schedule)
@app.generic_input_binding(arg_name="client", type="durableClient")
async def recover_deliveries(timer: func.TimerRequest, client: str) -> None:  # noqa: ARG001, a trigger has its parameter
    """Every five minutes: have deliveries go on that the platform gave up on."""
    container.start()
    durable = container.durable_client(client)
    await container.recovery.run(durable, container.call_timeout)
    container.observe_backlog(await upkeep.backlog(durable, datetime.now(UTC)))


@app.function_name("PurgeHistory")
@app.timer_trigger(arg_name="timer", schedule="0 30 3 * * *")
@app.generic_input_binding(arg_name="client", type="durableClient")
async def purge_history(timer: func.TimerRequest, client: str) -> None:  # noqa: ARG001, a trigger has its parameter
    """Every night: purge the history of deliveries that ended long ago."""
    container.start()
    settings = container.app_settings
    durable = container.durable_client(client)
    await upkeep.purge_history(durable, settings.history_days, settings.retry.deadline, datetime.now(UTC))


def _request(req: func.HttpRequest) -> Request:
    return Request(req.method, req.url, req.headers, req.get_body(), req.route_params, req.params)


def _response(reply: Reply) -> func.HttpResponse:
    return func.HttpResponse(reply.body, status_code=reply.status, headers=reply.ascii_headers())
