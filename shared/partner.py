"""Your record types and your partners: the only file to edit.

docs/tutorial.md walks through it, examples/orders/partner.py is a longer one.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from shared.resource import LookUp, Partner, Post, Record, Resource


class Business(Record):
    """A business, as callers send it. Members that are not named here are passed on unchanged."""

    external_id: Annotated[
        str,
        Meta(min_length=1, max_length=128, description="The caller's id of the business.", examples=["crm-1001"]),
    ]
    name: Annotated[
        str, Meta(min_length=1, max_length=256, description="The name of the business.", examples=["Nordwind GmbH"])
    ]


PARTNER = Partner("BUSINESS_API")  # the prefix of its settings

RESOURCES = [
    Resource(
        Business,
        route="businesses",
        id="external_id",
        partner=PARTNER,
        post=Post("/business/"),
        look_up=LookUp("/business/by-external/{id}"),
    ),
]
