from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sample import business
from tests.end_to_end.chaos import Rage, deliver_all

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Stage

# `make test-chaos` rages for 60 s over 1,000 records; `make test-long` is quicker, with the same schedule.
SECONDS = float(os.environ.get("CHAOS_SECONDS", "6"))
RECORDS = int(os.environ.get("CHAOS_RECORDS", "200"))
KILLS = int(os.environ.get("CHAOS_KILLS", "2"))
SEED = int(os.environ.get("CHAOS_SEED", "20261123"))
SETTINGS = {
    "DELIVERY_RETRY_FIRST": "0.2",
    "DELIVERY_RETRY_MAX": "1",
    "DELIVERY_CHUNK": "20",
    "BUSINESS_API_TIMEOUT": "5",
}
REASONS = {
    400: "Malformed as ever",
    409: "Taken by another",
    422: "Quota used up",
}

pytestmark = [pytest.mark.long, pytest.mark.timeout(SECONDS * 4 + 240)]


async def _survive(
    stage: Stage, http: httpx.AsyncClient, records: list[dict[str, str]], always: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Deliver all records while everything goes wrong; give the final statuses."""
    await stage.set_faults(http, *always)
    until = asyncio.get_running_loop().time() + SECONDS * 0.8
    statuses: list[dict[str, Any]]
    _, statuses = await asyncio.gather(
        Rage(SECONDS, KILLS, SEED, always)(stage, http),
        deliver_all(stage, http, records, batch=50, until=until),
    )
    return statuses


def _records() -> list[dict[str, str]]:
    return [business(f"record-{number}", note=f"Record {number}") for number in range(RECORDS)]


@pytest.mark.parametrize(("idempotency", "lost_activities"), [("honour", "run-again"), ("ignore", "fail")])
async def test_every_record_is_stored_and_reported_once_whatever_fails(
    start: StartStage, http: httpx.AsyncClient, idempotency: str, lost_activities: str
) -> None:
    settings = SETTINGS | {"SANDBOX_LOST_ACTIVITIES": lost_activities}
    stage = start(["--idempotency", idempotency, "--seed", str(SEED)], settings)
    records = _records()

    statuses = await _survive(stage, http, records, [])

    assert {status["runtimeStatus"] for status in statuses} == {"Completed"}
    outputs = [status["output"] for status in statuses]
    delivered = sum(output["created"] + output["exists"] if "total" in output else 1 for output in outputs)
    assert delivered == RECORDS
    assert {output["outcome"] for output in outputs if "total" not in output} <= {"created", "exists"}
    assert await stage.stored(http) == {record["externalId"]: 1 for record in records}
    counters = await stage.counters(http)
    assert counters["without_token"] == 0
    worker = (await http.get(f"{stage.host.url}/sandbox/worker")).json()
    assert worker["restarts"] == KILLS
    await stage.assert_no_secret(http)


async def test_exactly_the_rejected_records_are_reported_with_the_partners_reason(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    stage = start(["--idempotency", "ignore", "--seed", str(SEED)], SETTINGS)
    records = _records()
    for number, record in enumerate(records):
        if number % 20 == 7:
            record["externalId"] = f"bad-{(400, 409, 422)[number // 20 % 3]}-{number}"
    bad = {record["externalId"] for record in records if record["externalId"].startswith("bad-")}
    always = [
        {
            "fault": "status",
            "route": "post",
            "external_id": f"bad-{status}-*",
            "status": status,
            "body": {"title": words},
        }
        for status, words in REASONS.items()
    ]

    statuses = await _survive(stage, http, records, always)

    rejected = {}
    for status in statuses:
        if status["runtimeStatus"] == "Failed":
            rejected[status["customStatus"]["externalId"]] = status["output"]
        elif "total" in status["output"]:
            for rejection in status["output"]["rejections"]:
                rejected[rejection["externalId"]] = rejection["reason"]
    assert {external_id: reason for external_id, reason in rejected.items() if external_id not in bad} == {}
    assert rejected.keys() == bad
    for external_id, reason in rejected.items():
        assert REASONS[int(external_id.split("-")[1])] in reason
    good = {record["externalId"] for record in records} - bad
    assert await stage.stored(http) == dict.fromkeys(good, 1)
