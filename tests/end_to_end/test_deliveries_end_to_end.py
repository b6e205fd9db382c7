"""The deliveries API, the host's keys, and what no answer may show."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.partner import RESOURCES
from tests.end_to_end.stage import RESOURCE, id_of, record, records, until

if TYPE_CHECKING:
    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

# The record waits for its second attempt for long enough to be seen, and suspended or cancelled.
LATER = {"fault": "status", "route": "post", "status": 423, "retry_after": 60}


async def listed(stage: Stage, **query: str) -> list[Json]:
    """Return the deliveries of all pages, and check that each page is newest first."""
    found: list[Json] = []
    path, params = "deliveries", query or None
    while path:
        page = (await stage.ask("GET", path, params=params)).json()
        created = [each["createdTime"] for each in page["deliveries"]]
        assert created == sorted(created, reverse=True)
        found += page["deliveries"]
        path, params = page.get("nextLink", ""), None
    return found


async def test_lists_any_number_of_deliveries_and_filters_them(stage: Stage) -> None:
    now = datetime.now(UTC)
    since = {"from": now.isoformat()}
    await stage.set_faults({"fault": "status", "route": "post", "record": id_of(7), "status": 422})
    deliveries = await stage.deliver_all(records(10))
    batch = await stage.deliver(records(8))

    everything = await listed(stage, top="4", **since)
    rejected = await listed(stage, state="rejected,partly,expired,failed", **since)
    none_before = await listed(stage, to=(now - timedelta(hours=1)).isoformat())
    of_type = await listed(stage, resource=RESOURCE.route, state="delivered", **since)

    assert {each["id"] for each in everything} == {each["id"] for each in (*deliveries, batch)}
    assert len(everything) == 11
    assert not any({"output", "customStatus", "records"} & each.keys() for each in everything)
    [single, part] = sorted(rejected, key=lambda each: "total" in each)
    assert (single["recordId"], single["state"], single["status"]) == (id_of(7), "rejected", 422)
    assert (part["id"], part["state"], part["total"], part["rejected"]) == (batch["id"], "partly", 8, 1)
    assert none_before == []
    assert {each["state"] for each in of_type} == {"delivered"}
    assert {each["resource"] for each in everything} == {RESOURCE.name}


async def test_a_waiting_delivery_is_suspended_resumed_and_cancelled(stage: Stage) -> None:
    await stage.set_faults(LATER)
    links = await stage.start(record(1))
    waiting = await stage.in_state(links, "waiting")

    early = await stage.ask("POST", links["redeliverPostUri"])
    resumed_too_soon = await stage.ask("POST", links["resumePostUri"])
    await stage.ask("POST", links["suspendPostUri"])
    suspended = await stage.in_state(links, "suspended")
    await stage.ask("POST", links["resumePostUri"])
    await stage.in_state(links, "waiting")
    cancelled = await stage.ask("POST", links["cancelPostUri"])
    ended = await stage.finished(links)
    history = (await stage.ask("GET", links["historyGetUri"])).json()

    assert datetime.fromisoformat(waiting["nextAttempt"]) > datetime.now(UTC) + timedelta(seconds=20)
    assert (waiting["attempts"], waiting["status"]) == (1, 423)
    assert "423" in waiting["reason"]
    assert (early.status_code, resumed_too_soon.status_code) == (409, 409)
    assert (suspended["state"], cancelled.status_code, ended["state"]) == ("suspended", 202, "cancelled")
    kinds = [event["type"] for event in history["events"]]
    assert [kind for kind in kinds if kind in {"started", "attempt", "wait", "suspended", "resumed", "cancelled"}] == [
        "started",
        "attempt",
        "wait",
        "suspended",
        "resumed",
        "cancelled",
    ]
    [attempt] = [event for event in history["events"] if event["type"] == "attempt"]
    assert (attempt["outcome"], attempt["status"]) == ("deferred", 423)
    assert attempt["seconds"] >= 0


async def test_nobody_gets_anything_without_the_function_key_and_durables_key_is_nowhere(start: StartStage) -> None:
    stage = start(options=["--keys"])
    links = await stage.start(record(1))
    answers = [await stage.ask("GET", links["statusQueryGetUri"])]
    await stage.finished(links)
    paths = ["deliveries", "openapi.json", "docs", "console", "health/deep", links["historyGetUri"], "nothing"]
    answers += [await stage.ask("GET", path) for path in paths]
    answers.append(await stage.ask("POST", links["redeliverPostUri"]))
    answers.append(await stage.send(record(1), prefer="wait=20"))
    key, stage.key = stage.key, ""
    guarded = [
        "deliveries",
        "openapi.json",
        "health/deep",
        links["statusQueryGetUri"],
        f"{RESOURCE.route}/x",
        "nothing",
    ]
    refused = [(await stage.ask("GET", path)).status_code for path in guarded]
    opened = [(await stage.ask("GET", path)).status_code for path in ("health", "docs", "console")]
    in_query = await stage.ask("GET", f"deliveries?code={key}&top=1")
    durable = await stage.durable("GET", "instances")

    assert refused == [401] * len(guarded)
    assert opened == [200, 200, 200]
    assert in_query.status_code == 200
    assert key not in in_query.text
    assert durable.status_code == 401
    assert {answer.status_code for answer in answers} <= {200, 202, 404, 409}
    log = "\n".join(line for line in stage.host.lines if not line.startswith("key: "))
    for text in (*(answer.text + str(answer.headers) for answer in answers), log):
        assert "/runtime/webhooks" not in text
        assert not re.search(r"[?&]code=|x-functions-key: ", text)
        assert key not in text


async def test_every_route_says_its_methods_and_others_get_405(stage: Stage) -> None:
    id_ = (await stage.start(record(1)))["id"]
    allowed = {
        "health": "GET, HEAD",
        "deliveries": "GET",
        f"deliveries/{id_}": "GET",
        f"deliveries/{id_}/history": "GET",
        f"deliveries/{id_}/cancel": "POST",
        RESOURCE.route: "POST",
        f"{RESOURCE.route}/batch": "GET, POST",
    }

    answers = {path: await stage.ask("DELETE", path) for path in allowed}
    unknown = await stage.ask("GET", "deliveries/a/b/c")
    head = await stage.ask("HEAD", "health")

    assert {path: (answer.status_code, answer.headers.get("allow")) for path, answer in answers.items()} == {
        path: (405, methods) for path, methods in allowed.items()
    }
    assert (unknown.status_code, unknown.json()["type"].rpartition("#")[2]) == (404, "no-route")
    assert (head.status_code, head.content) == (200, b"")


async def test_no_answer_is_cached_or_taken_for_another_type(stage: Stage) -> None:
    paths = ["health", "openapi.json", "console", "deliveries", "nothing", f"{RESOURCE.route}/unknown"]

    answers = [await stage.ask("GET", path) for path in paths] + [await stage.send(record(1)), await stage.send([])]

    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_deliveries_that_a_caller_left_out_of_sight_are_found_by_their_key(stage: Stage) -> None:
    names = [resource.name for resource in RESOURCES]
    keys = {name: f"found-by-{name}" for name in names}
    for resource in RESOURCES:
        await stage.start(record(1, resource), key=keys[resource.name], resource=resource)

    found = {name: (await listed(stage, key=key, resource=name)) for name, key in keys.items()}

    assert {name: [each["resource"] for each in deliveries] for name, deliveries in found.items()} == {
        name: [name] for name in names
    }

    async def all_ended() -> bool:
        return not await listed(stage, state="accepted,delivering,waiting")

    await until(all_ended)
    assert (await stage.stored())[id_of(1)] == 1
