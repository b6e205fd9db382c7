"""A `shared/partner.py` with two partners that have little in common; a test puts it into a copy of the app."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shared.resource import LookUp, Partner, Post, Record, Resource


class Parcel(Record):
    """What the carrier delivers."""

    parcel_id: Annotated[str, Meta(min_length=1, max_length=64, examples=["P-1"])]


class Receipt(Record, rename=None):
    """What the bookkeeping keeps; it finds nothing, and honours idempotency keys."""

    receipt_number: Annotated[int, Meta(ge=1)]


CARRIER, BOOKS = Partner("CARRIER_API"), Partner("BOOKS_API")
RESOURCES = [
    Resource(
        Parcel,
        route="parcels",
        id="parcel_id",
        partner=CARRIER,
        post=Post("/parcels"),
        look_up=LookUp("/parcels", query={"id": "{id}"}, items="/found"),
    ),
    Resource(
        Receipt,
        route="books/receipts",
        id="receipt_number",
        partner=BOOKS,
        post=Post("/receipts"),
        honours_idempotency_key=True,
        idempotency_header="X-Request-Id",
    ),
]
