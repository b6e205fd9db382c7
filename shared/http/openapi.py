"""The HTTP interface as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1), derived from the resources."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from shared.http.deliveries import MAX_PAGE, PAGE_PATTERN
from shared.http.delivery_view import STATES
from shared.http.intake import JSON, NDJSON
from shared.http.openapi_schemas import REF, schemas
from shared.http.problem import TYPE_ROOT, TYPES
from shared.http.request import MAX_WAIT
from shared.rules.sample import sample_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from shared.resource import Resource

VERSION = "1.0.0"
"""As in pyproject.toml, which is not deployed."""

_STARTING = ("malformed", "key-reused", "length-required", "too-large", "media-type", "content-encoding")
_STARTING_TOO = ("invalid-record", "rejected", "busy", "failed", "configuration", "unavailable", "expired")


def document(resources: Sequence[Resource]) -> bytes:
    """Return the document as JSON text in UTF-8."""
    components, names = schemas(resources)
    paths: dict[str, Any] = {}
    for resource, name in zip(resources, names, strict=True):
        paths |= _resource_paths(resource, name, components[name]["properties"][resource.id_member])
    content = {
        "openapi": "3.1.1",
        "info": {
            "title": "Business Relay",
            "version": VERSION,
            "summary": "Delivers records to a partner's HTTP API, once each.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to where this document is: host.json's routePrefix.
        "servers": [{"url": "/api"}],
        "security": [{"functionKey": []}, {"functionKeyInQuery": []}],
        "tags": [
            *({"name": resource.route, "description": f"Deliver {resource.name} records."} for resource in resources),
            {"name": "deliveries", "description": "Watch and manage deliveries."},
            {"name": "service", "description": "The app itself."},
        ],
        "paths": paths | _delivery_paths(resources) | _service_paths(),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "functionKeyInQuery": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
    }
    return msgspec.json.encode(content)


def _resource_paths(resource: Resource, name: str, id_: dict[str, Any]) -> dict[str, Any]:
    record, other = sample_record(resource, 1), sample_record(resource, 2)
    lines = b"".join(msgspec.json.encode(each) + b"\n" for each in (record, other)).decode()
    batch_content = _content(f"{name}Batch", example=[record, other]) | {
        media_type: {"schema": {"type": "string", "description": f"One {name} in each line."}, "example": lines}
        for media_type in NDJSON
    }
    tags = [resource.route]
    return {
        f"/{resource.route}": {
            "post": _operation(
                f"accept{resource.name}",
                f"Accept a {resource.name}, and start its delivery.",
                tags,
                _started(),
                (*_STARTING, *_STARTING_TOO),
                parameters=[_IDEMPOTENCY_KEY, _PREFER],
                requestBody={"required": True, "content": _content(name, example=record)},
            )
        },
        f"/{resource.route}/batch": {
            "post": _operation(
                f"accept{resource.name}Batch",
                f"Accept a batch of {resource.name} records, and start its delivery.",
                tags,
                _started(),
                (*_STARTING, *_STARTING_TOO),
                parameters=[_IDEMPOTENCY_KEY, _PREFER],
                requestBody={"required": True, "content": batch_content},
            )
        },
        f"/{resource.route}/{{id}}": {
            "get": _operation(
                f"get{resource.name}",
                "Show the partner's record.",
                tags,
                {200: _answer("The record as the partner shows it.", {JSON: {"schema": {}, "example": record}})},
                ("malformed", "not-found", "partner", "configuration", "unavailable", "timeout"),
                parameters=[_parameter("path", "id", "The record's id, percent-encoded.", id_)],
            )
        },
    }


def _delivery_paths(resources: Sequence[Resource]) -> dict[str, Any]:
    states = "|".join(STATES)
    types = sorted({text for resource in resources for text in (resource.name, resource.route)})
    listed = [
        _parameter("query", "state", "States, separated by commas.", _text(pattern=f"^({states})(,({states}))*$")),
        _parameter("query", "resource", "The name or the route of a record type.", _text(enum=types)),
        _parameter("query", "from", "Accepted at or after this time; 24 hours ago unless given.", _text("date-time")),
        _parameter("query", "to", "Accepted before this time.", _text("date-time")),
        _parameter("query", "key", "The Idempotency-Key of the request.", _KEY_SCHEMA),
        _parameter(
            "query", "top", "The most deliveries of a page.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}
        ),
        _parameter("query", "token", "The page, out of a nextLink.", _text(pattern=f"^{PAGE_PATTERN}$")),
    ]
    records = _parameter("query", "records", "`true` adds the state of each record of a batch.", _FLAG)
    unknown = ("not-found", "unavailable")
    paths: dict[str, Any] = {
        "/deliveries": {
            "get": _operation(
                "listDeliveries",
                "List deliveries, the newest first.",
                ["deliveries"],
                {200: _answer("One page.", _content("DeliveryPage"))},
                ("malformed", "unavailable"),
                parameters=listed,
            )
        },
        "/deliveries/{id}": {
            "get": _operation(
                "getDelivery",
                "Show a delivery.",
                ["deliveries"],
                {
                    200: _answer("It has finished.", _content("Delivery")),
                    202: _answer("It goes on.", _content("Delivery"), {"Location": _LOCATION, "Retry-After": _SECONDS}),
                },
                ("malformed", *unknown),
                parameters=[_ID, records],
            )
        },
        "/deliveries/{id}/history": {
            "get": _operation(
                "getDeliveryHistory",
                "Show the attempts and waits of a delivery.",
                ["deliveries"],
                {200: _answer("Its steps.", _content("History"))},
                unknown,
                parameters=[_ID],
            )
        },
    }
    for verb, what in (
        ("cancel", "Cancel a delivery. A record that is being posted may still arrive."),
        ("suspend", "Hold a delivery until it is resumed."),
        ("resume", "Let a suspended delivery go on."),
        ("redeliver", "Deliver what a finished delivery left undelivered. Asking again starts nothing new."),
    ):
        answers = {202: _answer("The delivery.", _content("Links"), {"Location": _LOCATION, "Retry-After": _SECONDS})}
        problems = (*unknown, "wrong-state", *(["configuration"] if verb == "redeliver" else []))
        operation = _operation(f"{verb}Delivery", what, ["deliveries"], answers, problems, parameters=[_ID])
        paths[f"/deliveries/{{id}}/{verb}"] = {"post": operation}
    return paths


def _service_paths() -> dict[str, Any]:
    service = ["service"]
    page = {"text/html": {"schema": {"type": "string"}}}
    health = {200: _answer("They are.", _content("Health")), 503: _answer("They are not.", _content("Health"))}
    open_to_all: dict[str, Any] = {"security": []}
    document_schema = {JSON: {"schema": {"type": "object"}, "example": {"openapi": "3.1.1"}}}
    summary = "Say whether the settings are valid, to anybody."
    return {
        "/health": {
            "get": _operation("getHealth", summary, service, health, (), **open_to_all),
            "head": _operation(
                "headHealth",
                summary,
                service,
                {200: _answer("They are."), 503: _answer("They are not.")},
                (),
                **open_to_all,
            ),
        },
        "/health/deep": {
            "get": _operation(
                "getDeepHealth",
                "Say of each partner whether its settings are valid, a token can be had, and it answers.",
                service,
                {
                    200: _answer("All is well.", _content("DeepHealth")),
                    503: _answer("Something is not.", _content("DeepHealth")),
                },
                ("malformed",),
                parameters=[_parameter("query", "probe", "`false`: ask no partner and no token endpoint.", _FLAG)],
            )
        },
        "/openapi.json": {
            "get": _operation(
                "getOpenApi", "Show this document.", service, {200: _answer("OpenAPI 3.1.", document_schema)}, ()
            )
        },
        "/docs": {
            "get": _operation(
                "getDocs",
                "A page that renders this document.",
                service,
                {200: _answer("HTML.", page)},
                (),
                **open_to_all,
            )
        },
        "/console": {
            "get": _operation(
                "getConsole", "A live page of deliveries.", service, {200: _answer("HTML.", page)}, (), **open_to_all
            )
        },
    }


def _text(format_: str | None = None, **rules: Any) -> dict[str, Any]:  # noqa: ANN401, JSON Schema
    return {"type": "string", **({"format": format_} if format_ else {}), **rules}


def _integer(least: int, most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most}


def _parameter(place: str, name: str, description: str, schema: dict[str, Any], **members: Any) -> dict[str, Any]:  # noqa: ANN401, OpenAPI's own members
    return {
        "name": name,
        "in": place,
        "required": place == "path",
        "description": description,
        "schema": schema,
        **members,
    }


_FLAG = {"type": "boolean"}
_KEY_SCHEMA = _text(minLength=1, maxLength=255, pattern=r"^[\x21-\x7e]+$")
_IDEMPOTENCY_KEY = _parameter(
    "header",
    "Idempotency-Key",
    "Names the delivery: the same key and payload start nothing twice. Without it, each request is new.",
    _KEY_SCHEMA,
    example="8e03978e-40d5-43dd-bc93-6894a57f9324",
)
_PREFER = _parameter(
    "header",
    "Prefer",
    f"`wait=N` (RFC 7240): answer with the result if it is there within N seconds, {MAX_WAIT:g} at most.",
    _text(),
    example="wait=20",
)
_ID = _parameter("path", "id", "The delivery's id.", _text(pattern=r"^[A-Za-z0-9_@:.-]{1,100}$"))
_SECONDS = {"description": "Seconds to wait before the next request.", "schema": {"type": "integer", "minimum": 0}}
_LOCATION = {"description": "Where the delivery can be watched.", "schema": _text("uri")}


def _content(name: str, media_type: str = JSON, example: object = None) -> dict[str, Any]:
    schema = {"schema": {"$ref": REF.format(name=name)}}
    return {media_type: schema if example is None else schema | {"example": example}}


def _answer(
    description: str, content: dict[str, Any] | None = None, headers: dict[str, Any] | None = None
) -> dict[str, Any]:
    members = {"headers": headers, "content": content}
    return {"description": description, **{name: value for name, value in members.items() if value}}


def _started() -> dict[int, Any]:
    """Return the answers of a route that starts a delivery."""
    return {
        200: _answer(
            "With `Prefer: wait`: the delivery has finished, and delivered what it could.",
            _content("Delivery"),
            {"Preference-Applied": {"description": "The caller has waited (RFC 7240).", "schema": {"const": "wait"}}},
        ),
        202: _answer(
            "The delivery has begun, now or when the same key came first.",
            _content("Links"),
            {"Location": _LOCATION, "Retry-After": _SECONDS},
        ),
    }


def _operation(
    id_: str,
    summary: str,
    tags: list[str],
    answers: dict[int, Any],
    problems: Iterable[str],
    **members: Any,  # noqa: ANN401, OpenAPI's own members
) -> dict[str, Any]:
    """Return an operation; the host itself answers 401 where the function key is missing or wrong."""
    responses = dict(answers)
    for slug in problems:
        type_ = TYPES[slug]
        example = {"type": TYPE_ROOT + slug, "title": type_.title, "status": type_.status, "detail": f"{type_.title}."}
        response = responses.setdefault(
            type_.status,
            _answer("", {"application/problem+json": {"schema": {"$ref": REF.format(name="Problem")}, "examples": {}}}),
        )
        response["description"] = f"{response['description']} {type_.title}.".strip()
        response["content"]["application/problem+json"]["examples"][slug] = {"value": example}
    if members.get("security") != []:
        responses[401] = {"description": "The function key is missing or wrong. The host's own answer, with no body."}
    named = {str(status): responses[status] for status in sorted(responses)}
    return {"operationId": id_, "summary": summary, "tags": tags, **members, "responses": named}
