"""The record types of the app, from its OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relay.errors import usage_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


@dataclass(frozen=True, slots=True)
class RecordType:
    """A record type: its name, its route below /api, and the JSON Schema of its members."""

    name: str
    route: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Schema:
    """What a JSON Schema says of one value.

    `kinds` are its JSON types without "null", empty for any; `choices` are its values where they are listed.
    """

    document: Mapping[str, Any]
    kinds: frozenset[str] = frozenset()
    is_nullable: bool = True
    properties: Mapping[str, Any] | None = None
    required: frozenset[str] = frozenset()
    items: Any = None
    is_open: bool = True
    choices: tuple[object, ...] = ()

    def member(self, name: str) -> Schema | None:
        """Return the schema of a member of an object or an element of a list, None where it is not described."""
        if "array" in self.kinds and self.items is not None and name.isdecimal():
            return read_schema(self.items, self.document)
        described = (self.properties or {}).get(name)
        return None if described is None else read_schema(described, self.document)

    def at(self, pointer: str) -> Schema | None:
        """Return the schema of what a JSON Pointer (RFC 6901) points to, None where it is not described."""
        schema: Schema | None = self
        for step in pointer.split("/")[1:]:
            schema = schema and schema.member(step.replace("~1", "/").replace("~0", "~"))
        return schema


def read_schema(schema: Any, document: Mapping[str, Any]) -> Schema:  # noqa: ANN401, it is any JSON
    """Read a JSON Schema; references are followed within `document`, alternatives are united."""
    schema = _resolved(schema, document)
    kinds: set[str] = set()
    types = schema.get("type", [])
    kinds.update([types] if isinstance(types, str) else types)
    kinds.update(_JSON_TYPES[type(value)] for value in schema.get("enum", []) if type(value) in _JSON_TYPES)
    properties, required = schema.get("properties"), frozenset(schema.get("required", []))
    items, is_open = schema.get("items"), schema.get("additionalProperties", True) is not False
    choices = tuple(schema.get("enum", []))
    alternatives = schema.get("anyOf", []) + schema.get("oneOf", [])
    for each in (read_schema(alternative, document) for alternative in alternatives):
        kinds |= each.kinds | ({"null"} if each.is_nullable else set())
        if each.properties is not None:
            properties, required, is_open = each.properties, each.required, each.is_open
        items = each.items if items is None else items
        choices += each.choices
    return Schema(
        document,
        frozenset(kinds - {"null"}),
        not kinds or "null" in kinds,
        properties,
        required,
        items,
        is_open,
        choices,
    )


def read_record_types(document: Mapping[str, Any]) -> list[RecordType]:
    """Return the record types of an OpenAPI document: each has a path for one record and one for a batch."""
    paths = document.get("paths") or {}
    found = []
    for path, operations in paths.items():
        route, is_batch = path.removesuffix("/batch"), path.endswith("/batch")
        if not is_batch or "post" not in operations or "post" not in paths.get(route, {}):
            continue
        content = paths[route]["post"].get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        name = str(schema.get("$ref", route)).rpartition("/")[2]
        found.append(RecordType(name, route.removeprefix("/api").strip("/"), read_schema(schema, document)))
    return found


def choose(types: Sequence[RecordType], name: str | None) -> RecordType:
    """Return the record type of this name or route; without a name the only one.

    Raises:
        CommandError: there is none, or the name is missing and there are several.
    """
    names = ", ".join(each.name for each in types) or "none"
    if name is None:
        if len(types) == 1:
            return types[0]
        raise usage_error(f"The app has several record types: {names}.", "Choose one with --resource NAME.")
    wanted = name.strip("/").casefold()
    for each in types:
        if wanted in {each.name.casefold(), each.route.casefold()}:
            return each
    raise usage_error(f"The app has no record type {name!r}.", f"It has: {names}.")


def _resolved(schema: Any, document: Mapping[str, Any]) -> Mapping[str, Any]:  # noqa: ANN401, it is any JSON
    for _ in range(10):
        if not isinstance(schema, dict) or not str(schema.get("$ref", "")).startswith("#/"):
            break
        found: Any = document
        for part in schema["$ref"][2:].split("/"):
            found = found.get(part.replace("~1", "/").replace("~0", "~"), {})
        schema = found
    return schema if isinstance(schema, dict) else {}
