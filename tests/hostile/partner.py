"""The record types of the hostile corpus: every legal shape of a partner, each with a name like its neighbour's."""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003, msgspec reads the annotations
from typing import Annotated

from msgspec import Meta

from shared.resource import LookUp, Partner, Post, Put, Record, Resource

LANES = 8
"""Partners of the same shape, so that what one answers slows down no other."""


class Parcel(Record):
    parcel_id: Annotated[str, Meta(min_length=1, max_length=256)]
    city: Annotated[str, Meta(min_length=1, max_length=256)]
    price: Decimal | None = None


class Entry(Record, rename=None):
    entry_no: int
    text: str


def _parcels(lane: int) -> Resource:
    return Resource(
        Parcel,
        name=f"Parcel{lane}",
        route=f"lanes/{lane}",
        id="parcel_id",
        partner=Partner(f"LANE_{lane}"),
        post=Post("/parcels"),
        look_up=LookUp("/parcels/{id}"),
    )


def _tokens(lane: int) -> Resource:
    return Resource(
        Parcel,
        name=f"Token{lane}",
        route=f"tokens/{lane}",
        id="parcel_id",
        partner=Partner(f"TOKEN_{lane}"),
        post=Put("/parcels/{id}"),
    )


RESOURCES = [
    Resource(
        Parcel,
        route="parcels",
        id="parcel_id",
        partner=Partner("LANE"),
        post=Post("/parcels"),
        look_up=LookUp("/parcels/{id}"),
    ),
    Resource(
        Parcel,
        name="Drawer",
        route="drawers",
        id="parcel_id",
        partner=Partner("LANE_PUT"),
        post=Put("/parcels/{id}", query={"mode": "whole"}),
    ),
    Resource(
        Parcel,
        name="Keyed",
        route="keyed/parcels",
        id="parcel_id",
        partner=Partner("LANE_KEYED"),
        post=Post("/parcels"),
        honours_idempotency_key=True,
        idempotency_header="X-Request-Id",
    ),
    Resource(
        Entry,
        route="v1/entries",
        id="entry_no",
        partner=Partner("LANE_LISTED"),
        post=Post("/entries", media_type="application/vnd.entry+json"),
        look_up=LookUp("/entries", query={"filter": "no eq {id}"}, items="/data/0/entries", id="/attributes/no"),
    ),
    *map(_parcels, range(LANES)),
    *map(_tokens, range(LANES)),
]
