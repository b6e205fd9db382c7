from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING, Any

from sandbox.sample import business
from shared.delivery.batch_input import records_of
from tests.end_to_end.stage import finished, until

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Stage

# One activity at a time, with five chunks.
ORDERS_OF_TEN = {"DELIVERY_CHUNK": "2", "BUSINESS_API_MAX_CONNECTIONS": "2"}
MANAGEMENT = "/runtime/webhooks/durabletask/instances"


def _records(count: int) -> list[dict[str, Any]]:
    return [business(f"record-{number}", note=f"Record {number}") for number in range(count)]


async def _post(stage: Stage, http: httpx.AsyncClient, records: object, **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    response = await http.post(f"{stage.host.url}/api/businesses/batch", json=records, headers=named)
    assert response.status_code == 202, response.text
    links: dict[str, Any] = response.json()
    return links


async def test_delivers_a_full_batch_with_its_progress_and_each_payload_once_in_the_history(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    fault = {"fault": "status", "route": "post", "status": 503, "probability": 0.02}
    await stage.set_faults(http, fault)
    links = await _post(stage, http, _records(1_000))
    seen: list[dict[str, Any]] = []

    async def look() -> dict[str, Any] | None:
        status: dict[str, Any] = (await http.get(links["statusQueryGetUri"])).json()
        if status["customStatus"]:
            seen.append(status["customStatus"])
        return status if status["runtimeStatus"] == "Completed" else None

    status = await until(look)

    output = status["output"]
    assert (output["total"], output["created"] + output["exists"], output["rejections"]) == (1_000, 1_000, [])
    assert await stage.stored(http) == {f"record-{number}": 1 for number in range(1_000)}
    assert all(len(json.dumps(progress)) < 16_000 for progress in seen)
    assert {"total", "created", "exists", "rejected", "deferred"} <= seen[0].keys()
    assert [progress["created"] for progress in seen] == sorted(progress["created"] for progress in seen)
    history = await http.get(f"{links['statusQueryGetUri']}&showHistory=true&showHistoryOutput=true")
    events = history.json()["historyEvents"]
    given = json.loads(events[0]["Input"])
    # Each payload stands once in the history: packed, in the input.
    assert records_of(given) == _records(1_000)
    assert json.dumps(events).count(given["packed"]) == 1
    assert "Record 500" not in json.dumps(events)
    await stage.assert_no_secret(http)


async def test_takes_ndjson_and_names_each_bad_record_by_its_index(stage: Stage, http: httpx.AsyncClient) -> None:
    before = len((await http.get(f"{stage.host.url}{MANAGEMENT}?top=10000")).json())
    lines = "\n".join(json.dumps(record) for record in _records(3)) + "\n"
    url, ndjson = f"{stage.host.url}/api/businesses/batch", {"Content-Type": "application/x-ndjson"}

    good = await http.post(url, content=lines, headers=ndjson)
    bad = await http.post(url, json=[*_records(2), business(""), 5, business("record-0", note="x")])
    broken = await http.post(url, content=lines + '{"externalId": "x"', headers=ndjson)
    await finished(http, good.json()["statusQueryGetUri"])

    assert good.status_code == 202
    assert bad.status_code == 422
    assert [error["pointer"] for error in bad.json()["errors"]] == [
        "#/2/externalId",
        "#/3",
        "#/4/externalId",
    ]
    assert (broken.status_code, broken.json()["errors"][0]["pointer"]) == (400, "#/3")
    assert len((await http.get(f"{stage.host.url}{MANAGEMENT}?top=10000")).json()) == before + 1
    assert (await stage.counters(http))["records_stored"] == 3


async def test_the_same_key_is_one_batch_also_after_it_has_finished(stage: Stage, http: httpx.AsyncClient) -> None:
    url, key = f"{stage.host.url}/api/businesses/batch", {"Idempotency-Key": "night-1"}

    answers = await asyncio.gather(*(http.post(url, json=_records(20), headers=key) for _ in range(50)))
    await finished(http, answers[0].json()["statusQueryGetUri"])
    again = await http.post(url, json=_records(20), headers={**key, "Prefer": "wait=10"})
    other = await http.post(url, json=_records(21), headers=key)
    single = await http.post(f"{stage.host.url}/api/businesses", json=_records(1)[0], headers=key)

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (again.status_code, again.json()["created"]) == (200, 20)
    assert (other.status_code, single.status_code) == (409, 409)
    assert (await stage.counters(http))["posts"] == 20


async def test_rejected_records_are_reported_and_can_be_redelivered(stage: Stage, http: httpx.AsyncClient) -> None:
    fault = {"fault": "status", "route": "post", "external_id": "record-?", "status": 422, "body": {"title": "Closed"}}
    await stage.set_faults(http, fault)
    links = await _post(stage, http, _records(30))
    output = (await finished(http, links["statusQueryGetUri"]))["output"]
    await stage.set_faults(http)

    redeliver = f"{stage.host.url}/api/batches/{links['id']}/redeliver"
    answers = [await http.post(redeliver) for _ in range(2)]
    again = (await finished(http, answers[0].json()["statusQueryGetUri"]))["output"]
    nothing_left = await http.post(f"{stage.host.url}/api/batches/{answers[0].json()['id']}/redeliver")
    unknown = await http.post(f"{stage.host.url}/api/batches/none/redeliver")

    assert (output["created"], output["rejected"]) == (20, 10)
    assert [rejection["index"] for rejection in output["rejections"]] == list(range(10))
    assert all("422" in rejection["reason"] and "Closed" in rejection["reason"] for rejection in output["rejections"])
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert (again["total"], again["created"]) == (10, 10)
    assert (nothing_left.status_code, unknown.status_code) == (409, 404)
    assert await stage.stored(http) == {f"record-{number}": 1 for number in range(30)}


async def test_a_terminated_batch_tells_what_was_posted_and_the_rest_can_be_redelivered(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start(environ=ORDERS_OF_TEN)
    await stage.set_faults(http, {"fault": "hold", "route": "post", "gate": "late", "external_id": "record-3?"})
    links = await _post(stage, http, _records(60))
    await until(partial(stage.are_stored, http, 30))

    async def fourth_order_is_told() -> bool:
        status = (await http.get(links["statusQueryGetUri"])).json()["customStatus"]
        return bool(status["created"] == 30 and status["posting"] == "30-39")

    await until(fourth_order_is_told)
    await http.post(links["terminatePostUri"].replace("{text}", "enough"))
    await http.post(f"{stage.partner.url}/sandbox/gates/late/open")
    status = await finished(http, links["statusQueryGetUri"])
    again = await http.post(f"{stage.host.url}/api/batches/{links['id']}/redeliver")
    output = (await finished(http, again.json()["statusQueryGetUri"]))["output"]

    assert (status["runtimeStatus"], status["output"]) == ("Terminated", "enough")
    assert status["customStatus"]["delivered"] == "0-29"
    assert status["customStatus"]["posting"] == "30-39"
    assert (output["total"], output["created"] + output["exists"]) == (30, 30)
    assert await stage.stored(http) == {f"record-{number}": 1 for number in range(60)}


async def test_a_suspended_batch_goes_on_where_it_stood(start: StartStage, http: httpx.AsyncClient) -> None:
    stage = start(environ=ORDERS_OF_TEN)
    await stage.set_faults(http, {"fault": "hold", "route": "post", "gate": "late", "external_id": "record-1?"})
    links = await _post(stage, http, _records(40))
    await until(partial(stage.are_stored, http, 10))

    await http.post(links["suspendPostUri"].replace("{text}", "pause"))

    async def is_suspended() -> bool:
        return bool((await http.get(links["statusQueryGetUri"])).json()["runtimeStatus"] == "Suspended")

    await until(is_suspended)
    await http.post(f"{stage.partner.url}/sandbox/gates/late/open")
    await until(partial(stage.are_stored, http, 20))
    suspended = (await http.get(links["statusQueryGetUri"])).json()
    await http.post(links["resumePostUri"].replace("{text}", "on"))
    status = await finished(http, links["statusQueryGetUri"])

    assert suspended["runtimeStatus"] == "Suspended"
    assert suspended["customStatus"]["posting"] == "10-19"
    assert (status["runtimeStatus"], status["output"]["created"]) == ("Completed", 40)
    assert (await stage.counters(http))["posts"] == 40


async def test_a_partner_that_is_down_is_asked_by_few(start: StartStage, http: httpx.AsyncClient) -> None:
    stage = start(environ={"DELIVERY_RETRY_MAX": "1"})
    await stage.set_faults(http, {"fault": "status", "route": "api", "status": 503, "times": 6})

    status = await finished(http, (await _post(stage, http, _records(500)))["statusQueryGetUri"])

    counters = await stage.counters(http)
    assert status["output"]["created"] == 500
    # The first few find it down, then one probe at a time: 6 refusals, not 500.
    assert counters["lookups"] - counters["lookup_outcomes"]["404"] == 6
    assert counters["posts"] == 500


async def test_old_finished_instances_are_purged_by_the_timers_function(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start(environ={"DELIVERY_HISTORY_DAYS": "0.00001"})
    urls = await asyncio.gather(*(stage.post(http, record) for record in _records(150)))
    await stage.all_finished(http, urls)

    async def are_gone() -> bool:
        await http.post(f"{stage.host.url}/admin/functions/PurgeHistory", json={"input": ""})
        return bool((await http.get(f"{stage.host.url}{MANAGEMENT}")).json() == [])

    await until(are_gone)

    assert (await http.get(urls[0])).status_code == 404
    assert (await stage.counters(http))["records_stored"] == 150
