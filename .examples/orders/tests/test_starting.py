from __future__ import annotations

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import aiohttp
import pytest

from shared.delivery import starting
from shared.delivery.batch_input import batch_input
from shared.delivery.durable_client import FINISHED
from shared.delivery.problem import ProblemError
from shared.delivery.settling import LOOK
from tests.fakes.durable_client import ALIVE, EXISTS, NOON, DurableHost, Instance
from tests.test_durable_client import INPUT, UNREACHABLE, detail, refusal

start_once = partial(starting.start_once, call_timeout=30.0)


async def test_an_orchestration_is_started_with_its_input() -> None:
    host = DurableHost()

    await start_once(host.client(), "DeliverBusiness", "key-1", INPUT)
    assert host.instances["key-1"].name == "DeliverBusiness"
    assert json.loads(host.instances["key-1"].input) == INPUT


async def test_a_new_orchestration_is_started_under_an_id_of_its_own_without_a_look() -> None:
    host = DurableHost()

    ids = [await start_once(host.client(), "DeliverBusiness", None, INPUT) for _ in range(3)]
    assert list(host.instances) == ids
    assert len(set(ids)) == 3
    assert all(uuid.UUID(id_).hex == id_ for id_ in ids)
    assert [call.partition(" ")[0] for call in host.calls] == ["POST"] * 3


async def test_a_new_start_whose_answer_is_lost_has_happened() -> None:
    host = DurableHost()
    host.start_faults.append((aiohttp.ClientConnectionError("reset"), True))

    instance_id = await start_once(host.client(), "DeliverBusiness", None, INPUT)
    assert host.instances[instance_id].starts == 1


REJECTED = {"outcome": "rejected", "attempts": 1}
GIVEN_UP = {"outcome": "deferred", "attempts": 17}
WAITS = {"outcome": "deferred", "attempts": 2, "nextAttempt": "2026-02-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("status", "custom_status"),
    [
        *((status, WAITS) for status in sorted(ALIVE | FINISHED - {"Failed"})),
        ("Failed", REJECTED),
        ("Failed", GIVEN_UP),
    ],
)
async def test_an_instance_that_is_there_is_not_started_again(status: str, custom_status: object) -> None:
    host = DurableHost()
    await start_once(host.client(), "DeliverBusiness", "key-1", INPUT)
    host.instances["key-1"].status, host.instances["key-1"].custom_status = status, custom_status

    await start_once(host.client(), "DeliverBusiness", "key-1", INPUT)
    assert host.instances["key-1"].starts == 1


@pytest.fixture(params=[None, WAITS, {"total": 5, "created": 2, "posting": "2-4"}], ids=["at once", "waits", "batch"])
def broken_off(request: pytest.FixtureRequest) -> DurableHost:
    """A host with a delivery that has failed with its worker process, at its first step or a later one."""
    host = DurableHost()
    failed = "Orchestrator function 'DeliverBusiness' failed: python exited with code 137"
    host.instances["key-1"] = Instance(
        "DeliverBusiness", json.dumps(INPUT), "Failed", output=failed, custom_status=request.param
    )
    return host


async def test_a_delivery_that_was_broken_off_is_started_again_and_looks_up(
    broken_off: DurableHost, caplog: pytest.LogCaptureFixture
) -> None:
    given = INPUT | {"lookUp": "uncertain"}

    assert await start_once(broken_off.client(), "DeliverBusiness", "key-1", given) == "key-1"
    [instance] = broken_off.instances.values()
    assert (instance.status, json.loads(instance.input)) == ("Running", INPUT)
    assert [(record.message, vars(record)["instance_id"]) for record in caplog.records] == [
        ("delivery started again", "key-1")
    ]
    # Once is enough.
    await start_once(broken_off.client(), "DeliverBusiness", "key-1", given)
    assert len(caplog.records) == 1


async def test_a_delivery_that_was_broken_off_is_not_started_with_another_payload(broken_off: DurableHost) -> None:
    other = {"business": {"externalId": "b-1", "name": "Bob"}}

    assert (await refusal(start_once(broken_off.client(), "DeliverBusiness", "key-1", other))).status == 409
    assert broken_off.instances["key-1"].status == "Failed"


async def test_of_fifty_callers_at_once_one_starts_a_broken_off_delivery_again(broken_off: DurableHost) -> None:
    starts = [start_once(broken_off.client(), "DeliverBusiness", "key-1", INPUT) for _ in range(50)]

    assert set(await asyncio.gather(*starts)) == {"key-1"}
    assert broken_off.instances["key-1"].status == "Running"
    assert sum(call.startswith("POST") for call in broken_off.calls) == 50


async def test_a_broken_off_delivery_that_cannot_be_started_again_is_a_503(broken_off: DurableHost) -> None:
    broken_off.start_faults.append(([503, "busy"], False))

    reply = await refusal(start_once(broken_off.client(), "DeliverBusiness", "key-1", INPUT))
    assert (reply.status, detail(reply).startswith("The delivery could not be started")) == (503, True)


async def test_the_payload_is_the_same_in_any_order_and_under_other_settings() -> None:
    host = DurableHost()
    await start_once(host.client(), "DeliverBusiness", "key-1", INPUT)
    business = dict(reversed(list(INPUT["business"].items())))  # type: ignore[attr-defined]  # it is a dict

    await start_once(host.client(), "DeliverBusiness", "key-1", {"lookUp": "uncertain", "business": business})
    assert host.instances["key-1"].starts == 1


@pytest.mark.parametrize(
    "other",
    [
        {"business": {"externalId": "b-1", "name": "Bob"}},
        {"business": {}},
        {"businesses": [INPUT["business"]]},
    ],
)
@pytest.mark.parametrize("status", ["Running", "Completed"])
async def test_a_key_that_was_used_for_another_payload_is_a_409(status: str, other: dict[str, Any]) -> None:
    host = DurableHost()
    await start_once(host.client(), "DeliverBusiness", "key-1", INPUT)
    host.instances["key-1"].status = status

    reply = await refusal(start_once(host.client(), "DeliverBusiness", "key-1", other))
    assert (reply.status, detail(reply)) == (409, "The Idempotency-Key was used for another payload.")
    assert json.loads(host.instances["key-1"].input) == INPUT


@pytest.mark.parametrize("input_", ["plain text", None, "[1, 2]"])
async def test_an_instance_whose_input_is_not_ours_is_another_payload(input_: object) -> None:
    host = DurableHost()
    host.instances["key-1"] = Instance("Other", input_)

    assert (await refusal(start_once(host.client(), "DeliverBusiness", "key-1", INPUT))).status == 409


@pytest.mark.parametrize("duplicate_status", [409, 500])
async def test_of_fifty_callers_at_once_one_starts_the_delivery(duplicate_status: int) -> None:
    host = DurableHost(duplicate_status)

    await asyncio.gather(*(start_once(host.client(), "DeliverBusiness", "key-1", INPUT) for _ in range(50)))
    assert host.instances["key-1"].starts == 1
    assert sum(call.startswith("POST") for call in host.calls) == 50  # all of them had seen nothing there


@pytest.mark.parametrize("duplicate_status", [409, 500])
async def test_of_two_payloads_at_once_one_wins_and_the_other_is_a_409(duplicate_status: int) -> None:
    host = DurableHost(duplicate_status)
    other = {"business": {"externalId": "b-1", "name": "Bob"}}
    starts = [start_once(host.client(), "DeliverBusiness", "key-1", given) for given in (INPUT, other)]

    won, lost = await asyncio.gather(*starts, return_exceptions=True)
    assert won == "key-1"
    assert isinstance(lost, ProblemError)
    assert lost.reply.status == 409


@pytest.mark.parametrize(
    "fault", [*UNREACHABLE, [500, {"ExceptionMessage": EXISTS}], [400, {"Message": "no"}], [202, {}]]
)
async def test_a_start_that_fails_is_a_503_and_nothing_is_there(fault: Any, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN401 - an answer or an exception
    host = DurableHost()
    host.start_faults.append((fault, False))

    reply = await refusal(start_once(host.client(), "DeliverBusiness", "key-1", INPUT))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert detail(reply).startswith("The delivery could not be started; nothing was.")
    assert [line.getMessage() for line in caplog.records] == ["orchestration not started"]
    assert host.instances == {}


async def test_a_start_whose_answer_is_lost_has_happened() -> None:
    host = DurableHost()
    host.start_faults.append((aiohttp.ClientConnectionError("reset"), True))

    await start_once(host.client(), "DeliverBusiness", "key-1", INPUT)
    assert host.instances["key-1"].starts == 1


@pytest.mark.parametrize("fault", UNREACHABLE)
async def test_nothing_is_started_while_it_is_unknown_what_is_there(fault: Any) -> None:  # noqa: ANN401 - an answer or an exception
    # The host would overwrite a finished instance.
    host = DurableHost()
    host.instances["key-1"] = Instance("DeliverBusiness", json.dumps(INPUT), "Completed")
    host.read_faults.append(fault)

    assert (await refusal(start_once(host.client(), "DeliverBusiness", "key-1", INPUT))).status == 503
    assert host.instances["key-1"].starts == 1


BATCH = {**batch_input([{"externalId": "b-1", "name": "Ada"}]), "lookUp": "uncertain"}


def broken_off_batch(ago: float = 3_600) -> DurableHost:
    host = DurableHost()
    ended = datetime.now(UTC) - timedelta(seconds=ago)
    host.instances["key-1"] = Instance("DeliverBatch", json.dumps(BATCH), "Failed", created=NOON, updated=ended)
    return host


async def test_a_batch_is_started_again_when_none_of_its_activities_posts_any_more() -> None:
    host = broken_off_batch(ago=0)
    await start_once(host.client(), "DeliverBatch", "key-1", BATCH)
    given = json.loads(host.instances["key-1"].input)
    assert given.pop("pause") == pytest.approx(LOOK + 2 * 30, abs=5)
    assert given == BATCH | {"lookUp": "always"}


async def test_a_batch_that_was_broken_off_long_ago_begins_at_once() -> None:
    host = broken_off_batch()
    await start_once(host.client(), "DeliverBatch", "key-1", BATCH)
    assert json.loads(host.instances["key-1"].input) == BATCH | {"lookUp": "always"}


async def test_a_batch_that_is_redelivered_is_not_started_again() -> None:
    host = broken_off_batch()
    await start_once(host.client(), "DeliverBatch", "key-1-redelivery-1", BATCH)

    reply = await refusal(start_once(host.client(), "DeliverBatch", "key-1", BATCH))
    assert (reply.status, host.instances["key-1"].status) == (409, "Failed")
    assert detail(reply) == "The batch was broken off, and is redelivered as key-1-redelivery-1: watch that one."


async def test_a_redelivery_of_what_the_id_stood_for_before_is_in_nobodys_way() -> None:
    host = broken_off_batch()
    earlier = NOON - timedelta(seconds=1)
    host.instances["key-1-redelivery-1"] = Instance("DeliverBatch", json.dumps(BATCH), "Completed", created=earlier)

    await start_once(host.client(), "DeliverBatch", "key-1", BATCH)
    assert host.instances["key-1"].status == "Running"
