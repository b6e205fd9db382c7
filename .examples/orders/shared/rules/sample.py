"""Sample records, made from a resource's model: for the demo, the trial of a package and the OpenAPI document.

A member's value is the first of its `Meta(examples=[…])`. Without examples it is made from the member's type and its
constraints. Members with a default appear only if they have examples.
"""

from __future__ import annotations

import base64
import math
import re
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import inspect

from shared.errors import InvalidRecordError, ResourceError
from shared.rules.record import read_record

if TYPE_CHECKING:
    from shared.resource import Resource

_TRAILING_DIGITS = re.compile(r"[0-9]*\Z")
_CONSTANTS: dict[type[inspect.Type], Any] = {
    inspect.AnyType: "text",
    inspect.RawType: "text",
    inspect.NoneType: None,
    inspect.BoolType: True,
    inspect.DateType: "2026-01-31",
    inspect.TimeDeltaType: "PT1H30M",
    inspect.UUIDType: "1f0c6a52-7f5e-4d6b-9a3e-000000000001",
    inspect.DecimalType: "12.50",
}


class _CannotSampleError(Exception):
    """No value can be made for the member at the JSON Pointer `pointer`."""

    def __init__(self, pointer: str, reason: str) -> None:
        super().__init__(f"{pointer or 'the record'} {reason}")


def sample_record(resource: Resource, number: int) -> dict[str, Any]:
    """Return a record that the intake accepts, ready for JSON. Other numbers (1 or more) have other ids.

    Raises:
        ResourceError: no value can be made for a member; the text names it. Examples are the remedy.
    """
    try:
        record: dict[str, Any] = _value(inspect.type_info(resource.model), "")
        of_id = next(each for each in msgspec.structs.fields(resource.model) if each.name == resource.id)
        record[resource.id_member] = _id(
            inspect.type_info(of_id.type), record[resource.id_member], number, f"/{resource.id_member}"
        )
        read_record(resource, msgspec.json.encode(record))
    except (_CannotSampleError, InvalidRecordError) as exc:
        raise ResourceError(
            [f"Resource {resource.name}: no sample record can be made: {exc}. Add Meta(examples=[…]) to that member"]
        ) from None
    return record


def _id(info: inspect.Type, example: object, number: int, pointer: str) -> str | int:
    """Return the example with its trailing digits replaced by the number, or followed by it where it has none."""
    plain = info.type if isinstance(info, inspect.Metadata) else info
    if isinstance(plain, inspect.EnumType | inspect.LiteralType | inspect.BoolType):
        raise _CannotSampleError(pointer, "is the id and has too few values to be unique")
    if isinstance(plain, inspect.IntType):
        lowest = max(plain.ge or 0, plain.gt or 0, 1) - 1
        return (int(lowest) + number) * int(plain.multiple_of or 1)
    if isinstance(plain, inspect.UUIDType):
        return str(UUID(int=(UUID(str(example)).int & ~0xFFFFFFFFFFFF) | number))
    text = str(example)
    digits = _TRAILING_DIGITS.search(text)
    start = digits.start() if digits else len(text)
    longest = plain.max_length if isinstance(plain, inspect.StrType) else None
    shown = str(number).zfill(len(text) - start)
    return (text[:start] if longest is None else text[: min(start, max(0, longest - len(shown)))]) + shown


def _value(info: inspect.Type, pointer: str) -> Any:  # noqa: ANN401, C901, PLR0911, any JSON; a branch for each type
    if isinstance(info, inspect.Metadata):
        if examples := (info.extra_json_schema or {}).get("examples"):
            return msgspec.to_builtins(examples[0])
        return _value(info.type, pointer)
    if type(info) in _CONSTANTS:
        return _CONSTANTS[type(info)]
    if isinstance(info, inspect.StrType):
        if info.pattern is not None:
            raise _CannotSampleError(pointer, f"must match {info.pattern!r} and has no example")
        return "text".ljust(info.min_length or 0, "x")[: info.max_length]
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return _number(info, pointer)
    if isinstance(info, inspect.DateTimeType | inspect.TimeType):
        time = "09:30:00" + ("" if info.tz is False else "Z")
        return f"2026-01-31T{time}" if isinstance(info, inspect.DateTimeType) else time
    if isinstance(info, inspect.BytesType | inspect.ByteArrayType | inspect.MemoryViewType):
        return base64.b64encode(b"a" * max(info.min_length or 0, min(4, info.max_length or 4))).decode()
    if isinstance(info, inspect.EnumType):
        return msgspec.to_builtins(next(iter(info.cls)))
    if isinstance(info, inspect.LiteralType):
        return info.values[0]
    if isinstance(info, inspect.UnionType):
        # None last: it says nothing about the member.
        return _value(min(info.types, key=lambda each: isinstance(each, inspect.NoneType)), pointer)
    return _container(info, pointer)


def _container(info: inspect.Type, pointer: str) -> Any:  # noqa: ANN401, a list or an object
    if isinstance(info, inspect.CollectionType):
        return [_value(info.item_type, f"{pointer}/{index}") for index in range(info.min_length or 0)]
    if isinstance(info, inspect.TupleType):
        return [_value(item, f"{pointer}/{index}") for index, item in enumerate(info.item_types)]
    if isinstance(info, inspect.DictType):
        key = str(_value(info.key_type, pointer))
        keys = [f"{key}{index or ''}" for index in range(info.min_length or 0)]
        return {key: _value(info.value_type, f"{pointer}/{key}") for key in keys}
    if isinstance(info, inspect.StructType | inspect.TypedDictType | inspect.DataclassType | inspect.NamedTupleType):
        members = {
            each.encode_name: _value(each.type, f"{pointer}/{each.encode_name}")
            for each in info.fields
            if each.required or _has_examples(each.type)
        }
        if isinstance(info, inspect.NamedTupleType):
            return list(members.values())
        if isinstance(info, inspect.StructType):
            tag = {} if info.tag_field is None else {info.tag_field: info.tag}
            return [*tag.values(), *members.values()] if info.array_like else tag | members
        return members
    raise _CannotSampleError(pointer, f"has a type that JSON cannot hold ({type(info).__name__})")


def _number(info: inspect.IntType | inspect.FloatType, pointer: str) -> float:
    low = info.ge if info.gt is None else info.gt
    high = info.le if info.lt is None else info.lt
    low, high = (1 if high is None else high - 2) if low is None else low, (low or 0) + 2 if high is None else high
    step = info.multiple_of or 1
    above = (math.floor(low / step) + 1) * step
    for value in (1, low, above, high, (low + high) / 2):
        number = int(value) if isinstance(info, inspect.IntType) else value
        if (
            (info.ge is None or number >= info.ge)
            and (info.gt is None or number > info.gt)
            and (info.le is None or number <= info.le)
            and (info.lt is None or number < info.lt)
            and (not info.multiple_of or number % info.multiple_of == 0)
        ):
            return number
    raise _CannotSampleError(pointer, "has bounds that leave no number")


def _has_examples(info: inspect.Type) -> bool:
    return isinstance(info, inspect.Metadata) and bool((info.extra_json_schema or {}).get("examples"))
