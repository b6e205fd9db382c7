from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.durable.attempt import WORK
from shared.durable.inputs import DeliveryOptions, batch_input, single_input
from shared.durable.starting import keyed_id, new_id, next_redelivery, prefix_of, settling_pause, start_new, start_once
from shared.errors import RefusedError
from tests.fakes.durable_host import NOON, DurableHost
from tests.models import PARCEL

RECORD = b'{"parcelId": "P-1", "weight": 1.50}'
INPUT = single_input(RECORD, DeliveryOptions())
BATCH = batch_input([RECORD, RECORD], DeliveryOptions())
ID = keyed_id(PARCEL, "order 7/ü")
NAMES = ["Parcel", "Parcel_", "Par_cel", "ParcelKey", "Parcel_key", "P", "P" * 100, "P" * 99 + "A"]


async def start(host: DurableHost, input_: dict[str, Any] = INPUT, id_: str = ID) -> str:
    return await start_once(host.client(), PARCEL, id_, input_, 30.0)


def test_ids_of_one_resource_sort_newest_first_behind_their_prefix() -> None:
    ids = [new_id(PARCEL, NOON + timedelta(milliseconds=10**step)) for step in range(12)]

    assert ids == sorted(ids, reverse=True)
    assert all(id_.startswith("parcel-") for id_ in [*ids, ID])
    assert new_id(PARCEL, NOON) != new_id(PARCEL, NOON)


def test_no_resources_prefix_begins_with_anothers() -> None:
    prefixes = [prefix_of(replace(PARCEL, name=name)) for name in NAMES]

    assert not [
        (one, other) for one in prefixes for other in prefixes if one is not other and (other + "key-").startswith(one)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_every_id_is_one_that_azure_storage_and_urls_take(name: str) -> None:
    resource = replace(PARCEL, name=name)
    id_ = keyed_id(resource, "a" * 255)
    for _ in range(100):
        id_ = next_redelivery(id_)

    assert all(re.fullmatch(r"[A-Za-z0-9-]{1,100}", each) for each in (id_, new_id(resource, NOON)))
    assert id_.endswith("-redelivery-100")


def test_a_key_names_one_delivery_of_one_resource() -> None:
    assert keyed_id(PARCEL, "a") == keyed_id(PARCEL, "a") != keyed_id(PARCEL, "b")
    assert keyed_id(PARCEL, "a") != keyed_id(replace(PARCEL, name="Other"), "a")


async def test_a_delivery_without_a_key_is_started_without_a_look() -> None:
    host = DurableHost()

    ids = [await start_new(host.client(), PARCEL, input_, NOON) for input_ in (INPUT, BATCH)]

    assert [host.instances[id_].name for id_ in ids] == ["DeliverParcel", "DeliverParcelBatch"]
    assert len(host.calls) == 2


async def test_fifty_callers_with_one_key_start_one_delivery() -> None:
    host = DurableHost()

    assert set(await asyncio.gather(*(start(host) for _ in range(50)))) == {ID}
    assert host.instances[ID].starts == 1


@pytest.mark.parametrize("status", ["Running", "Completed", "Terminated", "Suspended"])
async def test_a_delivery_that_is_there_is_not_started_again(status: str) -> None:
    host = DurableHost()
    host.put(ID, "DeliverParcel", INPUT, status=status)

    assert await start(host) == ID
    assert host.instances[ID].starts == 1


@pytest.mark.parametrize("same", [b'{"weight":1.5,"parcelId":"P-1"}', b' {"parcelId": "\\u0050-1", "weight": 15e-1}'])
async def test_the_same_json_in_another_form_is_the_same_payload(same: bytes) -> None:
    host = DurableHost()
    await start(host)

    assert await start(host, single_input(same, DeliveryOptions(settle=9.0))) == ID
    assert await start(host, batch_input([RECORD], DeliveryOptions()), "b") == "b"
    assert await start(host, batch_input([same], DeliveryOptions()), "b") == "b"


@pytest.mark.parametrize("other", [single_input(b'{"parcelId": "P-2"}', DeliveryOptions()), BATCH])
async def test_another_payload_under_the_same_key_is_refused(other: dict[str, Any]) -> None:
    host = DurableHost()
    await start(host)

    with pytest.raises(RefusedError, match="another payload") as refused:
        await start(host, other)

    assert refused.value.kind == "key-reused"


@pytest.mark.parametrize(("input_", "uncertain"), [(INPUT, True), (BATCH, [0, 1])])
async def test_a_failed_delivery_is_started_again_carefully(input_: dict[str, Any], uncertain: object) -> None:
    host = DurableHost()
    host.put(ID, "DeliverParcel", input_, status="Failed", updated=datetime.now(UTC))

    assert await start(host, input_) == ID

    again = host.input_of(ID)
    assert again["uncertain"] == uncertain
    assert WORK < again["pause"] <= WORK + 4


async def test_a_failed_delivery_that_is_redelivered_is_not_started_as_well() -> None:
    host = DurableHost()
    host.put(ID, "DeliverParcel", INPUT, status="Failed")
    host.put(next_redelivery(ID), "DeliverParcel", INPUT, created=NOON + timedelta(seconds=9))

    with pytest.raises(RefusedError, match=f"redelivered as {ID}-redelivery-1") as refused:
        await start(host)

    assert refused.value.kind == "wrong-state"


@pytest.mark.parametrize(("ago", "timeout", "pause"), [(0, 30, 64), (60, 30, 4), (65, 30, 0), (0, 600, 634)])
def test_the_pause_lasts_until_no_activity_can_be_posting(ago: float, timeout: float, pause: float) -> None:
    host = DurableHost()
    instance = host.put("1", "DeliverParcel", {}, updated=datetime.now(UTC) - timedelta(seconds=ago))

    assert settling_pause(instance, timeout) == pytest.approx(pause, abs=1)  # type: ignore[arg-type]
