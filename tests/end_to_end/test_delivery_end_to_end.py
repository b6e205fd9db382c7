"""Single deliveries through the app's HTTP interface, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.end_to_end.stage import PREFIX, RESOURCE, id_of, ids, needs_open_records, record, records, until

if TYPE_CHECKING:
    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

# More than a partner is sent at the same time: 64.
ALL = 70
needs_look_up = pytest.mark.skipif(RESOURCE.look_up is None, reason="the partner has no look-up")


async def test_delivers_70_concurrent_posts_once_each_with_one_token_request(stage: Stage) -> None:
    deliveries = await stage.deliver_all(records(ALL))

    assert {(each["state"], each["outcome"], each["attempts"]) for each in deliveries} == {("delivered", "created", 1)}
    assert await stage.stored() == ids(ALL)
    counters = await stage.counters()
    assert (counters["token_requests"], counters["records_stored"], counters["without_token"]) == (1, ALL, 0)
    await stage.assert_no_secret()
    for delivery in deliveries:
        # One that had to wait for its turn has a line of that before.
        [line] = [line for line in stage.host.lines if delivery["id"] in line and "outcome=created" in line]
        assert ": delivery attempt " in line
        assert f"record_id={delivery['recordId']}" in line
        assert "attempt=1 outcome=created status=201" in line


@needs_open_records
async def test_a_record_arrives_as_the_text_that_its_caller_sent(stage: Stage) -> None:
    members = json.dumps(record(1))[1:-1]
    text = (
        '{"last": 0.10, "big": 9007199254740993, "amount": 99999999999999.99, '
        + members
        + ', "e": 1E2, "ü": "\\u00fc"}'
    )

    accepted = await stage.ask(
        "POST", RESOURCE.route, content=text.encode(), headers={"content-type": "application/json"}
    )
    await stage.finished(accepted.json())

    [stored] = (await stage.control("GET", "records"))["records"]
    assert stored["text"] == text


async def test_stores_a_record_once_when_the_worker_is_killed_before_it_can_answer(stage: Stage) -> None:
    restarts = await stage.restarts()
    await stage.set_faults({"fault": "hold", "route": "post", "stage": "after", "gate": "answer", "times": 1})
    links = await stage.start(record(1))

    await stage.are_stored(1)
    await stage.kill_worker()
    delivery = await stage.finished(links)

    assert (delivery["state"], await stage.restarts()) == ("delivered", restarts + 1)
    assert await stage.stored() == ids(1)


async def test_no_delivery_fails_when_the_token_is_revoked_in_the_middle(stage: Stage) -> None:
    all_records = records(60)
    first = await stage.start_all(all_records[:30])

    await stage.are_stored(10)
    revoked = await stage.control("POST", "revoke")
    second = await stage.start_all(all_records[30:])
    deliveries = await stage.all_finished([*first, *second])

    assert revoked == {"revoked": 1}
    assert {(each["state"], each["attempts"]) for each in deliveries} == {("delivered", 1)}
    assert await stage.stored() == ids(60)
    assert (await stage.counters())["token_requests"] == 2


async def test_deliveries_wait_for_a_token_endpoint_that_is_down_and_deep_health_tells_of_it(start: StartStage) -> None:
    stage = start()
    await stage.set_faults({"fault": "status", "route": "token", "status": 503})
    started = time.monotonic()

    links = await stage.start_all(records(20))
    waiting = await stage.in_state(links[0], "waiting")
    lost = await deep_health(stage)
    await stage.set_faults()
    deliveries = await stage.all_finished(links)
    counters = await stage.counters()
    well = await deep_health(stage)
    await asyncio.to_thread(stage.partner.stop)
    down = await deep_health(stage)

    assert "nextAttempt" in waiting
    assert "token" in waiting["reason"]
    assert {each["state"] for each in deliveries} == {"delivered"}
    assert (counters["records_stored"], counters["duplicates"]) == (20, 0)
    assert (counters["without_token"], counters["unauthorised"], counters["tokens_issued"]) == (0, 0, 1)
    # At most one token request per backoff step, not one per delivery and attempt.
    assert counters["token_requests"] <= 4 + (time.monotonic() - started)
    events = (await stage.ask("GET", links[0]["historyGetUri"])).json()["events"]
    assert {"started", "attempt", "wait", "finished"} <= {event["type"] for event in events}
    assert (lost["status"], lost["token"]) == (503, "unavailable")
    assert "it answered 503" in lost["detail"]
    assert (well["status"], well["settings"], well["token"], well["partner"]) == (200, "ok", "ok", "ok")
    assert (down["status"], down["token"], down["partner"]) == (503, "ok", "unavailable")


async def deep_health(stage: Stage) -> Json:
    """Return what deep health says of the partner, with the status of the answer."""
    response = await stage.ask("GET", "health/deep")
    shown: Json = response.json()["partners"][RESOURCE.partner.name]
    return shown | {"status": response.status_code}


async def test_a_rejection_is_a_completed_delivery_with_the_partners_words_and_one_line_in_the_log(
    stage: Stage,
) -> None:
    problem = {"type": "https://partner.example/full", "title": "Quota used up", "detail": "No more than 3.", "code": 7}
    await stage.set_faults({"fault": "status", "route": "post", "status": 422, "body": problem})

    delivery = await stage.deliver(record(1))
    waited_for = await stage.send(record(2), prefer="wait=30")

    assert (delivery["state"], delivery["runtimeStatus"], delivery["status"]) == ("rejected", "Completed", 422)
    assert (delivery["recordId"], delivery["problem"]) == (id_of(1), problem)
    assert "Quota used up: No more than 3." in delivery["reason"]
    assert (waited_for.status_code, waited_for.json()["problem"]) == (422, problem)
    assert waited_for.json()["type"].endswith("#rejected")
    lines = [line for line in stage.host.lines if delivery["id"] in line and "delivery accepted" not in line]
    assert len(lines) == 1, lines
    assert (await stage.counters())["posts"] == 2


@needs_open_records
async def test_a_record_of_the_partner_with_other_content_is_a_rejection_that_names_the_members(stage: Stage) -> None:
    await stage.deliver(record(1, note="old"))

    delivery = await stage.deliver(record(1, note="new"))
    waited_for = await stage.send(record(1, note="new"), prefer="wait=30")
    again = await stage.deliver(record(1, note="old"))

    decides = RESOURCE.look_up and not RESOURCE.same  # a `same` of the user's may leave members out
    expected = ("rejected", ["note"]) if decides else (delivery["state"], delivery.get("differing"))
    assert (delivery["state"], delivery.get("differing")) == expected
    assert waited_for.json().get("differing") == delivery.get("differing")
    assert again["state"] == "delivered"
    assert await stage.stored() == ids(1)


async def test_waits_as_long_as_retry_after_asks(stage: Stage) -> None:
    await stage.set_faults({"fault": "status", "route": "post", "status": 429, "retry_after": 3, "times": 1})
    started = time.monotonic()

    delivery = await stage.deliver(record(1))

    assert (delivery["state"], delivery["attempts"]) == ("delivered", 2)
    assert time.monotonic() - started >= 3


async def test_the_same_idempotency_key_starts_one_delivery_for_20_racing_callers(stage: Stage) -> None:
    key = uuid4().hex
    answers = await asyncio.gather(*(stage.start(record(1), key=key) for _ in range(20)))
    await stage.finished(answers[0])
    again = await stage.send(record(1), key=key, prefer="wait=10")
    other = await stage.send(record(2), key=key)
    found = (await stage.ask("GET", "deliveries", params={"key": key})).json()["deliveries"]

    assert {answer["id"] for answer in answers} == {again.json()["id"]}
    assert (again.status_code, again.headers["preference-applied"]) == (200, "wait")
    assert (other.status_code, other.json()["type"].rpartition("#")[2]) == (409, "key-reused")
    assert [delivery["id"] for delivery in found] == [again.json()["id"]]
    assert await stage.stored() == ids(1)
    # Where nobody can be asked, a PUT may be repeated: it stores nothing twice.
    assert (await stage.counters())["posts"] == 1 or RESOURCE.look_up is None


async def test_waits_for_the_result_where_the_caller_prefers_it(stage: Stage) -> None:
    response = await stage.send(record(1), prefer="respond-async, wait=30")

    assert (response.status_code, response.headers["preference-applied"]) == (200, "wait")
    assert response.json()["outcome"] == "created"


@needs_look_up
@needs_open_records
async def test_shows_the_partners_record_and_problems(stage: Stage) -> None:
    await stage.deliver(record(1, note="shown"))

    found = await stage.ask("GET", f"{RESOURCE.route}/{quote(id_of(1), safe='')}")
    missing = await stage.ask("GET", f"{RESOURCE.route}/{quote(id_of(2), safe='')}")
    await stage.control("POST", "down")
    down = await stage.ask("GET", f"{RESOURCE.route}/{quote(id_of(1), safe='')}")

    assert (found.status_code, found.json()["note"]) == (200, "shown")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    assert (down.status_code, down.headers["retry-after"]) == (503, "1")


@needs_look_up
async def test_an_encoded_percent_is_not_decoded_twice(stage: Stage) -> None:
    """`a%252Fb` names the record `a%2Fb`, not `a/b`."""
    for path in ("a%252Fb", "a%2Fb"):
        await stage.ask("GET", f"{RESOURCE.route}/{path}")

    async def are_logged() -> bool:
        lines = [line.rpartition("get ")[2] for line in stage.partner.lines if " get '" in line]
        return [line.partition(":")[0] for line in lines[-2:]] == ["'a%2Fb'", "'a/b'"]

    await until(are_logged)


async def test_names_every_wrong_setting_at_once_at_the_start_and_in_the_answer(start: StartStage) -> None:
    stage = start(environ={f"{PREFIX}CLIENT_SECRET": "", f"{PREFIX}TIMEOUTS": "5", "DELIVERY_CHUNK": "many"})

    response = await stage.send(record(1))
    health = await stage.ask("GET", "health")
    deep = await stage.ask("GET", "health/deep")

    details = " ".join(error["detail"] for error in response.json()["errors"])
    logged = "\n".join(line for line in stage.host.lines if "app setting not usable" in line)
    for words in (f"{PREFIX}CLIENT_SECRET", f"{PREFIX}TIMEOUTS", f"did you mean {PREFIX}TIMEOUT?", "DELIVERY_CHUNK"):
        assert words in details
        assert words in logged
    assert (response.status_code, response.json()["type"].rpartition("#")[2]) == (503, "configuration")
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})
    assert deep.json()["partners"][RESOURCE.partner.name]["settings"] == "unavailable"
    assert (await stage.ask("GET", "deliveries")).json() == {"deliveries": []}


async def test_admin_routes_answer_and_run_a_timers_function_while_deliveries_go_on(stage: Stage) -> None:
    purges = stage.host.output.count("history purged")
    await stage.set_faults({"fault": "hold", "route": "post", "gate": "late"})
    links = await stage.start_all(records(10))

    status = await stage.http.get(f"{stage.host.url}/admin/host/status")
    function = await stage.http.get(f"{stage.host.url}/admin/functions/{RESOURCE.post_one}")
    purge = await stage.http.post(f"{stage.host.url}/admin/functions/PurgeHistory", json={"input": ""})

    async def has_run() -> bool:
        return stage.host.output.count("history purged") == purges + 1

    await until(has_run)
    await stage.control("POST", "gates/late/open")
    assert (status.status_code, status.json()["state"]) == (200, "Running")
    assert (function.status_code, function.json()["name"]) == (200, RESOURCE.post_one)
    assert purge.status_code == 202
    assert {each["state"] for each in await stage.all_finished(links)} == {"delivered"}
