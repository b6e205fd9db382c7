"""The HTTP interface as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.1).

It is made of a table of operations, the types of the answers, and the models of the records (JSON Schema 2020-12).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from shared.http.deliveries import COUNT, FILTERS, MAX_PAGE, SHOWN, STATES, TEXT, TIME, VERBS
from shared.http.intake import JSON, MAX_RECORDS, NDJSON
from shared.http.messages import MAX_WAIT, TYPE_ROOT, TYPES
from shared.rules.record import MAX_BYTES, MAX_ID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.resource import Resource

VERSION = "1.0.0"
"""As in pyproject.toml, which is not deployed."""

_STARTED, _LINKS, _OBJECT = {200: "Delivery", 202: "Links"}, {202: "Links"}, {200: "object"}
_STARTING = (
    "malformed key-reused wrong-state length-required too-large media-type content-encoding invalid-record rejected "
    "busy failed configuration unavailable expired"
)
_LOOKING_UP = "malformed not-found partner configuration unavailable timeout"
_FILTERS = "state resource from to key top token"
_FINDING, _MANAGING = "not-found unavailable", "not-found unavailable wrong-state"


class Operation(NamedTuple):
    """What a method of a route does. `answers` are the schemas of its successes by status.

    `problems` are slugs of problem types and `parameters` names, separated by spaces.
    """

    id: str
    summary: str
    answers: Mapping[int, str]
    problems: str = ""
    parameters: str = ""
    is_open: bool = False


_REDELIVER = "Deliver what a finished delivery left undelivered. Asking again starts nothing new."
_DELIVERIES = {
    "GET /deliveries": Operation(
        "listDeliveries", "List deliveries, the newest first.", {200: "DeliveryPage"}, "malformed unavailable", _FILTERS
    ),
    "GET /deliveries/{id}": Operation(
        "getDelivery", "Show a delivery.", {200: "Delivery", 202: "Delivery"}, f"malformed {_FINDING}", "id records"
    ),
    "GET /deliveries/{id}/history": Operation(
        "getDeliveryHistory", "Show the attempts and waits of a delivery.", {200: "History"}, _FINDING, "id"
    ),
    "POST /deliveries/{id}/cancel": Operation(
        "cancelDelivery", "Cancel a delivery. A record that is being posted may still arrive.", _LINKS, _MANAGING, "id"
    ),
    "POST /deliveries/{id}/suspend": Operation(
        "suspendDelivery", "Hold a delivery until it is resumed.", _LINKS, _MANAGING, "id"
    ),
    "POST /deliveries/{id}/resume": Operation(
        "resumeDelivery", "Let a suspended delivery go on.", _LINKS, _MANAGING, "id"
    ),
    "POST /deliveries/{id}/redeliver": Operation(
        "redeliverDelivery", _REDELIVER, _LINKS, f"{_MANAGING} configuration", "id"
    ),
}
_CHECK = "Say whether the settings are valid, to anybody."
_PROBE = "Say of each partner whether its settings are valid, a token can be had, and it answers."
_SERVICE = {
    "GET /health": Operation("getHealth", _CHECK, {200: "Health", 503: "Health"}, is_open=True),
    "HEAD /health": Operation("headHealth", _CHECK, {200: "", 503: ""}, is_open=True),
    "GET /health/deep": Operation(
        "getDeepHealth", _PROBE, {200: "DeepHealth", 503: "DeepHealth"}, "malformed", "probe"
    ),
    "GET /openapi.json": Operation("getOpenApi", "Show this document.", _OBJECT),
    "GET /docs": Operation("getDocs", "A page that renders this document.", {200: "HTML"}, is_open=True),
    "GET /console": Operation("getConsole", "A live page of deliveries.", {200: "HTML"}, is_open=True),
}


def operations(resources: Sequence[Resource]) -> dict[str, dict[str, Operation]]:
    """Return the operations by tag, and by method and path."""
    tagged = {}
    for tag, name in ((resource.route, resource.name) for resource in resources):
        one, many = (
            f"Accept {what}, and start its delivery." for what in (f"one {name}", f"a batch of {name} records")
        )
        tagged[tag] = {
            f"POST /{tag}": Operation(f"accept{name}", one, _STARTED, _STARTING, "Idempotency-Key Prefer"),
            f"POST /{tag}/batch": Operation(f"accept{name}Batch", many, _STARTED, _STARTING, "Idempotency-Key Prefer"),
            f"GET /{tag}/{{id}}": Operation(f"get{name}", "Show the partner's record.", _OBJECT, _LOOKING_UP, "id"),
        }
    return tagged | {"deliveries": _DELIVERIES, "service": _SERVICE}


def document(resources: Sequence[Resource]) -> bytes:
    """Return the document as JSON text in UTF-8."""
    schemas, names = _schemas(resources)
    parameters = _parameters(resources)
    paths: dict[str, Any] = {}
    for tag, rows in operations(resources).items():
        for call, row in rows.items():
            method, path = call.split()
            operation = paths.setdefault(path, {})[method.lower()] = {
                "operationId": row.id,
                "summary": row.summary,
                "tags": [tag],
                "parameters": [parameters[name] for name in row.parameters.split()],
                "responses": _responses(row),
            }
            if row.is_open:
                operation["security"] = []
    for resource, name in zip(resources, names, strict=True):
        _add_records(paths, schemas, resource, name)
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
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": {
                "functionKey": {"type": "apiKey", "in": "header", "name": "x-functions-key"},
                "functionKeyInQuery": {"type": "apiKey", "in": "query", "name": "code"},
            },
        },
    }
    return msgspec.json.encode(content)


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _content(name: str) -> dict[str, Any]:
    return {JSON: {"schema": _ref(name)}}


_OK = {"enum": ["ok", "unavailable"]}
_LINK = "id resource state statusQueryGetUri historyGetUri " + " ".join(f"{verb}PostUri" for verb in VERBS)
# For each answer, the names of the members that it always has, and of those that it may have.
_ANSWERS = {
    "Links": (_LINK, ""),
    "Delivery": (
        f"{_LINK} createdTime lastUpdatedTime runtimeStatus",
        " ".join([*SHOWN, "customStatus output rejections records"]),
    ),
    "RecordState": ("index state", "recordId status reason problem uncertain"),
    "DeliveryPage": ("deliveries", "nextLink"),
    "Event": ("type time", "end seconds outcome status reason records"),
    "History": ("id state events", ""),
    "Problem": ("type title status detail", "errors delivery problem uncertain attempts differing"),
    "BrokenRule": ("pointer detail", ""),
    "Health": ("status", ""),
    "DeepHealth": ("status partners", ""),
    "PartnerHealth": ("settings", "token partner detail flow tokens"),
}
_MEMBERS = {
    **SHOWN,
    "id": {"description": "The delivery's id.", "type": "string"},
    "resource": {"description": "The name of its record type.", "type": "string"},
    "state": {"type": "string", "enum": STATES},
    "RecordState.state": {"enum": ["created", "exists", "rejected", "expired", "pending"]},
    "statusQueryGetUri": {"description": "GET: the delivery; 200 once it has finished, 202 before.", "type": "string"},
    "historyGetUri": {"description": "GET: its attempts and waits.", "type": "string"},
    **{f"{verb}PostUri": {"description": f"POST: {verb} it.", "type": "string"} for verb in VERBS},
    "runtimeStatus": {"description": "Durable Functions' own status.", "type": "string"},
    "nextLink": {"description": "GET: the next page.", "type": "string"},
    "pointer": {"description": "A JSON Pointer as a URI fragment: `#/name`.", "type": "string", "pattern": "^#"},
    "Problem.type": {"type": "string", "enum": [TYPE_ROOT + slug for slug in TYPES]},
    "Problem.status": {"type": "integer", "minimum": 400, "maximum": 599},
    "delivery": {"description": "GET: the delivery that the problem tells of.", "type": "string"},
    "seconds": {"type": "number"},
    "flow": {"type": "object"},
    "tokens": {"description": "Calls that got an access token, and token requests.", "type": "object"},
    "partners": {"type": "object", "additionalProperties": _ref("PartnerHealth")},
    "deliveries": _list("Delivery"),
    "events": _list("Event"),
    "errors": _list("BrokenRule"),
    "rejections": _list("RecordState"),
    "records": _list("RecordState"),
    "customStatus": {},
    "output": {},
    **dict.fromkeys(("index", "Event.records"), COUNT),
    **dict.fromkeys(("type", "title", "detail", "Event.outcome"), TEXT),
    **dict.fromkeys(("createdTime", "lastUpdatedTime", "time", "end"), TIME),
    **dict.fromkeys(("settings", "token", "partner", "Health.status", "DeepHealth.status"), _OK),
}
"""The schemas of members by name, or by answer and name where the name alone means something else."""


def _parameters(resources: Sequence[Resource]) -> dict[str, Any]:
    """Return the parameters of operations by name."""
    patterns = {name: {"type": "string", "pattern": f"^({pattern})$"} for name, (pattern, _) in FILTERS.items()}
    types = sorted({text for resource in resources for text in (resource.name, resource.route)})
    keyed = "Names the delivery: the same key and payload start nothing twice. Without it, each request is new."
    waits = f"`wait=N` (RFC 7240): answer with the result if it is there within N seconds, {MAX_WAIT:g} at most."
    rows: list[tuple[str, str, str, dict[str, Any]]] = [
        ("header", "Idempotency-Key", keyed, patterns["key"] | {"examples": ["8e03978e-40d5-43dd-bc93-6894a57f9324"]}),
        ("header", "Prefer", waits, TEXT | {"examples": ["wait=20"]}),
        ("path", "id", "The delivery's id.", {"type": "string", "pattern": "^[A-Za-z0-9_@:.-]{1,100}$"}),
        ("query", "state", "States, separated by commas.", patterns["state"]),
        ("query", "resource", "The name or the route of a record type.", {"type": "string", "enum": types}),
        ("query", "from", "Accepted at or after this time; 24 hours ago unless given.", TIME),
        ("query", "to", "Accepted before this time.", TIME),
        ("query", "key", "The Idempotency-Key of the request.", patterns["key"]),
        ("query", "top", "The most deliveries of a page.", {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}),
        ("query", "token", "The page, out of a nextLink.", patterns["token"]),
        ("query", "records", "`true` adds the state of each record of a batch.", {"type": "boolean"}),
        ("query", "probe", "`false`: only check the settings.", {"type": "boolean"}),
    ]
    return {
        name: {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}
        for place, name, description, schema in rows
    }


_CONTENTS = {
    "": {},
    "HTML": {"text/html": {"schema": TEXT}},
    "object": {JSON: {"schema": {"type": "object"}}},
}
_MEANINGS = {200: "Success.", 202: "The delivery goes on: look at it after Retry-After.", 503: "Something is wrong."}
_WATCHING = {
    "Location": {"description": "Where the delivery can be watched.", "schema": {"type": "string", "format": "uri"}},
    "Retry-After": {"description": "Seconds to wait before the next request.", "schema": COUNT},
}
_WAITED = {"Preference-Applied": {"description": "The caller has waited (RFC 7240).", "schema": {"const": "wait"}}}


def _responses(row: Operation) -> dict[str, Any]:
    """Return the responses of an operation; the host itself answers 401 where the function key is missing or wrong."""
    responses: dict[int, dict[str, Any]] = {}
    for status, name in row.answers.items():
        responses[status] = {"description": _MEANINGS[status], "content": _CONTENTS.get(name, _content(name))}
        if status == 202:  # noqa: PLR2004, RFC 9110
            responses[status]["headers"] = _WATCHING
        elif "Prefer" in row.parameters:
            responses[status]["headers"] = _WAITED
    for slug in row.problems.split():
        status, title, _ = TYPES[slug]
        example = {"type": TYPE_ROOT + slug, "title": title, "status": status, "detail": f"{title}."}
        content = {"application/problem+json": {"schema": _ref("Problem"), "examples": {}}}
        response = responses.setdefault(status, {"description": "", "content": content})
        response["description"] = f"{response['description']} {title}.".strip()
        response["content"]["application/problem+json"]["examples"][slug] = {"value": example}
    if not row.is_open:
        responses[401] = {"description": "The function key is missing or wrong. The host's own answer, with no body."}
    return {str(status): responses[status] for status in sorted(responses)}


# What `id_problem` refuses: "." and "..", and control characters. JSON in UTF-8 has no lone surrogates.
_ID_PATTERN = r"^(?!\.{1,2}$)[^\u0000-\u001f\u007f-\u009f]+$"
# No schema of its own, which would refer to itself: not every generator of clients reads that.
_ANY_JSON = {
    "description": "Any JSON (RFC 7493), nested at most 32 levels deep; numbers of at most 17 significant digits."
}


def _schemas(resources: Sequence[Resource]) -> tuple[dict[str, Any], list[str]]:
    """Return the components' schemas by their names, and the name of each resource's record."""
    schemas: dict[str, Any] = {}
    for name, (required, optional) in _ANSWERS.items():
        members = f"{required} {optional}".split()
        properties = {member: _MEMBERS.get(f"{name}.{member}", _MEMBERS.get(member)) for member in members}
        schemas[name] = {"title": name, "type": "object", "properties": properties, "required": required.split()}
    models = [resource.model for resource in resources]
    of_models = msgspec.json.schema_components(models)[1]
    # A record type may have the name of an answer.
    prefix = "" if of_models.keys().isdisjoint(schemas) else "Record"
    references, of_models = msgspec.json.schema_components(models, ref_template=_ref(f"{prefix}{{name}}")["$ref"])
    of_models = {f"{prefix}{name}": schema for name, schema in of_models.items()}
    schemas |= json.loads(msgspec.json.encode(of_models), object_hook=_as_accepted)
    names = [reference["$ref"].rpartition("/")[2] for reference in references]
    for name in set(names):
        schemas[name]["description"] = f"{schemas[name].get('description', name)} At most {MAX_BYTES // 1024} KiB."
    return schemas, names


def _as_accepted(schema: dict[str, Any]) -> dict[str, Any]:
    """Say that a decimal may be a number as well as a string."""
    return schema | {"type": ["string", "number"]} if schema.get("format") == "decimal" else schema


def _add_records(paths: dict[str, Any], schemas: dict[str, Any], resource: Resource, name: str) -> None:
    """Add what the intake asks of a record type beyond its model, its batch, the bodies of requests, and its id."""
    record, member = schemas[name], resource.id_member
    if record["properties"][member].get("type") == "string":
        id_limits = {"maxLength": MAX_ID, "minLength": 1, "pattern": _ID_PATTERN}
        record["properties"][member] = id_limits | record["properties"][member]
    record.setdefault("additionalProperties", _ANY_JSON)
    limits = {"description": f"Each {member} at most once; 1 MiB at most.", "minItems": 1, "maxItems": MAX_RECORDS}
    schemas[f"{name}Batch"] = _list(name) | limits
    in_lines = {"schema": {"type": "string", "description": f"One {name} in each line."}}
    batch = _content(f"{name}Batch") | dict.fromkeys(NDJSON, in_lines)
    for path, content in ((f"/{resource.route}", _content(name)), (f"/{resource.route}/batch", batch)):
        paths[path]["post"]["requestBody"] = {"required": True, "content": content}
    id_ = {"description": "The record's id, percent-encoded.", "schema": record["properties"][member]}
    paths[f"/{resource.route}/{{id}}"]["get"]["parameters"] = [{"name": "id", "in": "path", "required": True} | id_]
