from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal  # noqa: TC003, msgspec reads the annotations
from functools import partial
from operator import attrgetter
from typing import Annotated, Any

import pytest
from msgspec import Meta

from shared.errors import ResourceError
from shared.resource import ApiResponse, LookUp, Partner, Post, Put, Record, Verdict, check_resources
from tests.models import CARRIER, PARCEL, Parcel


class Bounded(Record):
    parcel_id: str
    price: Annotated[Decimal, Meta(gt=0)]


class Plain(Record, rename=None):
    own_id: str = ""


class Place:
    """Not a Record."""


class Foreign(Record):
    parcel_id: str
    place: Place | None = None


class Patterned(Record):
    parcel_id: Annotated[str, Meta(pattern="[a-z")]


async def lookup_later(response: ApiResponse) -> None:
    """Not a plain function."""


class Later:
    """Called, it is not a plain function either."""

    async def __call__(self, response: ApiResponse) -> None:
        """Do nothing."""


def problems(make: Any) -> str:  # noqa: ANN401, any call
    with pytest.raises(ResourceError) as caught:
        make()
    return str(caught.value)


def test_names_functions_after_the_model_unless_told_otherwise() -> None:
    renamed = replace(PARCEL, name="Express")

    assert (PARCEL.deliver, PARCEL.deliver_batch) == ("DeliverParcel", "DeliverParcelBatch")
    assert (renamed.post_one, renamed.post_batch) == ("PostExpress", "PostExpressBatch")
    assert PARCEL.id_member == "parcelId"


@pytest.mark.parametrize(
    ("id_", "encoded"),
    [("a/b", "a%2Fb"), ("ä ?#%&=", "%C3%A4%20%3F%23%25%26%3D"), ("P-1.x_y~", "P-1.x_y~"), ("a%2Fb", "a%252Fb")],
)
def test_puts_the_id_percent_encoded_into_path_and_query(id_: str, encoded: str) -> None:
    assert Put("/orders/{id}").target(id_) == f"/orders/{encoded}"
    assert LookUp("/find", {"q": "id:{id}", "x": "1"}).target(id_) == f"/find?q=id%3A{encoded}&x=1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "parcelId"}, "id='parcelId' is not a member of the model; its members are parcel_id"),
        ({"model": Plain, "id": "own_id"}, "id='own_id' has a default"),
        ({"model": dict}, "must be a class that inherits from Record"),
        ({"model": Bounded}, "annotations make no check: Can only set `gt` on a numeric type"),
        ({"route": "/parcels"}, "must be a path such as orders"),
        *(
            ({"route": route}, "is one of the app's own routes")
            for route in ("deliveries", "Health", "docs/x", "console", "openapi.json")
        ),
        ({"name": "parcel"}, "must begin with a capital"),
        ({"name": "Delivery"}, "the app has a function GetDelivery of its own: give the Resource another name="),
        ({"name": "OPENAPI"}, "give the Resource another name="),
        ({"idempotency_header": "Authorization"}, "is not the name of a header"),
        ({"idempotency_header": "a b"}, "is not the name of a header"),
        ({"look_up": None}, "look_up=None needs honours_idempotency_key=True"),
        ({"honours_idempotency_key": True, "idempotency_header": None}, "needs an idempotency_header"),
        (
            {"idempotency_header": "x-tenant", "partner": Partner("A", {"X-Tenant": "1"})},
            "is also one of the partner's",
        ),
        ({"model": "Parcel", "name": ""}, "Resource 'Parcel': the model must be a class"),
        ({"model": Foreign}, "Place'> is not supported: a class of your own must inherit from Record"),
        ({"model": Patterned}, "annotations make no check: unterminated character set"),
        ({"partner": "CARRIER"}, "partner='CARRIER' must be made with Partner(…)"),
        ({"post": "/parcels"}, "post='/parcels' must be made with Post(…)"),
        ({"look_up": "/parcels/{id}"}, "look_up='/parcels/{id}' must be made with LookUp(…)"),
        ({"judge": "judge"}, "judge= must be a plain function of one argument"),
        ({"judge": lambda: None}, "judge= must be a plain function of one argument"),
        ({"judge": lookup_later}, "judge= must be a plain function of one argument"),
        ({"judge": Later()}, "judge= must be a plain function of one argument"),
        ({"same": len}, "same= must be a plain function of two arguments"),
    ],
)
def test_refuses_a_resource_that_cannot_work_with_a_sentence(change: dict[str, Any], words: str) -> None:
    assert words in problems(lambda: replace(PARCEL, **{"name": "Parcel", **change}))


def test_names_every_problem_of_a_resource_at_once() -> None:
    told = problems(lambda: replace(PARCEL, id="nothing", route="health", idempotency_header="a b"))

    assert all(f"Resource Parcel: {word}" in told for word in ("id=", "route=", "idempotency_header="))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Partner("crm"), "must be in upper case"),
        (lambda: Partner("DELIVERY_API"), "have another meaning"),
        (lambda: Partner("A", {"Authorization": "x", "X-Ok": "ü"}), "X-Ok must be text of printable ASCII"),
        (lambda: Partner("A", {"X-Ok": 7}), "X-Ok must be text of printable ASCII"),  # type: ignore[dict-item]
        (lambda: Partner("A", ["X-Ok: 7"]), "headers must be a dict"),  # type: ignore[arg-type]
        (lambda: Verdict("accepted"), "must be one of created, exists"),  # type: ignore[arg-type]
        (lambda: Verdict("deferred", retry_after="5"), "retry_after='5' must be a finite number"),  # type: ignore[arg-type]
        (lambda: Verdict("deferred", retry_after=math.inf), "retry_after=inf must be a finite number"),
        (lambda: Post("parcels"), "must begin with /"),
        (lambda: Post("https://carrier.example/parcels"), "without host (a setting) and query (query=)"),
        (lambda: Post("/parcels", media_type="json"), "media_type='json' is not a media type"),
        (lambda: Post("//host/parcels"), "must begin with /"),
        (lambda: Put("/a b"), "percent-encoded"),
        (lambda: LookUp("/parcels"), "{id} must stand in the path or the query"),
        (lambda: LookUp("/parcels", {"id": "{number}"}), "'id' of the query"),
        (lambda: LookUp("/parcels", {"filter{id}": "id"}), "{id} must stand in the path or the query"),
        (lambda: LookUp("/parcels", "id={id}"), "query='id={id}' must be a dict"),  # type: ignore[arg-type]
        (lambda: LookUp("/parcels/{id}", items="items"), "items must be a JSON Pointer"),
    ],
)
def test_refuses_descriptions_that_cannot_work(make: Any, words: str) -> None:  # noqa: ANN401, any call
    assert words in problems(make)


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], "RESOURCES is empty"),
        (None, "RESOURCES must be a list of Resource(…)"),
        (PARCEL, "RESOURCES must be a list of Resource(…)"),
        ([Parcel], "RESOURCES must be a list of Resource(…)"),
        ([PARCEL, replace(PARCEL, name="Other", route="PARCELS")], "the route parcels is taken twice"),
        ([PARCEL, replace(PARCEL, route="other")], "is taken twice: give one Resource another name="),
        ([PARCEL, replace(PARCEL, name="ParcelBatch", route="other")], "the name deliverparcelbatch is taken twice"),
        ([PARCEL, replace(PARCEL, name="Other", route="parcels/batch")], "the route parcels/batch is taken twice"),
        (
            [PARCEL, replace(PARCEL, name="Other", route="other", partner=Partner(CARRIER.name, {"a": "b"}))],
            "is described twice",
        ),
    ],
)
def test_refuses_resources_that_cannot_live_in_one_app(others: Any, words: str) -> None:  # noqa: ANN401, any mistake
    assert words in problems(lambda: check_resources(others))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.api+json; charset=utf-8",
        "application/json;odata.metadata=minimal;IEEE754Compatible=true",
        'application/ld+json; profile="https://carrier.example/a b"',
    ],
)
def test_a_media_type_may_have_any_parameters(media_type: str) -> None:
    assert Post("/parcels", media_type=media_type).media_type == media_type


@pytest.mark.parametrize("media_type", ["application/json\r\nX-A: b", 'application/json; a="b', "application/jsön"])
def test_no_other_header_can_be_put_into_a_media_type(media_type: str) -> None:
    assert "is not a media type" in problems(lambda: Post("/parcels", media_type=media_type))


def test_whatever_can_be_called_may_stand_for_a_function() -> None:
    same, absent = partial(max, key=str), attrgetter("is_html")
    look_up = LookUp("/parcels/{id}", absent=absent)

    assert replace(PARCEL, same=same, judge=type, look_up=look_up).same is same  # type: ignore[arg-type]


def test_a_success_has_a_status_from_200_to_299() -> None:
    assert [ApiResponse(status, {}).is_success for status in (199, 200, 299, 300)] == [False, True, True, False]
    assert Parcel.__struct_fields__[0] == "parcel_id"
