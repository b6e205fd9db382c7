from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shared.durable.inputs import DeliveryOptions, batch_input, single_input
from shared.durable.starting import next_redelivery
from shared.durable.upkeep import MAX_REWINDS, Recovery, backlog, purge_history
from tests.fakes.durable_host import NOON, PAGE, DurableHost, answer
from tests.models import PARCEL

if TYPE_CHECKING:
    from tests.fakes.durable_host import HostInstance

INPUT = single_input(b'{"parcelId": "P-1", "weight": 1}', DeliveryOptions()) | {"progress": {"attempts": 21}}


TIMES = ("createdTime", "lastUpdatedTime")


class Timer:
    """The timer's runs on one host; `rewound` has the resource of each recovery."""

    def __init__(self) -> None:
        self.host = DurableHost()
        self.rewound: list[str] = []
        self.recovery = Recovery([PARCEL], self.rewound.append)

    def failed(self, id_: str = "1", **more: object) -> HostInstance:
        return self.host.put(id_, "DeliverParcel", INPUT, **{"status": "Failed", "updated": datetime.now(UTC), **more})

    async def run(self) -> int:
        return await self.recovery.run(self.host.client(), lambda _resource: 30.0)


async def test_failed_deliveries_are_rewound_page_by_page(caplog: pytest.LogCaptureFixture) -> None:
    timer = Timer()
    for number in range(2 * PAGE + 1):
        timer.failed(str(number))
    timer.host.put("a", "DeliverParcel", INPUT, status="Completed")
    timer.host.put("b", "Stranger", INPUT, status="Failed")

    assert await timer.run() == 2 * PAGE + 1

    assert {timer.host.instances[str(number)].status for number in range(2 * PAGE + 1)} == {"Running"}
    assert timer.rewound == ["Parcel"] * (2 * PAGE + 1)
    assert [line.message for line in caplog.records] == ["delivery rewound"] * (2 * PAGE + 1)
    assert await timer.run() == 0


async def test_what_fails_again_and_again_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    timer = Timer()
    instance = timer.failed()
    for _ in range(MAX_REWINDS + 3):
        instance.status = "Failed"
        await timer.run()

    assert len(instance.reasons) == MAX_REWINDS
    assert [line.message for line in caplog.records if line.levelno == logging.ERROR] == ["delivery failed for good"]


async def test_a_batch_is_started_again_for_a_rewound_one_would_wait_for_the_activities_that_ended_after_it() -> None:
    timer = Timer()
    timer.host.put("1", PARCEL.deliver_batch, batch_input([b"{}"], DeliveryOptions()), status="Failed")

    assert await timer.run() == 1

    assert (timer.host.instances["1"].starts, timer.host.instances["1"].reasons) == (2, [])
    assert timer.host.input_of("1")["recoveries"] == 1


@pytest.mark.parametrize("batch", [False, True])
async def test_where_the_engine_does_not_rewind_the_delivery_is_started_again(batch: bool) -> None:  # noqa: FBT001 - a parameter
    timer = Timer()
    timer.host.refused.add("rewind")
    input_ = batch_input([b"{}"], DeliveryOptions()) if batch else INPUT
    timer.host.put("1", PARCEL.deliver_batch if batch else PARCEL.deliver, input_, status="Failed")

    for count in range(1, MAX_REWINDS + 2):
        await timer.run()
        instance = timer.host.instances["1"]
        assert instance.starts == min(count, MAX_REWINDS) + 1
        instance.status = "Failed"

    again = timer.host.input_of("1")
    assert again["recoveries"] == MAX_REWINDS
    assert again["uncertain"] == ([0] if batch else True)
    assert again["pause"] > 0
    assert again.items() >= {name: value for name, value in input_.items() if name != "uncertain"}.items()


async def test_a_history_with_a_failed_activity_is_not_rewound_for_that_would_run_it_again() -> None:
    timer = Timer()
    timer.failed(history=[{"EventType": "TaskFailed"}])

    assert await timer.run() == 1
    assert timer.host.instances["1"].starts == 2


@pytest.mark.parametrize("input_", [None, {"packed": 7}])
async def test_an_input_that_no_intake_writes_is_given_up_at_once(input_: object) -> None:
    timer = Timer()
    timer.host.put("1", "DeliverParcelBatch", input_, status="Failed")

    assert await timer.run() == 0
    assert not timer.host.instances["1"].reasons


async def test_what_is_redelivered_is_left_alone() -> None:
    timer = Timer()
    timer.failed()
    timer.host.put(next_redelivery("1"), "DeliverParcel", INPUT, created=NOON + timedelta(seconds=9))

    assert await timer.run() == 0
    assert timer.host.instances["1"].status == "Failed"


async def test_one_that_cannot_be_recovered_now_does_not_hold_back_the_others() -> None:
    timer = Timer()
    timer.failed("1")
    timer.failed("2")
    timer.host.faults.extend([answer(200, await listed(timer)), answer(500)])

    assert await timer.run() == 1


async def listed(timer: Timer) -> list[dict[str, str]]:
    page, _ = await timer.host.client().list_instances(runtimeStatus="Failed")
    return [
        {
            "instanceId": each.id,
            "name": each.name,
            "runtimeStatus": each.status,
            **dict.fromkeys(TIMES, NOON.isoformat()),
        }
        for each in page
    ]


async def test_history_is_purged_so_many_days_after_a_delivery_has_ended() -> None:
    host = DurableHost()
    for number in range(3 * PAGE):
        host.put(f"old-{number}", "DeliverParcel", {}, status="Completed", updated=NOON - timedelta(days=31))
    long = {"created": NOON - timedelta(days=60)}
    host.put("ended-lately", "DeliverParcel", {}, status="Completed", updated=NOON - timedelta(days=29), **long)
    host.put("goes-on", "DeliverParcel", {}, updated=NOON - timedelta(days=59), **long)

    # Created at noon, which is later than the limit, is none that the host lists.
    for number in range(3 * PAGE):
        host.instances[f"old-{number}"].created = NOON - timedelta(days=32)

    assert await purge_history(host.client(), 30, 86_400, NOON) == 3 * PAGE
    assert sorted(host.instances) == ["ended-lately", "goes-on"]


@pytest.mark.parametrize(("days", "deadline", "ago"), [(1, 7 * 86_400, 6 * 86_400), (0.0001, 1, 3_500)])
async def test_no_delivery_is_forgotten_while_its_caller_may_ask_again_or_an_activity_may_post(
    days: float, deadline: float, ago: float
) -> None:
    host = DurableHost()
    ended = NOON - timedelta(seconds=ago)
    host.put("1", "DeliverParcel", {}, status="Terminated", created=NOON - timedelta(days=400), updated=ended)

    assert await purge_history(host.client(), days, deadline, NOON) == 0


async def test_the_backlog_is_counted_over_all_pages_with_its_oldest_delivery() -> None:
    host = DurableHost()
    for number in range(2 * PAGE + 1):
        host.put(str(number), "DeliverParcel", INPUT, created=NOON + timedelta(seconds=number))
    host.put("a", "DeliverParcelBatch", INPUT, status="Suspended", created=NOON)
    host.put("b", "DeliverParcel", INPUT, status="Completed", created=NOON - timedelta(days=1))

    found = await backlog(host.client(), NOON + timedelta(minutes=1))

    assert found == {"DeliverParcel": (2 * PAGE + 1, 60.0), "DeliverParcelBatch": (1, 60.0)}
