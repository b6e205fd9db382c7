"""Orchestrations that somebody starts with the key that is in every status link: the intake has not seen them."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sample import business
from shared.delivery.batch_input import batch_input
from tests.end_to_end.stage import finished

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.stage import Stage

# No other test has this record, and none of these lets it be stored.
GOOD = business("past-the-intake")
BOMB = base64.b64encode(zlib.compress(b" " * 2**26 + b"[]", 9)).decode()


async def started(stage: Stage, http: httpx.AsyncClient, orchestrator: str, input_: object) -> dict[str, Any]:
    url = f"{stage.host.url}/runtime/webhooks/durabletask/orchestrators/{orchestrator}"
    response = await http.post(url, content=json.dumps(input_), headers={"content-type": "application/json"})
    assert response.status_code == 202, response.text
    return await finished(http, response.json()["statusQueryGetUri"])


@pytest.mark.parametrize(
    ("orchestrator", "input_", "words"),
    [
        ("DeliverBusiness", {"business": GOOD | {"x": "y" * 200_000}}, "bytes, more than the 65536 allowed"),
        ("DeliverBusiness", {"business": GOOD | {"x": 10**30}}, "has a whole number of more than 64 bits"),
        ("DeliverBusiness", {"business": [GOOD]}, "must be a JSON object"),
        ("DeliverBusiness", {"business": GOOD, "retry": {"first": -1}}, "its retry.first is not a number of seconds"),
        ("DeliverBatch", {"total": 0x7FFFFFFF, "digest": "d", "packed": ""}, "the number of its records"),
        ("DeliverBatch", batch_input([GOOD]) | {"parallel": -1}, "its parallel is not a whole number"),
    ],
    ids=["size", "number", "list", "retry", "total", "parallel"],
)
async def test_what_the_intake_would_not_start_fails_with_a_reason(
    shared_stage: Stage, http: httpx.AsyncClient, orchestrator: str, input_: object, words: str
) -> None:
    status = await started(shared_stage, http, orchestrator, input_)

    assert (status["runtimeStatus"], words in status["output"]) == ("Failed", True), status
    assert GOOD["externalId"] not in await shared_stage.stored(http)


async def test_of_a_batch_each_record_that_the_intake_would_not_take_is_rejected(
    shared_stage: Stage, http: httpx.AsyncClient
) -> None:
    marked = {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}
    records = [
        GOOD | {"externalId": "past-taken"},
        GOOD | {"externalId": "past-large", "x": "y" * 99_999},
        GOOD | {"externalId": "past-class", "x": marked},
        5,
    ]

    status = await started(shared_stage, http, "DeliverBatch", batch_input(records))  # type: ignore[arg-type]  # 5 is no record
    assert status["runtimeStatus"] == "Completed", status
    assert [rejection["index"] for rejection in status["output"]["rejections"]] == [1, 2, 3]
    stored = await shared_stage.stored(http)
    assert [stored.get(external_id, 0) for external_id in ("past-taken", "past-large", "past-class")] == [1, 0, 0]


async def test_records_that_would_fill_the_memory_are_rejected_and_never_unpacked(
    shared_stage: Stage, http: httpx.AsyncClient
) -> None:
    bomb = {"total": 2, "digest": "d", "packed": BOMB}

    status = await started(shared_stage, http, "DeliverBatch", bomb)
    assert status["runtimeStatus"] == "Completed", status
    reasons = {rejection["reason"] for rejection in status["output"]["rejections"]}
    assert reasons == {"The records of the batch are more than 4194304 bytes, or broken off"}
    assert status["output"]["rejected"] == 2


async def test_a_delivery_that_was_broken_off_goes_on_when_its_caller_asks_again(
    shared_stage: Stage, http: httpx.AsyncClient
) -> None:
    record = business("broken-off")
    instance_id = "key-" + hashlib.sha256(b"broken-off").hexdigest()[:40]
    # What ends with the worker process in an orchestrator's step has failed like what the orchestrator cannot begin.
    broken = {"business": record, "retry": {"first": -1}}
    status = await started(shared_stage, http, f"DeliverBusiness/{instance_id}", broken)
    assert (status["instanceId"], status["runtimeStatus"]) == (instance_id, "Failed")

    url = f"{shared_stage.host.url}/api/businesses"
    headers = {"Idempotency-Key": "broken-off", "Prefer": "wait=60"}
    answers = [await http.post(url, json=record, headers=headers, timeout=90) for _ in range(2)]

    expected = {
        "instanceId": instance_id,
        "outcome": "created",
        "externalId": "broken-off",
        "status": 201,
        "attempts": 1,
    }
    assert [answer.json() for answer in answers] == [expected, expected]
    assert (await shared_stage.stored(http))["broken-off"] == 1
