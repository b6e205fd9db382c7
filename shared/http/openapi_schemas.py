"""The schemas of the OpenAPI document (JSON Schema 2020-12): records from their models, answers from these types.

The types below exist for the schema alone; a test holds every answer of the app against them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from shared.http.delivery_view import State  # noqa: TC001, msgspec reads the annotations
from shared.http.intake import MAX_RECORDS
from shared.http.problem import TYPE_ROOT, TYPES
from shared.rules.record import MAX_BYTES, MAX_ID
from shared.rules.strict_json import MAX_INTEGER, MIN_INTEGER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.resource import Resource

REF = "#/components/schemas/{name}"
# What `id_problem` refuses: "." and "..", and control characters. JSON in UTF-8 has no lone surrogates.
ID_PATTERN = r"^(?!\.{1,2}$)[^\u0000-\u001f\u007f-\u009f]+$"
# No schema of its own, which would refer to itself: not every generator of clients reads that.
_ANY_JSON = {
    "description": "Any JSON (RFC 7493), nested at most 32 levels deep; numbers of at most 17 significant digits."
}
# The largest number that a double holds.
_MAX_NUMBER = 1.7976931348623157e308

Count = Annotated[int, Meta(ge=0)]
Status = Annotated[int, Meta(ge=100, le=599, description="The HTTP status of the partner's answer.")]
Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
Reason = Annotated[str, Meta(description="A sentence for people.")]
ProblemObject = Annotated[dict[str, Any], Meta(description="The partner's problem details (RFC 9457).")]


class Links(TypedDict):
    """Where a delivery can be watched and managed. Every link wants the function key."""

    id: Annotated[str, Meta(description="The delivery's id.")]
    resource: Annotated[str, Meta(description="The name of its record type.")]
    state: State
    statusQueryGetUri: Annotated[str, Meta(description="GET: the delivery; 200 once it has finished, 202 before.")]
    historyGetUri: Annotated[str, Meta(description="GET: its attempts and waits.")]
    cancelPostUri: Annotated[str, Meta(description="POST: cancel it.")]
    suspendPostUri: Annotated[str, Meta(description="POST: hold it.")]
    resumePostUri: Annotated[str, Meta(description="POST: let it go on.")]
    redeliverPostUri: Annotated[str, Meta(description="POST: deliver again what it left undelivered.")]


class RecordState(TypedDict):
    """What became of one record of a batch."""

    index: Annotated[int, Meta(ge=0, description="The record's place in the batch, from 0.")]
    recordId: NotRequired[str]
    state: Literal["created", "exists", "rejected", "expired", "pending"]
    status: NotRequired[Status]
    reason: NotRequired[Reason]
    problem: NotRequired[ProblemObject]
    uncertain: NotRequired[bool]


class Delivery(Links):
    """A delivery: of one record (`recordId`), or of a batch (`total`)."""

    createdTime: Time
    lastUpdatedTime: Time
    runtimeStatus: Annotated[str, Meta(description="Durable Functions' own status.")]
    customStatus: NotRequired[Any]
    output: NotRequired[Any]
    recordId: NotRequired[str]
    outcome: NotRequired[
        Annotated[
            Literal["created", "exists"],
            Meta(description="`exists`: the partner had the record already, with the same content."),
        ]
    ]
    status: NotRequired[Status]
    attempts: NotRequired[Count]
    nextAttempt: NotRequired[Time]
    reason: NotRequired[Reason]
    problem: NotRequired[ProblemObject]
    uncertain: NotRequired[Annotated[bool, Meta(description="The partner may have stored the record all the same.")]]
    differing: NotRequired[list[str]]
    total: NotRequired[Count]
    created: NotRequired[Count]
    exists: NotRequired[Count]
    rejected: NotRequired[Count]
    expired: NotRequired[Count]
    pending: NotRequired[Count]
    recordsPerSecond: NotRequired[float]
    limit: NotRequired[Annotated[float, Meta(description="Requests per second that the partner was found to allow.")]]
    estimatedEnd: NotRequired[Time]
    rejections: NotRequired[list[RecordState]]
    records: NotRequired[list[RecordState]]


class DeliveryPage(TypedDict):
    """One page of deliveries. It may be empty and still have a next one."""

    deliveries: list[Delivery]
    nextLink: NotRequired[Annotated[str, Meta(description="GET: the next page.")]]


class Event(TypedDict):
    """One step of a delivery: an attempt or a wait has a start and an end."""

    type: str
    time: Time
    end: NotRequired[Time]
    seconds: NotRequired[float]
    outcome: NotRequired[str]
    status: NotRequired[Status]
    reason: NotRequired[Reason]
    records: NotRequired[Count]


class History(TypedDict):
    """The steps of a delivery, the first one first."""

    id: str
    state: State
    events: list[Event]


class BrokenRule(TypedDict):
    """A rule that the request breaks, and where."""

    pointer: Annotated[str, Meta(pattern="^#", description="A JSON Pointer as a URI fragment: `#/name`.")]
    detail: str


class Problem(TypedDict):
    """Problem details (RFC 9457)."""

    type: Annotated[str, Meta(extra_json_schema={"enum": [TYPE_ROOT + slug for slug in TYPES]})]
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: NotRequired[Annotated[list[BrokenRule], Meta(description="Every broken rule.")]]


class Health(TypedDict):
    """Whether the app can work."""

    status: Literal["ok", "unavailable"]


class PartnerHealth(TypedDict):
    """Whether one partner's settings are complete, a token can be had, and the partner answers."""

    settings: Literal["ok", "unavailable"]
    token: NotRequired[Literal["ok", "unavailable"]]
    partner: NotRequired[Literal["ok", "unavailable"]]
    detail: NotRequired[Reason]
    flow: NotRequired[dict[str, Any]]


class DeepHealth(Health):
    """The health of each partner, by its name."""

    partners: dict[str, PartnerHealth]


TYPES_OF_ANSWERS = (Links, Delivery, DeliveryPage, History, Problem, Health, DeepHealth)


def schemas(resources: Sequence[Resource]) -> tuple[dict[str, Any], list[str]]:
    """Return the components' schemas by their names, and the name of each resource's record."""
    models = [resource.model for resource in resources]
    components = msgspec.json.schema_components(TYPES_OF_ANSWERS, ref_template=REF)[1]
    of_models = msgspec.json.schema_components(models, ref_template=REF)[1]
    # A record type may have the name of an answer.
    prefix = "" if of_models.keys().isdisjoint(components) else "Record"
    references, of_models = msgspec.json.schema_components(models, ref_template=REF.format(name=f"{prefix}{{name}}"))
    components |= {f"{prefix}{name}": _with_number_limits(schema) for name, schema in of_models.items()}
    names = [reference["$ref"].rpartition("/")[2] for reference in references]
    for name, resource in zip(names, resources, strict=True):
        components[name] = _record(resource, components[name])
        components[f"{name}Batch"] = {
            "description": f"Each {resource.id_member} at most once; 1 MiB at most.",
            "type": "array",
            "items": {"$ref": REF.format(name=name)},
            "minItems": 1,
            "maxItems": MAX_RECORDS,
        }
    return dict(sorted(components.items())), names


def _record(resource: Resource, model: dict[str, Any]) -> dict[str, Any]:
    id_ = model["properties"][resource.id_member]
    if id_.get("type") == "string":
        id_ = {"maxLength": MAX_ID, "minLength": 1, "pattern": ID_PATTERN} | id_
    description = f"{model.get('description', resource.name)} At most {MAX_BYTES // 1024} KiB."
    return model | {
        "description": description,
        "properties": model["properties"] | {resource.id_member: id_},
        "additionalProperties": model.get("additionalProperties", _ANY_JSON),
    }


def _with_number_limits(schema: Any) -> Any:  # noqa: ANN401, it is any part of a schema
    """Add the limits of numbers, and say that a decimal may be a number as well as a string."""
    if isinstance(schema, list):
        return [_with_number_limits(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: _with_number_limits(each) for name, each in schema.items()}
    if changed.get("format") == "decimal":
        return changed | {"type": ["string", "number"]}
    if changed.get("type") == "integer":
        return {"minimum": MIN_INTEGER, "maximum": MAX_INTEGER} | changed
    if changed.get("type") == "number":
        return {"minimum": -_MAX_NUMBER, "maximum": _MAX_NUMBER} | changed
    return changed
