"""Two partners in one app: trouble with one never touches the other."""

from __future__ import annotations

import asyncio
import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.end_to_end import two_partners
from tests.end_to_end.stage import Stage, copy_app, id_of, record

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

PARCEL, RECEIPT = two_partners.RESOURCES
QUICK = {"DELIVERY_RETRY_FIRST": "0.2", "DELIVERY_RETRY_MAX": "1"}


@pytest.fixture(scope="module")
def running() -> Iterator[Stage]:
    """The app as a user makes it who edits `shared/partner.py` alone."""
    with TemporaryDirectory() as folder, ExitStack() as processes:
        app = Path(folder)
        copy_app(app)
        shutil.copy2(two_partners.__file__, app / "shared" / "partner.py")
        yield Stage(processes, environ=QUICK, app=app, resources=two_partners.RESOURCES)


@pytest.fixture
async def two(running: Stage, http: httpx.AsyncClient) -> Stage:
    running.http = http
    await running.control("POST", "reset")
    return running


async def test_a_dead_partner_is_asked_by_few_and_does_not_slow_the_other_one_down(two: Stage) -> None:
    async def seconds_for_50_receipts(first: int) -> float:
        began = time.monotonic()
        bodies = [record(first + number, RECEIPT) for number in range(50)]
        assert (await two.deliver(bodies, resource=RECEIPT))["created"] == 50
        return time.monotonic() - began

    healthy = await seconds_for_50_receipts(1)
    await two.set_faults({"fault": "drop", "route": "api", "partner": "CARRIER_API"})
    parcels = [record(number, PARCEL) for number in range(1, 91)]
    links = [await two.start(parcels[:80], resource=PARCEL)]
    links += await asyncio.gather(*(two.start(parcel, resource=PARCEL) for parcel in parcels[80:]))
    for link in links:
        await two.in_state(link, "waiting", "delivering")
    beside_the_dead_one = await seconds_for_50_receipts(51)
    shown = (await two.ask("GET", "health/deep")).json()["partners"]
    asked = await two.control("GET", "counters?partner=CARRIER_API")
    still_waiting = (await two.ask("GET", "deliveries", params={"resource": "Parcel", "state": "delivered"})).json()
    await two.control("POST", "recover")
    parcels_delivered = await two.all_finished(links)

    assert beside_the_dead_one < 3 * healthy + 2
    assert still_waiting["deliveries"] == []
    assert shown["BOOKS_API"]["partner"] == "ok"
    assert shown["CARRIER_API"]["flow"]["state"] == "down"
    assert 0 < asked["lookups"] + asked["posts"] < 30
    assert {delivery["state"] for delivery in parcels_delivered} == {"delivered"}
    assert await two.stored(PARCEL) == {id_of(number, PARCEL): 1 for number in range(1, 91)}
    assert await two.stored(RECEIPT) == {str(number): 1 for number in range(1, 101)}


async def test_a_partner_without_a_look_up_stores_a_record_once_by_its_key(two: Stage) -> None:
    lost = {"fault": "drop", "route": "post", "stage": "after", "partner": "BOOKS_API", "times": 1}
    slow = {"fault": "latency", "route": "post", "partner": "BOOKS_API", "record": "2", "seconds": 3, "times": 1}
    await two.set_faults({**lost, "record": "1"}, slow, {**lost, "record": "3"})

    deliveries = await asyncio.gather(
        *(two.deliver(record(number, RECEIPT), resource=RECEIPT) for number in (1, 2)),
        two.deliver([record(number, RECEIPT) for number in (3, 4)], resource=RECEIPT),
    )
    nothing = await two.ask("GET", f"{RECEIPT.route}/1")

    assert {delivery["state"] for delivery in deliveries} == {"delivered"}
    assert await two.stored(RECEIPT) == {"1": 1, "2": 1, "3": 1, "4": 1}
    assert (await two.control("GET", "counters?partner=BOOKS_API"))["lookups"] == 0
    assert nothing.status_code == 404
