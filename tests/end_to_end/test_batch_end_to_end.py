"""Batches through the app's HTTP interface."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from shared.durable.inputs import records_of
from tests.end_to_end.stage import PREFIX, RESOURCE, id_of, ids, needs_open_records, record, records, until

if TYPE_CHECKING:
    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

BATCH = f"{RESOURCE.route}/batch"
# One activity at a time, with five chunks.
ORDERS_OF_TEN = {"DELIVERY_CHUNK": "2", f"{PREFIX}MAX_CONNECTIONS": "2"}


@needs_open_records
async def test_delivers_a_large_batch_with_its_progress_and_each_record_once_in_the_history(stage: Stage) -> None:
    await stage.set_faults({"fault": "status", "route": "post", "status": 503, "probability": 0.02})
    links = await stage.start(records(400, note="to be found once"))
    seen: list[Json] = []

    async def look() -> Json | None:
        seen.append(await stage.show(links))
        return seen[-1] if seen[-1]["runtimeStatus"] == "Completed" else None

    delivery = await until(look)

    assert (delivery["state"], delivery["total"]) == ("delivered", 400)
    assert (delivery["created"] + delivery["exists"], delivery["rejections"]) == (400, [])
    assert await stage.stored() == ids(400)
    created = [shown["created"] for shown in seen if "created" in shown]
    assert created == sorted(created)
    whole = await stage.durable("GET", f"instances/{links['id']}?showHistory=true&showHistoryOutput=true")
    # JSON in a JSON string, as the Durable SDK sends it.
    events = whole.json()["historyEvents"]
    given = json.loads(json.loads(events[0]["Input"]))
    assert [json.loads(text) for text in records_of(given)] == records(400, note="to be found once")
    assert json.dumps(events).count(given["packed"]) == 1
    assert "to be found once" not in whole.text
    await stage.assert_no_secret()


async def test_shows_what_became_of_each_record(stage: Stage) -> None:
    await stage.deliver(record(1))
    await stage.set_faults({"fault": "status", "route": "post", "record": id_of(3), "status": 422})
    links = await stage.start(records(4))
    delivery = await stage.finished(links)

    shown = (await stage.show(links, "?records=true"))["records"]

    assert (delivery["state"], delivery["rejected"]) == ("partly", 1)
    first = "exists" if RESOURCE.look_up else shown[0]["state"]
    assert [each["state"] for each in shown] == [first, "created", "rejected", "created"]
    assert [each["recordId"] for each in shown] == [id_of(number) for number in range(1, 5)]
    assert (shown[2]["status"], "422" in shown[2]["reason"]) == (422, True)


async def test_takes_ndjson_under_each_of_its_names(stage: Stage) -> None:
    for number, media_type in enumerate(("application/x-ndjson", "application/ndjson", "application/jsonl")):
        lines = "\n".join(json.dumps(record(10 * number + line)) for line in (1, 2)) + "\n"
        accepted = await stage.ask(
            "POST", BATCH, content=lines, headers={"content-type": f"{media_type}; charset=utf-8"}
        )
        assert (await stage.finished(accepted.json()))["created"] == 2


async def test_names_each_bad_record_by_its_index_and_starts_nothing(stage: Stage) -> None:
    member = RESOURCE.id_member
    lines = "\n".join(map(json.dumps, records(3))) + '\n{"a": '
    key = uuid4().hex

    bad = await stage.send([*records(2), record(3) | {member: None}, 5, record(1)], key=key)
    broken = await stage.ask("POST", BATCH, content=lines, headers={"content-type": "application/x-ndjson"})

    assert (bad.status_code, [error["pointer"] for error in bad.json()["errors"]]) == (
        422,
        [f"#/2/{member}", "#/3", f"#/4/{member}"],
    )
    assert (broken.status_code, broken.json()["errors"][0]["pointer"]) == (400, "#/3")
    assert (await stage.ask("GET", "deliveries", params={"key": key})).json() == {"deliveries": []}
    assert (await stage.counters())["posts"] == 0


async def test_the_same_key_is_one_batch_also_after_it_has_finished(stage: Stage) -> None:
    key = uuid4().hex

    answers = await asyncio.gather(*(stage.start(records(20), key=key) for _ in range(20)))
    await stage.finished(answers[0])
    again = await stage.send(records(20), key=key, prefer="wait=10")
    other = await stage.send(records(21), key=key)
    single = await stage.send(record(1), key=key)

    assert {answer["id"] for answer in answers} == {again.json()["id"]}
    assert (again.status_code, again.json()["created"]) == (200, 20)
    assert (other.status_code, single.status_code) == (409, 409)
    assert await stage.stored() == ids(20)
    # Where nobody can be asked, a PUT may be repeated: it stores nothing twice.
    assert (await stage.counters())["posts"] == 20 or RESOURCE.look_up is None


async def test_rejected_records_are_reported_and_can_be_redelivered(stage: Stage) -> None:
    bad = {"fault": "status", "route": "post", "status": 422, "body": {"title": "Closed"}}
    await stage.set_faults(*({**bad, "record": id_of(number)} for number in range(1, 11)))
    links = await stage.start(records(30))
    delivery = await stage.finished(links)
    await stage.set_faults()

    answers = [await stage.ask("POST", links["redeliverPostUri"]) for _ in range(2)]
    again = await stage.finished(answers[0].json())
    nothing_left = await stage.ask("POST", answers[0].json()["redeliverPostUri"])

    assert (delivery["state"], delivery["created"], delivery["rejected"]) == ("partly", 20, 10)
    assert [rejection["index"] for rejection in delivery["rejections"]] == list(range(10))
    assert all(rejection["status"] == 422 and "Closed" in rejection["reason"] for rejection in delivery["rejections"])
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert (again["state"], again["total"], again["created"]) == ("delivered", 10, 10)
    assert (nothing_left.status_code, nothing_left.json()["type"].rpartition("#")[2]) == (409, "wrong-state")
    assert await stage.stored() == ids(30)


async def test_a_suspended_batch_goes_on_where_it_stood(start: StartStage) -> None:
    stage = start(environ=ORDERS_OF_TEN)
    hold: dict[str, Any] = {"fault": "hold", "route": "post", "gate": "late"}
    await stage.set_faults(*({**hold, "record": id_of(number)} for number in range(11, 21)))
    links = await stage.start(records(40))
    await stage.are_stored(10)

    suspended = await stage.ask("POST", links["suspendPostUri"])
    await stage.in_state(links, "suspended")
    await stage.control("POST", "gates/late/open")
    await stage.are_stored(20)
    shown = await stage.show(links)
    wrong = await stage.ask("POST", links["suspendPostUri"])
    resumed = await stage.ask("POST", links["resumePostUri"])
    delivery = await stage.finished(links)

    assert (suspended.status_code, resumed.status_code, wrong.status_code) == (202, 202, 409)
    assert (shown["state"], shown["runtimeStatus"]) == ("suspended", "Suspended")
    assert (delivery["state"], delivery["created"] + delivery["exists"]) == ("delivered", 40)
    assert (await stage.counters())["posts"] == 40


async def test_the_bodies_in_work_are_bounded(stage: Stage) -> None:
    """More of them than fit into the memory that is set aside are refused with 429; none is lost."""
    headers = {"content-type": "application/json", "content-encoding": "gzip"}
    # Each may unpack to a megabyte.
    bodies = [gzip.compress(json.dumps([record(number)]).encode()) for number in range(1, 61)]

    answers = await asyncio.gather(*(stage.ask("POST", BATCH, content=body, headers=headers) for body in bodies))
    accepted = [answer.json() for answer in answers if answer.status_code == 202]
    refused = [answer for answer in answers if answer.status_code != 202]
    await stage.all_finished(accepted)

    assert len(accepted) >= 24
    assert {(answer.status_code, answer.headers["retry-after"]) for answer in refused} <= {(429, "1")}
    assert sum((await stage.stored()).values()) == len(accepted)
