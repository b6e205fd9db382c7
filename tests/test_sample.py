from __future__ import annotations

from datetime import date, datetime  # noqa: TC003, msgspec reads the annotations
from decimal import Decimal  # noqa: TC003, the same
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict, cast
from uuid import UUID

import msgspec
import pytest
from msgspec import Meta

from sandbox.sample import sample_record
from shared.errors import ResourceError
from shared.resource import LookUp, Partner, Post, Record, Resource
from shared.rules.record import read_record
from tests.models import PARCEL


class Colour(Enum):
    RED = "red"


class Box(msgspec.Struct, tag="box"):
    side: Annotated[float, Meta(gt=0)]


class Place(TypedDict):
    city: str


class Everything(Record):
    key: Annotated[str, Meta(max_length=8, examples=["A-001"])]
    text: Annotated[str, Meta(min_length=6, max_length=9)]
    short: Annotated[str, Meta(max_length=2)]
    ratio: Annotated[float, Meta(gt=0.25, lt=0.5, examples=[0.4])]
    below: Annotated[float, Meta(le=-2)]
    dozen: Annotated[int, Meta(ge=20, multiple_of=12)]
    years: Annotated[int, Meta(gt=17, lt=200)]
    amount: Decimal
    agreed: bool
    day: date
    instant: Annotated[datetime, Meta(tz=True)]
    local: Annotated[datetime, Meta(tz=False)]
    token: UUID
    colour: Colour
    size: Literal["S", "M"]
    maybe: int | None
    boxes: Annotated[list[Box], Meta(min_length=2)]
    labels: dict[str, int]
    place: Place
    pair: tuple[int, str]
    either: Box | None
    anything: Any
    blob: bytes
    left_out: str = ""
    shown: Annotated[str, Meta(examples=["yes"])] = ""


def resource(model: type[Record], id_: str = "key") -> Resource:
    return Resource(
        model, route="things", id=id_, partner=Partner("API"), post=Post("/"), look_up=LookUp("/{id}"), name="Thing"
    )


def with_id(type_: object) -> Resource:
    model = msgspec.defstruct("Thing", [("key", type_)], bases=(Record,), kw_only=True)
    return resource(cast("type[Record]", model))


def test_every_type_has_a_sample_that_the_intake_accepts() -> None:
    record = sample_record(resource(Everything), 12)

    assert read_record(resource(Everything), msgspec.json.encode(record)).id == "A-012"
    assert record["boxes"] == [{"type": "box", "side": 1}] * 2
    assert (record["dozen"], record["maybe"], record["shown"]) == (24, 1, "yes")
    assert "leftOut" not in record


def test_examples_come_first() -> None:
    assert sample_record(PARCEL, 7) == {"parcelId": "P-7", "weight": 1.5}


@pytest.mark.parametrize(
    ("type_", "number", "expected"),
    [
        (Annotated[str, Meta(examples=["crm-1001"])], 7, "crm-0007"),
        (Annotated[str, Meta(examples=["crm-1001"])], 123456, "crm-123456"),
        (Annotated[str, Meta(examples=["acme"])], 7, "acme7"),
        (Annotated[str, Meta(pattern="^[A-Z]{2}-[0-9]{4}$", examples=["SO-2001"])], 7, "SO-0007"),
        (str, 7, "text7"),
        (Annotated[str, Meta(max_length=3)], 12, "t12"),
        (Annotated[str, Meta(min_length=1, max_length=1)], 7, "7"),
        (int, 7, 7),
        (Annotated[int, Meta(ge=1000)], 1, 1000),
        (
            Annotated[UUID, Meta(examples=["01890a5d-ac96-774b-bcce-b302099a8057"])],
            7,
            "01890a5d-ac96-774b-bcce-000000000007",
        ),
    ],
)
def test_the_id_has_the_number(type_: object, number: int, expected: object) -> None:
    assert sample_record(with_id(type_), number) == {"key": expected}


@pytest.mark.parametrize("type_", [str, int, UUID, Annotated[str, Meta(examples=["a-99"])]])
def test_ids_are_unique(type_: object) -> None:
    ids = {sample_record(with_id(type_), number)["key"] for number in range(1, 201)}

    assert len(ids) == 200


class Coded(Record):
    key: str
    code: Annotated[str, Meta(pattern="^[A-Z]{2}$")]


class Nested(Record):
    key: str
    items: Annotated[list[Coded], Meta(min_length=1)]


class Contradicting(Record):
    key: str

    def __post_init__(self) -> None:
        raise ValueError("never right")


@pytest.mark.parametrize(
    ("described", "words"),
    [
        (resource(Coded), "no sample record can be made: /code: must be str matching regex .* Give its members Meta"),
        (resource(Nested), "/items/0/code: must be str matching"),
        (with_id(Literal["a", "b"]), "/key: Invalid enum value"),
        (resource(Contradicting), "never right"),
    ],
)
def test_a_member_without_a_possible_value_is_named(described: Resource, words: str) -> None:
    with pytest.raises(ResourceError, match=words):
        sample_record(described, 1)
