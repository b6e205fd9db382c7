"""What the HTTP interface takes and gives, as JSON Schema (2020-12, the dialect of OpenAPI 3.1).

The record's schema comes from its model. The other types are those of the replies, for the schema alone: a test holds
every reply of the routes against it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import msgspec
from msgspec import Meta

from shared.api.business import Business
from shared.delivery.batch_input import MAX_RECORDS

REF = "#/components/schemas/{name}"
# What check_external_id() refuses: "." and "..", and Unicode's category Cc. JSON in UTF-8 has no lone surrogates.
EXTERNAL_ID_PATTERN = r"^(?!\.{1,2}$)[^\u0000-\u001f\u007f-\u009f]+$"

Index = Annotated[int, Meta(ge=0, description="The record's place in the batch, from 0.")]
Count = Annotated[int, Meta(ge=0)]
Status = Annotated[int, Meta(ge=100, le=599, description="The HTTP status of the partner's answer.")]


class Accepted(TypedDict):
    """The delivery has begun: Durable's links under which it can be watched and managed. They hold a key."""

    id: Annotated[str, Meta(description="The delivery's instance id.")]
    statusQueryGetUri: Annotated[str, Meta(description="GET: the status, 200 once the delivery has finished.")]
    sendEventPostUri: str
    terminatePostUri: Annotated[str, Meta(description="POST: end the delivery; `{text}` is the reason.")]
    purgeHistoryDeleteUri: Annotated[str, Meta(description="DELETE: forget a finished delivery.")]
    rewindPostUri: NotRequired[str]
    restartPostUri: NotRequired[str]
    suspendPostUri: NotRequired[Annotated[str, Meta(description="POST: hold the delivery.")]]
    resumePostUri: NotRequired[Annotated[str, Meta(description="POST: let it go on.")]]


class DeliveryResult(TypedDict):
    """A delivery that has succeeded."""

    instanceId: str
    outcome: Annotated[
        Literal["created", "exists"],
        Meta(description="`exists`: the partner had the record already, with the same content."),
    ]
    externalId: str
    status: NotRequired[Status]
    attempts: Annotated[int, Meta(ge=1)]


class Rejection(TypedDict):
    """A record of a batch that will not be delivered."""

    index: Index
    externalId: str
    status: NotRequired[Status]
    reason: Annotated[str, Meta(description="The partner's words, or why the record was given up.")]


class BatchResult(TypedDict):
    """A batch that has finished. `POST /batches/{id}/redeliver` starts another one with its rejected records."""

    instanceId: str
    total: Count
    created: Count
    exists: Count
    rejected: Count
    deferred: Count
    rejections: list[Rejection]


class Fault(TypedDict):
    """One broken rule."""

    pointer: Annotated[str, Meta(pattern="^#", description="A JSON Pointer as a URI fragment: `#/name`.")]
    detail: str


class Problem(TypedDict):
    """Problem details (RFC 9457). The type is `about:blank`: the title is the phrase of the status."""

    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    errors: NotRequired[Annotated[list[Fault], Meta(description="Every broken rule.")]]


class Health(TypedDict):
    """Whether the app can work."""

    status: Literal["ok", "unavailable", "elsewhere"]


def schemas() -> dict[str, Any]:
    """Give the schemas by their names, as the components of an OpenAPI document."""
    models = [Business, Accepted, DeliveryResult, BatchResult, Problem, Health]
    _, components = msgspec.json.schema_components(models, ref_template=REF)
    components["Business"] = _record(components["Business"])
    components["Batch"] = {
        "title": "Batch",
        "description": "Each external id at most once, 1 MiB at most.",
        "type": "array",
        "items": {"$ref": REF.format(name="Business")},
        "minItems": 1,
        "maxItems": MAX_RECORDS,
    }
    return dict(sorted(components.items()))


def external_id() -> dict[str, Any]:
    """Give the schema of an external id."""
    schema: dict[str, Any] = _record(msgspec.json.schema(Business)["$defs"]["Business"])["properties"]["externalId"]
    return schema


def example(record: dict[str, Any]) -> dict[str, Any] | None:
    """Give the record that the members' own examples make; None where a required member has none.

    Args:
        record: the schema of the record.
    """
    made = {name: schema["examples"][0] for name, schema in record["properties"].items() if "examples" in schema}
    return made if made.keys() >= set(record["required"]) else None


def _record(model: dict[str, Any]) -> dict[str, Any]:
    """Give the schema of a record as it is sent: without the model's own member for the whole of it."""
    properties = {name: schema for name, schema in model["properties"].items() if name != "$record"}
    properties["externalId"] = properties["externalId"] | {"pattern": EXTERNAL_ID_PATTERN}
    return model | {
        "description": "A business, 64 KiB at most. Members that are not named here are passed on unchanged.",
        "properties": properties,
        "required": [name for name in model["required"] if name != "$record"],
        "additionalProperties": True,
    }
