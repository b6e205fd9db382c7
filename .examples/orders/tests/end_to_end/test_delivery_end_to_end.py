from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from sandbox.sample import business
from tests.end_to_end.stage import finished, until

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Stage

ALL = 200


def _business(number: int) -> dict[str, object]:
    return business(f"business-{number}", note=f"Zürich {number}", rating=4.5)


async def test_delivers_200_concurrent_posts_once_each_with_one_token_request(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start()

    urls = await asyncio.gather(*(stage.post(http, _business(number)) for number in range(ALL)))
    statuses = await stage.all_finished(http, urls)

    assert {status["runtimeStatus"] for status in statuses} == {"Completed"}
    assert {status["output"]["outcome"] for status in statuses} == {"created"}
    assert await stage.stored(http) == {f"business-{number}": 1 for number in range(ALL)}
    counters = await stage.counters(http)
    assert (counters["token_requests"], counters["posts"], counters["without_token"]) == (1, ALL, 0)
    await stage.assert_no_secret(http)
    lines = {line.partition(" INFO    shared.delivery.activities: ")[2] for line in stage.host.lines}
    assert lines - {""} == {
        f"delivery attempt instance_id={status['instanceId']} external_id={status['output']['externalId']} attempt=1 "
        "outcome=created status=201"
        for status in statuses
    }


@pytest.mark.parametrize(("lost_activities", "attempts"), [("run-again", 1), ("fail", 2)])
async def test_stores_a_record_once_when_the_worker_is_killed_before_it_can_answer(
    start: StartStage, http: httpx.AsyncClient, lost_activities: str, attempts: int
) -> None:
    for idempotency in ("honour", "ignore"):
        stage = start(["--idempotency", idempotency], {"SANDBOX_LOST_ACTIVITIES": lost_activities})
        await stage.set_faults(http, {"fault": "hold", "route": "post", "stage": "after", "gate": "answer", "times": 1})
        url = await stage.post(http, _business(1))

        await until(partial(stage.are_stored, http, 1))
        killed = await stage.kill_worker(http)
        status = await finished(http, url)

        assert status["runtimeStatus"] == "Completed"
        assert (status["output"]["outcome"], status["output"]["attempts"]) == ("exists", attempts)
        assert await stage.stored(http) == {"business-1": 1}
        worker = (await http.get(f"{stage.host.url}/sandbox/worker")).json()
        assert worker["pid"] != killed
        assert worker["restarts"] == 1
        await stage.assert_no_secret(http)


async def test_no_delivery_fails_when_the_token_is_revoked_in_the_middle(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start()
    first = await asyncio.gather(*(stage.post(http, _business(number)) for number in range(ALL // 2)))

    await until(partial(stage.are_stored, http, 20))
    revoked = (await http.post(f"{stage.partner.url}/sandbox/revoke")).json()
    second = await asyncio.gather(*(stage.post(http, _business(number)) for number in range(ALL // 2, ALL)))
    statuses = await stage.all_finished(http, (*first, *second))

    assert revoked == {"revoked": 1}
    assert {status["runtimeStatus"] for status in statuses} == {"Completed"}
    assert {status["output"]["attempts"] for status in statuses} == {1}
    assert await stage.stored(http) == {f"business-{number}": 1 for number in range(ALL)}
    assert (await stage.counters(http))["token_requests"] == 2
    await stage.assert_no_secret(http)


async def test_deliveries_wait_for_a_token_endpoint_that_is_down_at_the_start(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start(partner=["--token-down", "10"])
    started = time.monotonic()

    urls = await asyncio.gather(*(stage.post(http, _business(number)) for number in range(20)))
    first = (await http.get(urls[0])).json()
    statuses = await stage.all_finished(http, urls)

    assert first["runtimeStatus"] in {"Pending", "Running"}
    assert {status["runtimeStatus"] for status in statuses} == {"Completed"}
    assert min(status["output"]["attempts"] for status in statuses) > 1
    assert await stage.stored(http) == {f"business-{number}": 1 for number in range(20)}
    counters = await stage.counters(http)
    assert counters["without_token"] == 0
    assert counters["unauthorised"] == 0
    assert counters["tokens_issued"] == 1
    # At most one token request per backoff step, not one per delivery and attempt.
    assert counters["token_requests"] <= 4 + (time.monotonic() - started)
    history = (await http.get(f"{urls[0]}&showHistory=true")).json()["historyEvents"]
    assert "TimerFired" in {event["EventType"] for event in history}
    await stage.assert_no_secret(http)


async def test_a_rejected_record_fails_its_instance_with_the_partners_words(
    stage: Stage, http: httpx.AsyncClient
) -> None:
    problem = {"type": "https://partner.example/full", "title": "Quota used up", "detail": "No more than 3 a day."}
    await stage.set_faults(http, {"fault": "status", "route": "post", "status": 422, "body": problem})

    status = await finished(http, await stage.post(http, _business(1)))

    assert status["runtimeStatus"] == "Failed"
    for words in ("business-1", "422", "Quota used up", "No more than 3 a day.", "https://partner.example/full"):
        assert words in status["output"]
    assert status["customStatus"]["outcome"] == "rejected"
    assert (await stage.counters(http))["posts"] == 1


async def test_waits_as_long_as_retry_after_asks(stage: Stage, http: httpx.AsyncClient) -> None:
    fault = {"fault": "status", "route": "post", "status": 429, "retry_after": 3, "times": 1}
    await stage.set_faults(http, fault)
    started = time.monotonic()

    status = await finished(http, await stage.post(http, _business(1)))

    assert status["runtimeStatus"] == "Completed"
    assert status["output"]["attempts"] >= 2
    assert time.monotonic() - started >= 3


async def test_the_same_idempotency_key_starts_one_delivery(stage: Stage, http: httpx.AsyncClient) -> None:
    urls = await asyncio.gather(*(stage.post(http, _business(1), key="order-1") for _ in range(50)))
    await finished(http, urls[0])
    again = await stage.post(http, _business(1), key="order-1")
    other = await http.post(
        f"{stage.host.url}/api/businesses", json=_business(2), headers={"Idempotency-Key": "order-1"}
    )

    assert len({*urls, again}) == 1
    assert other.status_code == 409
    assert other.headers["content-type"] == "application/problem+json"
    assert (await stage.counters(http))["posts"] == 1


async def test_shows_the_partners_record_and_problems(stage: Stage, http: httpx.AsyncClient) -> None:
    odd = business("a/b ?#%ä", note="Odd")
    await finished(http, await stage.post(http, odd))

    found = await http.get(f"{stage.host.url}/api/businesses/a%2Fb%20%3F%23%25%C3%A4")
    missing = await http.get(f"{stage.host.url}/api/businesses/none")
    bad = await http.post(f"{stage.host.url}/api/businesses", json=business(""))

    assert (found.status_code, found.json()["note"]) == (200, "Odd")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert (bad.status_code, bad.json()["errors"]) == (
        422,
        [{"pointer": "#/externalId", "detail": "must be str of length >= 1"}],
    )


async def test_waits_for_the_result_where_the_caller_prefers_it(stage: Stage, http: httpx.AsyncClient) -> None:
    response = await http.post(
        f"{stage.host.url}/api/businesses", json=_business(1), headers={"Prefer": "respond-async, wait=30"}
    )

    assert response.status_code == 200
    assert response.headers["preference-applied"] == "wait"
    assert response.json()["outcome"] == "created"


async def test_admin_routes_and_health_answer_while_tokens_are_in_use(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start(partner=["--latency", "0.2"])
    urls = await asyncio.gather(*(stage.post(http, _business(number)) for number in range(50)))

    status = await http.get(f"{stage.host.url}/admin/host/status")
    function = await http.get(f"{stage.host.url}/admin/functions/PostBusiness")
    health = await http.get(f"{stage.host.url}/api/health")
    deep = await http.get(f"{stage.host.url}/api/health?deep=true", follow_redirects=True)
    purge = await http.post(f"{stage.host.url}/admin/functions/PurgeHistory", json={"input": ""})

    assert (status.status_code, status.json()["state"]) == (200, "Running")
    assert (function.status_code, function.json()["name"]) == (200, "PostBusiness")
    assert (health.status_code, health.json()) == (200, {"status": "ok"})
    assert deep.status_code == 200
    assert purge.status_code == 202
    assert {status["runtimeStatus"] for status in await stage.all_finished(http, urls)} == {"Completed"}


async def test_says_which_settings_are_wrong_and_takes_nothing(start: StartStage, http: httpx.AsyncClient) -> None:
    stage = start(environ={"BUSINESS_API_CLIENT_SECRET": "", "DELIVERY_CHUNK": "many"})

    response = await http.post(f"{stage.host.url}/api/businesses", json=_business(1))
    health = await http.get(f"{stage.host.url}/api/health")

    assert response.status_code == 503
    details = " ".join(error["detail"] for error in response.json()["errors"])
    assert "BUSINESS_API_CLIENT_SECRET" in details
    assert "DELIVERY_CHUNK" in details
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})
    listed = await http.get(f"{stage.host.url}/runtime/webhooks/durabletask/instances")
    assert listed.json() == []
