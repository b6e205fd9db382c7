"""What the platform gives up on goes on, and what was started past the intake ends with a reason."""

from __future__ import annotations

import asyncio
import base64
import json
import zlib
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from shared.durable.inputs import DeliveryOptions, batch_input, single_input, to_json
from shared.durable.starting import keyed_id
from shared.rules.retry import RetryPolicy
from tests.end_to_end.stage import RESOURCE, copy_app, id_of, ids, needs_open_records, record, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Json, Stage

OPTIONS = DeliveryOptions(RetryPolicy(60, 0.1, 1), settle=1)
TERMS = to_json(OPTIONS)
DEFECT = """

def retry_wait(_policy, _step, _seed, least=None):
    if least is None:
        raise RuntimeError("a defect")
    return least
"""


async def recover(stage: Stage) -> None:
    """Have the timer run, as the host does every five minutes."""
    url = f"{stage.host.url}/admin/functions/RecoverDeliveries"
    assert (await stage.http.post(url, json={"input": ""})).status_code == 202


async def start_past_the_intake(stage: Stage, input_: Json, id_: str | None = None) -> Json:
    """Start an orchestration with the Durable extension's own key; wait for its end."""
    orchestrator = RESOURCE.deliver_batch if "packed" in input_ else RESOURCE.deliver
    started = await stage.durable("POST", f"orchestrators/{orchestrator}/{id_ or uuid4().hex}", json=input_)
    assert started.status_code == 202, started.text
    return await stage.finished({"statusQueryGetUri": f"deliveries/{started.json()['id']}"})


def texts(*bodies: object) -> list[bytes]:
    return [json.dumps(body).encode() for body in bodies]


async def test_deliveries_go_on_where_a_host_was_killed_and_double_nothing(start: StartStage, tmp_path: Path) -> None:
    storage = "AzureFunctionsJobHost__extensions__durableTask__storageProvider__"
    settings = {
        f"{storage}workItemQueueVisibilityTimeout": "00:00:02",
        f"{storage}controlQueueVisibilityTimeout": "00:00:01",
        "DELIVERY_CHUNK": "5",
    }
    stage = start(environ=settings, store=tmp_path / "store")
    # One single record waits on a durable timer. The other's activity is at work, and so is the batch's.
    await stage.set_faults(
        {"fault": "status", "route": "post", "record": id_of(1), "status": 423, "retry_after": 3, "times": 1},
        {"fault": "latency", "route": "post", "seconds": 0.3},
    )
    batch = await stage.start([record(number) for number in range(3, 43)])
    waiting = await stage.start(record(1))
    await stage.in_state(waiting, "waiting")
    await stage.are_stored(8)
    posted = await stage.start(record(2), key="two")
    await stage.kill_host()
    repeated = await stage.start(record(2), key="two")

    ends = await asyncio.gather(*(stage.finished(links) for links in (batch, waiting, posted)))

    assert repeated["id"] == posted["id"]
    assert [each["state"] for each in ends] == ["delivered"] * 3
    assert await stage.stored() == ids(42)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_deliveries_whose_worker_died_in_an_orchestrator_go_on_and_double_nothing(start: StartStage) -> None:
    stage = start()

    async def all_have_ended() -> list[Json] | None:
        shown = await asyncio.gather(*(stage.ask("GET", link["statusQueryGetUri"]) for link in links))
        return [each.json() for each in shown] if {each.status_code for each in shown} == {200} else None

    links: list[Json] = []
    failed: list[Json] = []
    # A kill hits an orchestrator only by chance.
    for herd in range(10):
        links += await asyncio.gather(*(stage.start(record(60 * herd + number)) for number in range(1, 61)))
        await stage.are_stored(60 * herd + 5)
        await stage.kill_worker()
        failed = [each for each in await until(all_have_ended) if each["state"] == "failed"]
        if failed:
            break
    await recover(stage)

    async def all_are_delivered() -> bool:
        return {each["state"] for each in await all_have_ended() or ()} == {"delivered"}

    await until(all_are_delivered)
    assert failed, "no kill hit an orchestrator"
    assert {each["runtimeStatus"] for each in failed} == {"Failed"}
    assert await stage.stored() == ids(len(links))
    told = stage.host.output
    assert told.count("delivery rewound") + told.count("delivery started again") == len(failed)


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_delivery_that_fails_again_and_again_is_given_up_after_three_recoveries_and_can_be_redelivered(
    start: StartStage, tmp_path: Path
) -> None:
    # A release with a defect: a delivery fails that has to wait, and is not told how long.
    copy_app(tmp_path)
    with (tmp_path / "shared" / "rules" / "retry.py").open("a") as module:
        module.write(DEFECT)
    stage = start(app=tmp_path)
    await stage.set_faults({"fault": "status", "route": "post", "status": 423})
    links = await stage.start(record(1))
    await stage.in_state(links, "failed")

    async def is_given_up() -> bool:
        await recover(stage)
        return "delivery failed for good" in stage.host.output

    await until(is_given_up)
    for _ in range(3):
        await recover(stage)
    shown = await stage.show(links)
    await stage.set_faults()
    redelivered = await stage.ask("POST", links["redeliverPostUri"])
    again = await stage.finished(redelivered.json(), patience=150)

    assert (shown["state"], shown["runtimeStatus"]) == ("failed", "Failed")
    assert "a defect" in shown["reason"]
    assert stage.host.output.count("delivery rewound") == 3
    assert stage.host.output.count("delivery failed for good") == 1
    assert (again["state"], await stage.stored()) == ("delivered", ids(1))


@pytest.mark.long
@pytest.mark.timeout(240)
async def test_a_failed_delivery_goes_on_when_its_caller_asks_again(start: StartStage) -> None:
    stage = start()
    broken = single_input(texts(record(1))[0], OPTIONS) | {"terms": {"retry": {"first": -1}}}
    instance_id = keyed_id(RESOURCE, "broken")
    failed = await start_past_the_intake(stage, broken, instance_id)

    again = await stage.finished(await stage.start(record(1), key="broken"), patience=150)

    assert (failed["state"], again["id"], again["state"]) == ("failed", instance_id, "delivered")
    assert await stage.stored() == ids(1)


@pytest.mark.parametrize(
    ("input_", "words"),
    [
        ({"record": "{}", "terms": {"retry": {"first": -1}}}, "at `$.terms.retry.first`"),
        ({"record": 5, "terms": TERMS}, "Expected `str`, got `int` - at `$.record`"),
        ({"record": "{}"}, "missing required field `terms`"),
        ({"total": 2**31, "digest": "d", "packed": "", "terms": TERMS}, "at `$.total`"),
    ],
    ids=["terms", "record", "missing", "total"],
)
async def test_what_the_intake_would_never_start_fails_with_a_reason(stage: Stage, input_: Any, words: str) -> None:  # noqa: ANN401, it is to be wrong
    delivery = await start_past_the_intake(stage, input_)

    assert delivery["state"] == "failed"
    assert words in delivery["reason"]


@needs_open_records
async def test_a_record_that_the_intake_would_refuse_is_rejected_and_the_partner_not_asked(stage: Stage) -> None:
    large, odd = record(1, note="y" * 99_999), record(2, x={"__class__": "Path", "__module__": "os", "__data__": "/"})
    inputs = [single_input(text, OPTIONS) for text in (*texts(large, [5]), b"{")]

    deliveries = await asyncio.gather(*(start_past_the_intake(stage, input_) for input_ in inputs))
    batch = await start_past_the_intake(stage, batch_input(texts(large, odd, record(3), 5), OPTIONS))

    assert {delivery["state"] for delivery in deliveries} == {"rejected"}
    assert [rejection["index"] for rejection in batch["rejections"]] == [0, 3]
    assert await stage.stored() == {id_of(2): 1, id_of(3): 1}


async def test_records_that_would_fill_the_memory_are_rejected_and_never_unpacked(stage: Stage) -> None:
    packed = base64.b64encode(zlib.compress(b" " * 2**24 + b"[]")).decode()
    bomb = {"total": 2, "digest": "d", "packed": packed, "terms": TERMS}

    delivery = await start_past_the_intake(stage, bomb)

    assert (delivery["state"], delivery["rejected"]) == ("partly", 2)
    assert "more than 2097152 bytes" in delivery["rejections"][0]["reason"]
