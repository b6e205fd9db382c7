"""A record type and a partner for the engine's tests: nothing here is the user's."""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003, msgspec reads the annotations
from typing import Annotated

from msgspec import Meta

from shared.resource import LookUp, Partner, Post, Record, Resource


class Parcel(Record):
    """What the tests deliver."""

    parcel_id: Annotated[str, Meta(min_length=1, max_length=64, examples=["P-1"])]
    weight: Annotated[Decimal, Meta(examples=[1.5])]
    note: str | None = None


CARRIER = Partner("CARRIER_API")
PARCEL = Resource(
    Parcel,
    route="parcels",
    id="parcel_id",
    partner=CARRIER,
    post=Post("/parcels"),
    look_up=LookUp("/parcels/{id}"),
)
