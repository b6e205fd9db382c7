"""The app's triggers and routes. Each body is one call into `shared`; nothing else here knows Azure.

No authentication of the host is configured: `/admin` and the function keys stay as the platform has them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from shared.container import container
from shared.delivery import activities, batch_activity, batch_orchestrator, orchestrators, purge, routes
from shared.delivery.exchange import Reply, Request

FINISHED = [
    df.OrchestrationRuntimeStatus.Completed,
    df.OrchestrationRuntimeStatus.Failed,
    df.OrchestrationRuntimeStatus.Terminated,
]

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.function_name("PostBusinessRoute")
@app.route(route="businesses", methods=["POST"])
@app.durable_client_input(client_name="client")
async def post_business_route(
    req: func.HttpRequest,
    client: df.DurableOrchestrationClient,
    context: func.Context,  # noqa: ARG001, by it the Durable SDK tells the host which request starts an orchestration
) -> func.HttpResponse:
    """POST /api/businesses: take a business and start its delivery."""
    return _response(await routes.post_business(_request(req), client, container.settings))


@app.function_name("PostBatchRoute")
@app.route(route="businesses/batch", methods=["POST"])
@app.durable_client_input(client_name="client")
async def post_batch_route(
    req: func.HttpRequest,
    client: df.DurableOrchestrationClient,
    context: func.Context,  # noqa: ARG001, by it the Durable SDK tells the host which request starts an orchestration
) -> func.HttpResponse:
    """POST /api/businesses/batch: take a batch of businesses and start its delivery."""
    return _response(await routes.post_batch(_request(req), client, container.settings))


@app.function_name("RedeliverBatchRoute")
@app.route(route="batches/{id}/redeliver", methods=["POST"])
@app.durable_client_input(client_name="client")
async def redeliver_batch_route(
    req: func.HttpRequest,
    client: df.DurableOrchestrationClient,
    context: func.Context,  # noqa: ARG001, by it the Durable SDK tells the host which request starts an orchestration
) -> func.HttpResponse:
    """POST /api/batches/{id}/redeliver: start a batch with what a finished one has left undelivered."""
    return _response(await routes.redeliver_batch(_request(req), client, container.settings))


@app.function_name("GetBusinessRoute")
@app.route(route="businesses/{externalId}", methods=["GET"])
async def get_business_route(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/businesses/{externalId}: show the partner's record."""
    return _response(await routes.get_business(_request(req), container.business_api))


@app.function_name("HealthRoute")
@app.route(route="health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
async def health_route(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/health: 200 or 503, for anybody."""
    return _response(await routes.get_health(_request(req), container.settings))


@app.function_name("DeepHealthRoute")
@app.route(route="health/deep", methods=["GET"])
async def deep_health_route(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001, a trigger has its parameter
    """GET /api/health/deep: whether an access token can be had, for those with a key."""
    return _response(await routes.get_deep_health(container.check_token))


@app.function_name("OpenApiRoute")
@app.route(route="openapi.json", methods=["GET"])
async def openapi_route(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001, a trigger has its parameter
    """GET /api/openapi.json: the OpenAPI document of all this."""
    return _response(routes.get_openapi())


@app.function_name("UnknownRoute")
@app.route(route="{*path}", methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def unknown_route(req: func.HttpRequest) -> func.HttpResponse:
    """Any other route below /api: a problem response, where the host would answer with nothing."""
    return _response(routes.unknown_route(req.method))


@app.function_name("DeliverBusiness")
@app.orchestration_trigger(context_name="context")
def deliver_business(context: df.DurableOrchestrationContext) -> Any:  # noqa: ANN401, a generator that the SDK drives
    """Orchestrator: deliver one business, however long it takes."""
    return orchestrators.deliver_business(context)


@app.function_name("PostBusiness")
@app.activity_trigger(input_name="attempt")
async def post_business(attempt: dict) -> dict:  # type: ignore[type-arg]  # the worker cannot index generic annotations
    """Activity: make one attempt at delivering a business."""
    return await activities.post_business(attempt, container.business_api, container.gate)


@app.function_name("DeliverBatch")
@app.orchestration_trigger(context_name="context")
def deliver_batch(context: df.DurableOrchestrationContext) -> Any:  # noqa: ANN401, a generator that the SDK drives
    """Orchestrator: deliver a batch of businesses."""
    return batch_orchestrator.deliver_batch(context)


@app.function_name("PostBusinesses")
@app.activity_trigger(input_name="order")
@app.durable_client_input(client_name="client")
async def post_businesses(order: dict, client: df.DurableOrchestrationClient) -> dict:  # type: ignore[type-arg]  # the worker cannot index generic annotations
    """Activity: make one attempt at delivering each record of a chunk of a batch."""
    return await batch_activity.post_businesses(
        order, client, container.batches, container.business_api, container.gate
    )


@app.function_name("PurgeHistory")
@app.timer_trigger(arg_name="timer", schedule="0 30 3 * * *")
@app.durable_client_input(client_name="client")
async def purge_history(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:  # noqa: ARG001, a trigger has its parameter
    """Every night: purge the history of deliveries that finished long ago."""
    await purge.purge_history(client, container.settings().delivery.history_days, FINISHED, datetime.now(UTC))


def _request(req: func.HttpRequest) -> Request:
    return Request(req.url, req.headers, req.get_body(), req.route_params, req.params)


def _response(reply: Reply) -> func.HttpResponse:
    return func.HttpResponse(reply.body, status_code=reply.status, headers=dict(reply.headers))
