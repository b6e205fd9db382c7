from __future__ import annotations

import asyncio
import gc
import json

from sandbox.sample import business
from shared.delivery.batch_input import batch_input
from shared.delivery.batch_records import Batch, BatchRecords
from shared.delivery.problem import ProblemError
from tests.fakes.durable_client import BROKEN, DurableHost, Instance

BATCH = "key-7"
RECORDS = [business("b-0", note="Ada")]
INPUT = batch_input(RECORDS)
DIGEST = str(INPUT["digest"])


def host_with(*batch_ids: str) -> DurableHost:
    host = DurableHost()
    for batch_id in batch_ids or (BATCH,):
        host.instances[batch_id] = Instance("DeliverBatch", json.dumps(INPUT))
    return host


def reads(host: DurableHost) -> int:
    return sum(1 for call in host.calls if call.startswith("GET"))


async def test_the_batches_used_last_are_kept_and_no_more() -> None:
    batches = BatchRecords(most=2)
    host = host_with("a", "b", "c")
    client = host.client()

    for batch_id in ["a", "b", "a", "c"]:
        assert await batches.of(batch_id, DIGEST, client) == Batch(RECORDS, [f"{batch_id}-0"])
    assert reads(host) == 3
    await batches.of("a", DIGEST, client)
    assert reads(host) == 3
    await batches.of("b", DIGEST, client)
    assert reads(host) == 4


async def test_a_batch_that_is_pushed_out_while_it_is_read_is_still_given() -> None:
    batches = BatchRecords(most=1)
    host = host_with("a", "b", "c")
    client = host.client()

    reading = [asyncio.create_task(batches.of(batch_id, DIGEST, client)) for batch_id in "abc"]
    await asyncio.sleep(0)
    gc.collect()
    assert await asyncio.gather(*reading) == [Batch(RECORDS, [f"{batch_id}-0"]) for batch_id in "abc"]


async def test_a_caller_who_goes_away_leaves_the_reading_to_the_others() -> None:
    host, batches = host_with(), BatchRecords()
    client = host.client()
    first, second = (asyncio.create_task(batches.of(BATCH, DIGEST, client)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()

    assert (await second).records == RECORDS
    assert reads(host) == 1
    assert (await asyncio.gather(first, return_exceptions=True))[0].__class__ is asyncio.CancelledError


async def test_a_reading_that_was_cancelled_is_begun_again() -> None:
    host, batches = host_with(), BatchRecords()
    client = host.client()
    waiting = asyncio.create_task(batches.of(BATCH, DIGEST, client))
    await asyncio.sleep(0)
    [reading] = asyncio.all_tasks() - {asyncio.current_task(), waiting}
    reading.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert (await batches.of(BATCH, DIGEST, client)).records == RECORDS


async def test_a_failed_reading_is_told_to_all_who_wait_for_it() -> None:
    host, batches = host_with(), BatchRecords()
    host.read_faults.append(BROKEN)
    client = host.client()

    results = await asyncio.gather(
        *(batches.of(BATCH, DIGEST, client) for _ in range(3)),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [ProblemError] * 3
    assert reads(host) == 1


async def test_what_stands_in_the_input_as_it_is_was_not_decoded_by_us() -> None:
    host = host_with()
    host.instances["old"] = Instance("DeliverBatch", json.dumps({"businesses": RECORDS, "digest": "d"}))
    batches = BatchRecords()

    assert await batches.of("old", "d", host.client()) == Batch(RECORDS, ["old-0"], is_json=False)
    assert (await batches.of(BATCH, DIGEST, host.client())).is_json
