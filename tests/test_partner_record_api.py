"""The partner's API for records without faults, over real sockets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from tests.partner_client import CREDENTIALS, running_partner


async def test_stores_a_record_and_finds_it_again() -> None:
    async with running_partner() as partner:
        await partner.token()
        created = await partner.post("b-1", address={"city": "Köln"}, amount=1.5)
        found = await partner.control.get(created.headers["location"], headers=partner.http.headers)

    record = {"id": "record-1", "parcelId": "b-1", "weight": 1.5, "address": {"city": "Köln"}, "amount": 1.5}
    assert (created.status_code, created.json()) == (201, record)
    assert created.headers["location"] == "/carrier-api/parcels/b-1"
    assert (found.status_code, found.json()) == (200, record)


@pytest.mark.parametrize("id_", ["a/b", "a b", "%2F", "ä€😀", "?x=1#y", "+", "a//b/"])
async def test_an_id_may_hold_any_characters(id_: str) -> None:
    async with running_partner() as partner:
        await partner.token()
        created = await partner.post(id_)
        found = await partner.get(id_)
        by_location = await partner.control.get(created.headers["location"], headers=partner.http.headers)
        await partner.post("another")

    assert created.status_code == 201
    assert (found.status_code, found.json()["parcelId"]) == (200, id_)
    assert by_location.json() == found.json()


@pytest.mark.parametrize("path", ["nobody", "%ff"])
async def test_answers_404_to_an_id_that_nobody_has(path: str) -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.post("a/b")
        response = await partner.http.get(f"/parcels/{path}")
        counters = await partner.counters()

    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == 404
    assert counters["lookups"] == 1
    assert counters["lookup_outcomes"] == {"404": 1}


async def test_stores_counts_and_reports_duplicates() -> None:
    async with running_partner() as partner:
        await partner.token()
        first = await partner.post("b-1", copy=1)
        second = await partner.post("b-1", copy=2, key="k-2")
        found = await partner.get("b-1")
        records, counters = await partner.records(), await partner.counters()

    assert (first.status_code, second.status_code) == (201, 201)
    assert found.json()["copy"] == 1
    common = {"partner": "CARRIER_API", "resource": "Parcel", "recordId": "b-1", "token": 1}
    text = '{"parcelId":"b-1","weight":1.5,"copy":%d}'
    assert records == {
        "count": 2,
        "ids": {"Parcel": {"b-1": 2}},
        "keys": ["k-2"],
        "records": [
            {**common, "id": "record-1", "idempotencyKey": None, "text": text % 1},
            {**common, "id": "record-2", "idempotencyKey": "k-2", "text": text % 2},
        ],
    }
    assert (counters["records_stored"], counters["duplicates"]) == (2, 1)


async def test_refuses_a_duplicate_where_external_ids_are_unique() -> None:
    async with running_partner(unique_ids=True) as partner:
        await partner.token()
        await partner.post("b-1")
        response = await partner.post("b-1", key="k")
        records, counters = await partner.records(), await partner.counters()

    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["type"] == "urn:sandbox:duplicate-id"
    assert (records["count"], records["keys"], counters["duplicates"]) == (1, [], 0)


@pytest.mark.parametrize(
    ("content", "status", "pointers"),
    [
        (b"{", 400, None),
        (b'{"parcelId": "a", "weight": NaN}', 400, None),
        (b'{"parcelId": "\xff", "weight": 1}', 400, None),
        (b"[]", 422, [""]),
        (b"{}", 422, ["/parcelId", "/weight"]),
        (b'{"parcelId": 1, "weight": null}', 422, ["/parcelId", "/weight"]),
    ],
)
async def test_refuses_what_is_no_record_and_names_every_rule_it_breaks(
    content: bytes, status: int, pointers: list[str] | None
) -> None:
    async with running_partner() as partner:
        await partner.token()
        response = await partner.http.post("/parcels", content=content, headers={"Content-Type": "application/json"})
        counters = await partner.counters()

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in response.json().get("errors", [])] == (pointers or [])
    assert (counters["post_outcomes"], counters["records_stored"]) == ({str(status): 1}, 0)


@pytest.mark.parametrize(("media_type", "status"), [("application/vnd.x+json; v=1", 201), ("text/plain", 415)])
async def test_takes_only_json(media_type: str, status: int) -> None:
    async with running_partner() as partner:
        await partner.token()
        response = await partner.http.post(
            "/parcels", content=b'{"parcelId": "a", "weight": 1}', headers={"Content-Type": media_type}
        )

    assert response.status_code == status


async def test_refuses_a_body_of_more_than_a_mebibyte() -> None:
    async with running_partner() as partner:
        await partner.token()
        too_large = await partner.post("b-2", pad="x" * 2_000_000)
        after = await partner.post("b-3")

    assert (too_large.status_code, after.status_code) == (413, 201)


@pytest.mark.parametrize("authorization", [None, "Bearer", "Basic eDp5", "x"])
async def test_asks_for_a_token_where_there_is_none(authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with running_partner() as partner:
        response = await partner.http.post("/parcels", json={"parcelId": "b", "weight": 1}, headers=headers)
        counters = await partner.counters()

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="sandbox"'
    assert (counters["unauthorised"], counters["without_token"], counters["records_stored"]) == (1, 1, 0)


@pytest.mark.parametrize("fate", ["unknown", "expired", "revoked"])
async def test_names_what_is_wrong_with_a_token(fate: str) -> None:
    async with running_partner(token_lifetime=60) as partner:
        await partner.token()
        if fate == "unknown":
            partner.http.headers["Authorization"] = "Bearer nonsense"
        elif fate == "expired":
            partner.clock.advance(60)
        else:
            await partner.control.post("/sandbox/revoke")
        response = await partner.get("b-1")
        counters = await partner.counters()

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == (
        f'Bearer realm="sandbox", error="invalid_token", error_description="The access token is {fate}"'
    )
    assert (counters["unauthorised"], counters["without_token"]) == (1, 0)
    assert counters["lookup_outcomes"] == {"401": 1}


async def test_a_token_is_good_until_its_last_moment_under_any_case_of_its_scheme() -> None:
    async with running_partner(token_lifetime=60) as partner:
        token = await partner.token()
        partner.clock.advance(59.9)
        response = await partner.http.get("/parcels/x", headers={"Authorization": f"bearer {token}"})

    assert response.status_code == 404


async def test_the_same_key_and_payload_gives_the_first_answer_again() -> None:
    async with running_partner() as partner:
        await partner.token()
        first = await partner.post("b-1", key="k-1", a=1, b=2)
        again = await partner.post("b-1", key="k-1", b=2, a=1)
        records, counters = await partner.records(), await partner.counters()

    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert (records["count"], records["keys"]) == (1, ["k-1"])
    assert (counters["posts"], counters["replays"], counters["duplicates"]) == (2, 1, 0)


async def test_a_replay_is_no_duplicate_where_external_ids_are_unique() -> None:
    async with running_partner(unique_ids=True) as partner:
        await partner.token()
        await partner.post("b-1", key="k-1")
        again = await partner.post("b-1", key="k-1")

    assert again.status_code == 201


@pytest.mark.parametrize("changed", [{"n": 2}, {"n": True}, {"n": 1.0}, {}])
async def test_refuses_another_payload_under_the_same_key(changed: dict[str, Any]) -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.post("b-1", key="k-1", n=1)
        response = await partner.post("b-1", key="k-1", **changed)
        records = await partner.records()

    assert (response.status_code, response.json()["type"]) == (422, "urn:sandbox:idempotency-key-reused")
    assert records["count"] == 1


async def test_refuses_a_key_whose_first_request_is_under_way() -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.set_faults({"fault": "hold", "route": "post", "stage": "after", "gate": "g", "times": 1})
        first = asyncio.create_task(partner.post("b-1", key="k-1"))
        await partner.waiting("g")
        meanwhile = await partner.post("b-1", key="k-1")
        await partner.control.post("/sandbox/gates/g/open")
        afterwards = (await first, await partner.post("b-1", key="k-1"))
        records = await partner.records()

    assert (meanwhile.status_code, meanwhile.json()["type"]) == (409, "urn:sandbox:idempotency-key-in-use")
    assert [response.status_code for response in afterwards] == [201, 201]
    assert records["count"] == 1


async def test_a_partner_that_ignores_keys_stores_every_copy() -> None:
    async with running_partner(idempotency="ignore") as partner:
        await partner.token()
        responses = [await partner.post("b-1", key="k-1") for _ in range(3)]
        records, counters = await partner.records(), await partner.counters()

    assert [response.status_code for response in responses] == [201] * 3
    assert (records["ids"], records["keys"]) == ({"Parcel": {"b-1": 3}}, [])
    assert (counters["replays"], counters["duplicates"]) == (0, 2)


async def test_a_refused_record_does_not_use_up_its_key() -> None:
    async with running_partner() as partner:
        await partner.token()
        refused = await partner.post("", key="k-1")
        created = await partner.post("b-1", key="k-1")

    assert (refused.status_code, created.status_code) == (422, 201)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256])
async def test_refuses_a_malformed_key(key: str) -> None:
    async with running_partner() as partner:
        await partner.token()
        response = await partner.post(key=key)

    assert response.status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/parcels/a/b", 404),
        ("POST", "/parcel", 404),
        ("PUT", "/parcels", 404),
        ("GET", "/auth/token", 404),
    ],
)
async def test_answers_problem_details_where_there_is_no_route(method: str, path: str, status: int) -> None:
    async with running_partner() as partner:
        response = await partner.http.request(method, path)
        counters = await partner.counters()

    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"] == f"There is no {method} /carrier-api{path}"
    assert counters["other_requests"] == 1


async def test_logs_each_request_without_its_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="sandbox.partner")
    async with running_partner() as partner:
        token = await partner.token()
        await partner.post("b 1")

    lines = [record.getMessage() for record in caplog.records if record.name.startswith("sandbox.partner")]
    assert lines == ["CARRIER_API token: issued", "CARRIER_API post 'b 1': 201"]
    assert token not in caplog.text
    assert CREDENTIALS[1] not in caplog.text
