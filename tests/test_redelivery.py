from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.durable.inputs import DeliveryOptions, batch_input, records_of, single_input
from shared.durable.starting import redeliver
from shared.errors import RefusedError
from shared.rules.retry import RetryPolicy
from tests.fakes.durable_host import NOON, DurableHost
from tests.models import PARCEL

RECORD = '{"parcelId": "P-1", "weight": 1.50}'
TEXTS = [b'{"parcelId": "P-%d", "weight": 1.50}' % number for number in range(5)]
OPTIONS = DeliveryOptions(RetryPolicy(60), settle=9.0)
FIRST = "parcel-1"
AGAIN = "parcel-1-redelivery-1"


def one(output: object = None, status: str = "Completed", **more: Any) -> DurableHost:  # noqa: ANN401 - members of an instance
    host = DurableHost()
    input_ = more.pop("input_", single_input(RECORD.encode(), OPTIONS))
    host.put(FIRST, "DeliverParcel", input_, status=status, output=output, **more)
    return host


def many(output: object = None, status: str = "Completed", **more: Any) -> DurableHost:  # noqa: ANN401 - members of an instance
    return one(output, status, input_=batch_input(TEXTS, OPTIONS), **more)


async def ask(host: DurableHost, id_: str = FIRST) -> str:
    instance = await host.client().find(id_, show_input=True)
    assert instance is not None
    return await redeliver(host.client(), instance, PARCEL, OPTIONS, 30.0)


async def test_a_rejected_record_is_posted_anew_under_another_key() -> None:
    host = one({"state": "rejected", "status": 422})

    assert await ask(host) == AGAIN

    assert host.input_of(AGAIN) == single_input(RECORD.encode(), OPTIONS)


@pytest.mark.parametrize("output", [{"state": "expired"}, {"state": "rejected"}])
async def test_a_record_that_the_partner_has_not_rejected_keeps_its_key(output: dict[str, Any]) -> None:
    host = one(output)
    await ask(host)
    host.instances[AGAIN].status, host.instances[AGAIN].output = "Completed", output

    second = await ask(host, AGAIN)

    assert second == "parcel-1-redelivery-2"
    assert host.input_of(AGAIN)["key"] == host.input_of(second)["key"] == FIRST
    assert "uncertain" not in host.input_of(AGAIN)


async def test_a_record_that_may_have_arrived_is_looked_up_first() -> None:
    host = one({"state": "expired", "uncertain": True})

    await ask(host)

    assert host.input_of(AGAIN)["uncertain"] is True
    assert "pause" not in host.input_of(AGAIN)


@pytest.mark.parametrize("status", ["Terminated", "Failed"])
@pytest.mark.parametrize(
    ("shown", "uncertain"),
    [
        ({"state": "delivering"}, True),
        ({"state": "waiting"}, None),
        ({"state": "waiting", "uncertain": True}, True),
        (None, None),
    ],
)
async def test_a_record_of_an_ended_delivery_waits_until_nobody_can_be_posting(
    status: str,
    shown: object,
    uncertain: bool | None,  # noqa: FBT001 - a column of the table
) -> None:
    host = one(None, status, custom_status=shown, updated=datetime.now(UTC))

    await ask(host)

    again = host.input_of(AGAIN)
    assert (again["key"], again.get("uncertain")) == (FIRST, uncertain)
    assert again["pause"] > 60


async def test_what_an_earlier_run_knew_is_not_forgotten() -> None:
    input_ = single_input(RECORD.encode(), OPTIONS) | {"progress": {"isUncertain": True}}
    host = one(None, "Terminated", input_=input_, custom_status={"state": "waiting"})

    await ask(host)

    assert host.input_of(AGAIN)["uncertain"] is True


async def test_the_undelivered_records_of_a_batch_become_a_batch() -> None:
    shown = {"createdRecords": "0,3", "rejectedRecords": "1", "expiredRecords": "2,4", "uncertainRecords": "2"}
    host = many(custom_status={"state": "partly", **shown})

    await ask(host)

    again = host.input_of(AGAIN)
    assert records_of(again) == [TEXTS[1], TEXTS[2], TEXTS[4]]
    assert again["keys"] == {"1": f"{FIRST}-2", "2": f"{FIRST}-4"}
    assert again["uncertain"] == [1]


@pytest.mark.parametrize("status", ["Terminated", "Failed"])
async def test_of_an_ended_batch_all_is_left_that_is_not_known_to_be_delivered(status: str) -> None:
    shown = {
        "createdRecords": "0",
        "rejectedRecords": "1",
        "expiredRecords": "2",
        "uncertainRecords": "2",
        "posting": "3-4",
    }
    host = many(None, status, custom_status=shown, updated=datetime.now(UTC))

    await ask(host)

    again = host.input_of(AGAIN)
    assert records_of(again) == TEXTS[1:]
    assert again["keys"] == {str(index - 1): f"{FIRST}-{index}" for index in (2, 3, 4)}
    assert again["uncertain"] == [1, 2, 3]
    assert again["pause"] > 60


async def test_asking_twice_starts_one() -> None:
    host = one({"state": "expired"})

    assert {await ask(host) for _ in range(3)} == {AGAIN}
    assert host.instances[AGAIN].starts == 1


async def test_an_id_that_stands_for_what_was_left_before_a_restart_is_skipped() -> None:
    host = one({"state": "expired"}, created=NOON + timedelta(hours=1))
    host.put(AGAIN, "DeliverParcel", single_input(RECORD.encode(), OPTIONS), status="Completed")

    assert await ask(host) == "parcel-1-redelivery-2"


@pytest.mark.parametrize(
    ("host", "detail"),
    [
        (one(status="Running"), "only a finished one"),
        (one(status="Suspended"), "only a finished one"),
        (one({"state": "delivered"}), "nothing is left"),
        (many(custom_status={"state": "delivered", "createdRecords": "0-4"}), "nothing is left"),
        (many(None, "Terminated", custom_status={"existsRecords": "0-4"}), "nothing is left"),
        (one(7), "cannot be redelivered"),
        (one({"state": "expired"}, input_={"terms": {}}), "cannot be redelivered"),
        (many(custom_status={}), "cannot be redelivered"),
        (many(None, "Terminated", custom_status={"createdRecords": "x"}), "cannot be redelivered"),
    ],
)
async def test_what_cannot_be_redelivered_is_refused(host: DurableHost, detail: str) -> None:
    with pytest.raises(RefusedError, match=detail) as refused:
        await ask(host)

    assert refused.value.kind == "wrong-state"
    assert list(host.instances) == [FIRST]
