"""Sample records, made from a resource's model: for the demo, the trial of a package and the tests.

A member's value is the first of its `Meta(examples=[…])`. Without examples it is made from the member's JSON Schema.
Members with a default appear only if they have examples.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from shared.errors import InvalidRecordError, ResourceError
from shared.rules.record import read_record

if TYPE_CHECKING:
    from shared.resource import Resource

# JSON Schema has no format for a time without a zone: where "text" is refused, all texts are times.
_TEXTS = ("text", "2026-01-31T09:30:00")
_BY_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T09:30:00Z",
    "time": "09:30:00Z",
    "duration": "PT1H30M",
    "uuid": "1f0c6a52-7f5e-4d6b-9a3e-000000000001",
    "decimal": "12.50",
}
_TRAILING_DIGITS = re.compile(r"[0-9]*\Z")


def sample_record(resource: Resource, number: int) -> dict[str, Any]:
    """Return a record that the intake accepts, ready for JSON. Other numbers (1 or more) have other ids.

    Raises:
        ResourceError: no value can be made for a member; the text names it. Examples are the remedy.
    """
    problems = []
    for text in _TEXTS:
        try:
            schema = msgspec.json.schema(resource.model)
            record: dict[str, Any] = _value(schema, schema["$defs"], text)
            members = schema["$defs"][schema["$ref"].rpartition("/")[2]]["properties"]
            id_ = resource.id_member
            record[id_] = _numbered(members[id_], record[id_], number)
            read_record(resource, msgspec.json.encode(record))
        except (InvalidRecordError, TypeError) as exc:  # TypeError: a member's type has no JSON Schema
            problems.append(str(exc))
        else:
            return record
    told = f"no sample record can be made: {problems[0]}. Give its members Meta(examples=[…]) that keep the rules"
    raise ResourceError([f"Resource {resource.name}: {told}"])


def _value(schema: dict[str, Any], defs: dict[str, Any], text: str) -> Any:  # noqa: ANN401, it is any JSON
    """Return a value that keeps most rules of the schema; `text` stands for every text without an example."""
    if "examples" in schema:
        return msgspec.to_builtins(schema["examples"][0])
    # `null` last: it says nothing about the member.
    schema = min(schema.get("anyOf", [schema]), key=lambda each: each.get("type") == "null")
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema:
        return _value(defs[schema["$ref"].rpartition("/")[2]], defs, text)
    match schema.get("type", "string"):
        case "array":
            first = schema.get("prefixItems", [schema.get("items")] * schema.get("minItems", 0))
            value: Any = [_value(each, defs, text) for each in first]
        case "object":
            members = schema.get("properties", {}).items()
            shown = {name: each for name, each in members if name in schema["required"] or "examples" in each}
            value = {name: _value(each, defs, text) for name, each in shown.items()}
        case "integer" | "number":
            value = _number(schema)
        case "string":
            known = "YWFh" if "contentEncoding" in schema else _BY_FORMAT.get(schema.get("format", ""))
            value = known or text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]
        case kind:
            value = True if kind == "boolean" else None
    return value


def _number(schema: dict[str, Any]) -> float:
    """Return 1, or the whole number next to it that the bounds allow. A narrower range needs an example."""
    low = max(1, schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1)
    number: float = min(low, schema.get("maximum", low), schema.get("exclusiveMaximum", low + 1) - 1)
    step = schema.get("multipleOf")
    return number if step is None else math.ceil(number / step) * step


def _numbered(schema: dict[str, Any], example: object, number: int) -> str | int:
    """Return the id with its trailing digits replaced by the number, or followed by it where it has none."""
    if schema.get("type") == "integer":
        least = max(schema.get("minimum", 1), schema.get("exclusiveMinimum", 0) + 1, 1)
        return int(least - 1 + number) * int(schema.get("multipleOf", 1))
    text = str(example)
    if schema.get("format") == "uuid":
        return str(UUID(int=(UUID(text).int & ~0xFFFFFFFFFFFF) | number))
    digits = _TRAILING_DIGITS.search(text)
    start = digits.start() if digits else len(text)
    shown = str(number).zfill(len(text) - start)
    most = schema.get("maxLength", len(text) + len(shown))
    return text[: min(start, max(0, most - len(shown)))] + shown
