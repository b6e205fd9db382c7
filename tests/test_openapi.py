from __future__ import annotations

import re
from dataclasses import replace
from decimal import Decimal  # noqa: TC003, msgspec reads the annotations
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import Meta

from shared.errors import InvalidRecordError, JsonError
from shared.http.messages import TYPE_ROOT, TYPES
from shared.http.openapi import document
from shared.http.service import get_openapi, get_page
from shared.resource import Record
from shared.rules.record import read_record
from tests.models import PARCEL


class Delivery(Record, forbid_unknown_fields=True):
    """A record type with the name of one of the document's own schemas."""

    number: Annotated[int, Meta(ge=1)]
    price: Annotated[Decimal, Meta(examples=["12.50"])]


RESOURCES = [PARCEL, replace(PARCEL, model=Delivery, id="number", route="v1/deliveries", name="Note")]


def content(resources: Any = RESOURCES) -> dict[str, Any]:  # noqa: ANN401, resources
    decoded: dict[str, Any] = msgspec.json.decode(document(resources))
    return decoded


def is_valid(told: dict[str, Any], path: str, body: object) -> bool:
    """Tell whether the document accepts a body for the operation behind POST on this path."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]  # noqa: PLC0415, as below

    schema = told["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
    whole = {"allOf": [schema], "components": told["components"]}
    return bool(Draft202012Validator(whole).is_valid(body))


@pytest.mark.parametrize("resources", [RESOURCES, RESOURCES[:1]])
def test_the_document_is_valid_openapi(resources: list[Any]) -> None:
    from openapi_spec_validator import validate  # noqa: PLC0415, takes every process of pytest half a second

    validate(content(resources))


def test_every_operation_has_an_id_a_tag_a_summary_and_the_hosts_401_unless_it_is_open() -> None:
    told = content()
    operations = [each for methods in told["paths"].values() for each in methods.values()]

    assert len({each["operationId"] for each in operations}) == len(operations)
    assert {tag for each in operations for tag in each["tags"]} == {tag["name"] for tag in told["tags"]}
    assert all(each["summary"].endswith(".") for each in operations)
    open_ = {each["operationId"] for each in operations if "401" not in each["responses"]}
    assert open_ == {"getHealth", "headHealth", "getDocs", "getConsole"}


def test_the_members_examples_are_told_and_every_reference_leads_somewhere() -> None:
    told = content()
    schemas = told["components"]["schemas"]

    assert schemas["RecordParcel"]["properties"]["parcelId"]["examples"] == ["P-1"]
    assert schemas["RecordDelivery"]["properties"]["price"]["examples"] == ["12.50"]
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', msgspec.json.encode(told).decode()))
    assert names <= schemas.keys()


def test_a_record_type_of_which_no_sample_can_be_made_is_documented() -> None:
    members: Any = [("key", str), ("code", Annotated[str, Meta(pattern="^[A-Z]{2}$")])]
    model: Any = msgspec.defstruct("Coded", members, bases=(Record,), kw_only=True)

    told = content([replace(PARCEL, model=model, id="key", name="Coded")])

    assert told["components"]["schemas"]["Coded"]["properties"]["code"]["pattern"] == "^[A-Z]{2}$"


@pytest.mark.parametrize(
    ("resource", "body"),
    [
        (PARCEL, {"parcelId": "P-1", "weight": 1.5, "more": {"a": [None]}}),
        (PARCEL, {"parcelId": "P-1", "weight": "1.5", "note": None}),
        (PARCEL, {"parcelId": "", "weight": 1}),
        (PARCEL, {"parcelId": "..", "weight": 1}),
        (PARCEL, {"parcelId": "a\nb", "weight": 1}),
        (PARCEL, {"parcelId": "P-1", "weight": []}),
        (PARCEL, {"weight": 1}),
        (RESOURCES[1], {"number": 1, "price": "2"}),
        (RESOURCES[1], {"number": 0, "price": "2"}),
        (RESOURCES[1], {"number": 1, "price": "2", "other": 1}),
    ],
)
def test_the_document_and_the_intake_agree_on_what_a_record_is(resource: Any, body: object) -> None:  # noqa: ANN401, a resource
    try:
        read_record(resource, msgspec.json.encode(body))
        is_accepted = True
    except (InvalidRecordError, JsonError):
        is_accepted = False

    assert is_valid(content(), f"/{resource.route}", body) == is_accepted


def test_every_problem_type_is_documented_in_the_page_that_its_uri_names() -> None:
    page, console = get_page("docs"), get_page("console")
    schema = content()["components"]["schemas"]["Problem"]["properties"]["type"]

    assert set(schema["enum"]) == {TYPE_ROOT + slug for slug in TYPES}
    assert all(f'id="{slug}"'.encode() in page.body for slug in TYPES)
    for reply in (page, console):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        # No page loads anything from elsewhere.
        assert not re.search(rb'(?:src|href)="(?:https?:)?//', reply.body)


def test_two_resources_may_share_a_model() -> None:
    parcel = content([PARCEL, replace(PARCEL, name="Return", route="returns")])["components"]["schemas"]["Parcel"]

    assert parcel["description"] == "What the tests deliver. At most 64 KiB."


def test_a_document_of_resources_that_cannot_be_hashed_is_served() -> None:
    assert msgspec.json.decode(get_openapi(RESOURCES).body)["openapi"].startswith("3.1")
