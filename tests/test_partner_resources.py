"""The partners serve whatever record types describe: paths, queries, look-ups and partners of all kinds."""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003, msgspec reads the annotations
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.resources import app_settings, base_path, client_of, sandbox_settings
from shared.resource import LookUp, Partner, Post, Put, Record, Resource
from tests.models import PARCEL
from tests.partner_client import running_partner

if TYPE_CHECKING:
    import httpx

    from tests.partner_client import PartnerClient

SHOP, BOOKS = Partner("SHOP_API"), Partner("BOOKS_API")


class Order(Record):
    order_id: str
    amount: Decimal


class Invoice(Record, rename=None):
    id: int


ORDERS = Resource(
    Order,
    route="orders",
    id="order_id",
    partner=SHOP,
    post=Post("/v1/orders", query={"mode": "full"}),
    look_up=LookUp("/v1/orders", query={"filter": "id eq {id}", "top": "5"}, items="/data/items", id="/reference/key"),
)
INVOICES = Resource(
    Invoice,
    route="invoices",
    id="id",
    partner=BOOKS,
    post=Put("/invoices/{id}"),
    honours_idempotency_key=True,
    idempotency_header="X-Request-Id",
)


async def send(partner: PartnerClient, resource: Resource, id_: str, text: str, **headers: str) -> httpx.Response:
    """Send a record exactly as the app would."""
    headers["Content-Type"] = resource.post.media_type
    return await partner.http.request(resource.post.method, resource.post.target(id_), content=text, headers=headers)


async def look_up(partner: PartnerClient, resource: Resource, id_: str) -> httpx.Response:
    assert resource.look_up is not None
    return await partner.http.get(resource.look_up.target(id_))


async def test_a_list_look_up_has_the_records_with_the_id_of_its_query() -> None:
    async with running_partner(resources=[ORDERS]) as partner:
        await partner.token()
        for id_ in ("a/1", "b&2", "b&2"):
            await send(partner, ORDERS, id_, f'{{"orderId": "{id_}", "amount": 1}}')
        found = [(await look_up(partner, ORDERS, id_)).json() for id_ in ("a/1", "b&2", "nobody")]

    assert [[item["orderId"] for item in each["data"]["items"]] for each in found] == [["a/1"], ["b&2", "b&2"], []]
    assert found[0]["data"]["items"][0] == {
        "id": "record-1",
        "orderId": "a/1",
        "amount": 1,
        "reference": {"key": "a/1", "orderId": "a/1", "amount": 1},
    }


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/orders"),
        ("POST", "/v1/orders?mode=brief"),
        ("GET", "/v1/orders?filter=id%20eq%20x"),
        ("GET", "/v1/orders?filter=x&top=5"),
    ],
)
async def test_a_query_that_is_not_the_described_one_is_no_endpoint(method: str, target: str) -> None:
    async with running_partner(resources=[ORDERS]) as partner:
        await partner.token()
        response = await partner.http.request(method, target)

    assert response.status_code == 404


async def test_every_number_stays_as_it_was_sent() -> None:
    text = '{"orderId":"o","amount":99999999999999.99,"small":1e-7,"list":[0.10,12345678901234567890]}'
    async with running_partner(resources=[ORDERS]) as partner:
        await partner.token()
        created = await send(partner, ORDERS, "o", text)
        records = await partner.records()

    assert records["records"][0]["text"] == text
    assert '"amount":99999999999999.99,' in created.text
    assert "12345678901234567890]" in created.text


@pytest.mark.parametrize(
    ("members", "own"), [({}, "id"), ({"id": "mine"}, "serverId"), ({"id": 1, "serverId": 2}, "sandboxId")]
)
async def test_the_partners_own_id_takes_the_place_of_no_member(members: dict[str, Any], own: str) -> None:
    async with running_partner() as partner:
        await partner.token()
        body = (await partner.post("b-1", **members)).json()

    assert body == {own: "record-1", "parcelId": "b-1", "weight": 1.5, **members}


async def test_a_put_replaces_the_record_of_its_id() -> None:
    async with running_partner(resources=[INVOICES]) as partner:
        await partner.token()
        statuses = [
            (await send(partner, INVOICES, id_, text)).status_code
            for id_, text in (("7", '{"id": 7}'), ("7", '{"id": 7, "paid": true}'), ("8", '{"id": 7}'))
        ]
        records, counters = await partner.records(), await partner.counters()

    assert statuses == [201, 200, 422]
    assert [record["text"] for record in records["records"]] == ['{"id": 7, "paid": true}']
    assert (counters["records_stored"], counters["replaced"], counters["duplicates"]) == (1, 1, 0)


@pytest.mark.parametrize(("idempotency", "replays"), [("described", 1), ("honour", 1), ("ignore", 0)])
async def test_a_key_counts_in_the_header_that_is_described(idempotency: str, replays: int) -> None:
    async with running_partner(resources=[INVOICES], idempotency=idempotency) as partner:
        await partner.token()
        for _ in range(2):
            await send(partner, INVOICES, "7", '{"id": 7}', **{"X-Request-Id": "k-1"})
        await send(partner, INVOICES, "7", '{"id": 7}', **{"Idempotency-Key": "k-2"})
        counters, records = await partner.counters(), await partner.records()

    assert counters["replays"] == replays
    assert records["records"][0]["idempotencyKey"] == "k-1"


async def test_a_key_is_ignored_unless_the_resource_says_that_it_is_honoured() -> None:
    async with running_partner(idempotency="described") as partner:
        await partner.token()
        for _ in range(2):
            await partner.post("b-1", key="k-1")
        counters = await partner.counters()

    assert (counters["replays"], counters["duplicates"]) == (0, 1)


async def test_each_partner_has_its_own_path_client_tokens_and_counters() -> None:
    async with running_partner(resources=[PARCEL, ORDERS, INVOICES]) as partner:
        token = await partner.token()
        await partner.post("b-1")
        elsewhere = await partner.control.get(
            "/shop-api/v1/orders?filter=id%20eq%20x&top=5", headers=partner.http.headers
        )
        other_client = await partner.control.post(
            "/books-api/auth/token", data={"grant_type": "client_credentials"}, auth=client_of(SHOP)
        )
        by_name = {
            name: (await partner.control.get("/sandbox/counters", params={"partner": name})).json()
            for name in ("CARRIER_API", "SHOP_API", "BOOKS_API")
        }
        total = await partner.counters()
        unknown = await partner.control.get("/sandbox/counters?partner=CRM_API")

    assert token
    assert (elsewhere.status_code, other_client.status_code) == (401, 401)
    assert [counters["token_requests"] for counters in by_name.values()] == [1, 0, 1]
    assert [counters["unauthorised"] for counters in by_name.values()] == [0, 1, 0]
    assert (total["token_requests"], total["records_stored"]) == (2, 1)
    assert unknown.status_code == 400
    assert "CARRIER_API, SHOP_API, BOOKS_API" in unknown.json()["detail"]


def test_the_settings_lead_every_partner_to_the_sandbox() -> None:
    settings = sandbox_settings("http://127.0.0.1:1", [PARCEL, ORDERS])

    assert settings["CARRIER_API_URL"] == "http://127.0.0.1:1/carrier-api"
    assert settings["SHOP_API_TOKEN_URL"] == f"http://127.0.0.1:1{base_path(SHOP)}/auth/token"
    assert (settings["SHOP_API_CLIENT_ID"], settings["SHOP_API_CLIENT_SECRET"]) == client_of(SHOP)
    assert len(settings) == 8


def test_other_settings_of_the_machine_are_put_aside() -> None:
    machine = {"SHOP_API_SCOPE": "x", "DELIVERY_DEADLINE": "1", "TOKEN_STORE_URL": "rediss://x", "PATH": "/bin"}

    settings = app_settings("http://127.0.0.1:1", [ORDERS], machine)

    assert {name for name, value in settings.items() if not value} == {
        "SHOP_API_SCOPE",
        "DELIVERY_DEADLINE",
        "TOKEN_STORE_URL",
        "SHOP_API_ISSUER",
        "SHOP_API_TENANT_ID",
        "SHOP_API_MANAGED_IDENTITY",
    }
