"""The routes as OpenAPI's paths: what each takes and answers."""

from __future__ import annotations

from typing import Any

import msgspec

from shared.delivery.batch_intake import JSON, NDJSON
from shared.delivery.durable_client import POLL_AFTER
from shared.delivery.openapi_operations import (
    IDEMPOTENCY_KEY,
    LOCATION,
    NO_STORE,
    PREFER,
    PREFERENCE_APPLIED,
    RETRY_AFTER,
    answer,
    body,
    content,
    header,
    operation,
    parameter,
)
from shared.delivery.openapi_schemas import example, external_id, schemas

INSTANCE = "key-d77da8028f3c5a13752873cb9c7581d5a1a17396"
REJECTION = {"index": 1, "externalId": "crm-1002", "status": 422, "reason": "The partner answered 422: Unknown city"}
COUNTS = {"total": 2, "created": 1, "exists": 0, "rejected": 1, "deferred": 0}
WEBHOOKS = "https://relay.example/runtime/webhooks/durabletask/instances/"
LINKS = {
    "id": INSTANCE,
    "statusQueryGetUri": f"{WEBHOOKS}{INSTANCE}?code=KEY",
    "sendEventPostUri": f"{WEBHOOKS}{INSTANCE}/raiseEvent/{{eventName}}?code=KEY",
    "terminatePostUri": f"{WEBHOOKS}{INSTANCE}/terminate?reason={{text}}&code=KEY",
    "purgeHistoryDeleteUri": f"{WEBHOOKS}{INSTANCE}?code=KEY",
    "suspendPostUri": f"{WEBHOOKS}{INSTANCE}/suspend?reason={{text}}&code=KEY",
    "resumePostUri": f"{WEBHOOKS}{INSTANCE}/resume?reason={{text}}&code=KEY",
}


def _deliveries(result: str, example: dict[str, Any]) -> dict[int, Any]:
    """Give the answers of a route that starts deliveries."""
    return {
        200: answer(
            "With `Prefer: wait`: the delivery has succeeded.",
            content(result, {"instanceId": INSTANCE, **example}),
            Preference_Applied=PREFERENCE_APPLIED,
        ),
        202: answer(
            "The delivery has begun, now or when the same key came first.",
            content("Accepted", LINKS),
            Location=LOCATION,
            Retry_After=RETRY_AFTER | {"example": POLL_AFTER},
        ),
    }


def paths() -> dict[str, Any]:
    """Give the paths, below the server's URL."""
    delivered = {"outcome": "created", "externalId": "crm-1001", "status": 201, "attempts": 1}
    batch = _deliveries("BatchResult", {**COUNTS, "rejections": [REJECTION]})
    business = example(schemas()["Business"])
    line = business and f"{msgspec.json.encode(business).decode()}\n"
    lines = body({"type": "string", "description": "One Business in each line."}, line)
    batch_body = content("Batch", business and [business]) | dict.fromkeys(NDJSON, lines)
    healthy = content("Health", {"status": "ok"})
    unhealthy = content("Health", {"status": "unavailable"})
    started = (400, 409, 413, 415, 422, 500, 503)
    return {
        "/businesses": {
            "post": operation(
                "postBusiness",
                "Take a business, and start its delivery to the partner.",
                _deliveries("DeliveryResult", delivered),
                *(*started, 504),
                parameters=[IDEMPOTENCY_KEY, PREFER],
                requestBody={"required": True, "content": content("Business", business)},
            )
        },
        "/businesses/batch": {
            "post": operation(
                "postBatch",
                "Take a batch of businesses, and start its delivery.",
                batch,
                *started,
                parameters=[IDEMPOTENCY_KEY, PREFER],
                requestBody={"required": True, "content": batch_body},
            )
        },
        "/batches/{id}/redeliver": {
            "post": operation(
                "redeliverBatch",
                "Start a batch with what a finished one has left undelivered; asking again starts nothing new.",
                batch,
                *(404, 409, 500, 503),
                parameters=[
                    parameter(
                        "path",
                        "id",
                        description="The batch's instance id.",
                        schema={"type": "string"},
                        example=INSTANCE,
                    ),
                    PREFER,
                ],
            )
        },
        "/businesses/{externalId}": {
            "get": operation(
                "getBusiness",
                "Show the partner's record of a business.",
                {200: answer("The record as the partner shows it.", {JSON: body({}, business)})},
                *(400, 404, 502, 503, 504),
                parameters=[
                    parameter(
                        "path",
                        "externalId",
                        description="Percent-encoded; a slash is `%2F`.",
                        schema=external_id(),
                        example="crm-1001",
                    )
                ],
            )
        },
        "/health": {
            "get": operation(
                "getHealth",
                "Say whether the settings are valid, to anybody.",
                {
                    200: answer("They are.", healthy, Cache_Control=NO_STORE),
                    307: answer(
                        "With `deep=true`: ask `/health/deep`, which wants a key.",
                        content("Health", {"status": "elsewhere"}),
                        Location=header("A relative reference.", format="uri-reference"),
                        Cache_Control=NO_STORE,
                    ),
                    503: answer("They are not.", unhealthy, Cache_Control=NO_STORE),
                },
                security=[],
                parameters=[
                    parameter("query", "deep", schema={"type": "boolean"}, description="Lead on to `/health/deep`.")
                ],
            )
        },
        "/health/deep": {
            "get": operation(
                "getDeepHealth",
                "Say whether the settings are valid and an access token can be had, and if not, why.",
                {200: answer("It can.", healthy, Cache_Control=NO_STORE)},
                503,
            )
        },
        "/openapi.json": {
            "get": operation(
                "getOpenApi",
                "Give this document.",
                {200: answer("OpenAPI 3.1.", {JSON: {"schema": {"type": "object"}, "example": {"openapi": "3.1.1"}}})},
            )
        },
    }
