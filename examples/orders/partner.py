"""Orders for a shop system, and their invoices for a second partner: a longer `shared/partner.py`.

The shop finds an order through a search that returns a list, and stores it in its own form: texts trimmed, times in
UTC, amounts as numbers. The bookkeeping system has no search, but honours idempotency keys.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Literal

from msgspec import Meta

from shared.resource import LookUp, Partner, Post, Put, Record, Resource


class Line(Record):
    """One line of an order."""

    sku: Annotated[str, Meta(min_length=1, max_length=40, examples=["CHAIR-7"])]
    quantity: Annotated[int, Meta(ge=1, le=10_000, examples=[4])]
    unit_price: Annotated[Decimal, Meta(description="In the order's currency.", examples=["79.90"])]


class Order(Record):
    """An order. Its lines are delivered with it."""

    order_id: Annotated[str, Meta(pattern=r"^[A-Z]{2}-[0-9]{4,10}$", examples=["SO-2001"])]
    ordered_at: Annotated[datetime, Meta(tz=True, examples=["2026-11-29T10:15:00+01:00"])]
    deliver_on: Annotated[date, Meta(examples=["2026-12-04"])]
    currency: Literal["EUR", "USD", "CHF"]
    customer: Annotated[str, Meta(min_length=1, max_length=200, examples=["Nordwind GmbH"])]
    lines: Annotated[list[Line], Meta(min_length=1, max_length=200)]
    remark: str | None = None

    def __post_init__(self) -> None:
        """Refuse an order that would be delivered before it was placed.

        Raises:
            ValueError: the dates contradict each other.
        """
        if self.deliver_on < self.ordered_at.date():
            raise ValueError("deliverOn must not be before orderedAt")


class Invoice(Record):
    """The invoice of an order."""

    number: Annotated[int, Meta(ge=1, examples=[70001])]
    order_id: Annotated[str, Meta(examples=["SO-2001"])]
    total: Annotated[Decimal, Meta(examples=["319.60"])]
    due_on: Annotated[date, Meta(examples=["2027-01-03"])]


SHOP = Partner("SHOP_API", headers={"Api-Version": "2026-01"})
BOOKS = Partner("BOOKS_API")

RESOURCES = [
    Resource(
        Order,
        route="orders",
        id="order_id",
        partner=SHOP,
        post=Post("/v1/orders"),
        look_up=LookUp("/v1/orders", query={"orderId": "{id}"}, items="/items"),
    ),
    Resource(
        Invoice,
        route="invoices",
        id="number",
        partner=BOOKS,
        post=Put("/invoices/{id}"),
        honours_idempotency_key=True,
    ),
]
