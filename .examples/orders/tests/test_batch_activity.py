from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox.sample import business
from shared.api.business_api import BusinessApi
from shared.delivery.batch_activity import MAX_REASON, post_businesses
from shared.delivery.batch_input import batch_input
from shared.delivery.batch_records import BatchRecords
from shared.delivery.partner_gate import FEW, PartnerGate
from shared.delivery.settling import LOOK
from tests.fakes.durable_client import BROKEN, DurableHost, Instance
from tests.fakes.scripted_partner import ORIGIN, ScriptedPartner, created, found, missing, refused
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BATCH = "key-7"


def records(count: int, note: str = "Ada") -> list[dict[str, Any]]:
    return [business(f"b-{index}", note=note) for index in range(count)]


def host_with(count: int, *batch_ids: str) -> DurableHost:
    host = DurableHost()
    for batch_id in batch_ids or (BATCH,):
        host.instances[batch_id] = Instance("DeliverBatch", json.dumps(batch_input(records(count))))
    return host


def digest(count: int) -> str:
    return str(batch_input(records(count))["digest"])


def reads(host: DurableHost) -> int:
    return sum(1 for call in host.calls if call.startswith("GET"))


class ByRecord(ScriptedPartner):
    """Answers each request by its method and its record's index."""

    def __init__(self, answers: Callable[[str, int], httpx.Response]) -> None:
        super().__init__()
        self._answers = answers

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers(request.method, _index(request))


class Slow(httpx.AsyncBaseTransport):
    """Stores every record, after a while in which others may come."""

    def __init__(self) -> None:
        self.under_way = self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        for _ in range(5):
            await asyncio.sleep(0)
        self.under_way -= 1
        return created()


def _index(request: httpx.Request) -> int:
    external_id = json.loads(request.content)["externalId"] if request.method == "POST" else request.url.path
    return int(external_id.rpartition("-")[2])


def trusting_gate() -> PartnerGate:
    return PartnerGate(lambda: 0.0)


async def post(  # noqa: PLR0913 - a test names what matters to it
    host: DurableHost,
    partner: ScriptedPartner,
    indices: list[int],
    *,
    count: int = 8,
    look_up: bool = False,
    batches: BatchRecords | None = None,
    gate: PartnerGate | None = None,
    **order: object,
) -> dict[str, Any]:
    given = {
        "instanceId": BATCH,
        "digest": digest(count),
        "records": [[index, look_up] for index in indices],
        **order,
    }
    result = await post_businesses(
        json.loads(json.dumps(given)),
        host.client(),
        batches or BatchRecords(),
        partner.api,
        gate or trusting_gate(),
    )
    return dict(json.loads(json.dumps(result)))


async def test_each_record_of_a_chunk_is_posted_under_its_own_key() -> None:
    partner = ScriptedPartner(*[created() for _ in range(3)])

    result = await post(host_with(8), partner, [2, 3, 7])
    assert result == {"created": [2, 3, 7]}
    assert sorted(partner.posted_keys) == ["key-7-2", "key-7-3", "key-7-7"]
    sent = {request.headers["idempotency-key"]: json.loads(request.content) for request in partner.requests}
    assert sent == {f"key-7-{index}": records(8)[index] for index in (2, 3, 7)}


async def test_a_record_is_looked_up_where_its_order_says_so() -> None:
    partner = ByRecord(lambda method, index: found(records(8)[index]) if method == "GET" else created())
    order = [[0, True], [1, False]]

    result = await post(host_with(8), partner, [], records=order)
    assert result == {"created": [1], "exists": [0]}
    assert sorted(partner.calls) == ["GET /v1/business/by-external/b-0", "POST /v1/business/"]


@pytest.mark.parametrize(("chunk", "most"), [({}, 49), ({"chunk": 50}, 49), ({"chunk": 7}, 7), ({"chunk": 1}, 1)])
async def test_a_chunk_of_an_orders_records_is_under_way_at_once(chunk: dict[str, int], most: int) -> None:
    # An order of version 0.1 names no chunk: it is one.
    slow, gate = Slow(), trusting_gate()
    api = BusinessApi(httpx.AsyncClient(transport=slow), ORIGIN)

    async def business_api() -> BusinessApi:
        return api

    async def order(*indices: int) -> dict[str, Any]:
        order = {"instanceId": BATCH, "digest": digest(50), "records": [[index, False] for index in indices], **chunk}
        return await post_businesses(order, host_with(50).client(), BatchRecords(), business_api, gate)

    await order(0)
    assert await order(*range(1, 50)) == {"created": [*range(1, 50)]}
    assert slow.most == most


async def test_outcomes_are_summed_up_by_kind() -> None:
    answers = {
        0: created(),
        1: refused(422, "no such city"),
        2: refused(408),
        3: refused(500),
        4: refused(429, retry_after="9"),
        5: refused(425, retry_after="2"),
    }
    partner = ByRecord(lambda _method, index: answers[index])

    result = await post(host_with(8), partner, [0, 1, 2, 3, 4, 5], gate=trusting_gate())
    assert result.pop("reason").startswith("The partner ")
    assert sorted(result.pop("deferred")) == [2, 3, 4, 5]
    assert result == {
        "created": [0],
        "rejected": [
            {
                "index": 1,
                "externalId": "b-1",
                "status": 422,
                "reason": "The partner answered 422: Refused: no such city",
            }
        ],
        "uncertain": [3],
        "retryAfter": 9.0,
    }


async def test_a_wish_to_come_back_at_once_is_a_wish() -> None:
    result = await post(host_with(8), ScriptedPartner(refused(429, retry_after="0")), [0])

    assert result["retryAfter"] == 0.0


async def test_a_defect_in_one_record_defers_it_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    def answers(_method: str, index: int) -> httpx.Response:
        if index == 1:
            raise ZeroDivisionError("s3cr3t by zero")
        return created()

    result = await post(host_with(8), ByRecord(answers), [0, 1, 2], attempt=4)
    reason = result.pop("reason")
    assert result == {"created": [0, 2], "deferred": [1], "uncertain": [1]}
    assert reason == (
        "The attempt ended without a result, and may have posted: ZeroDivisionError, a defect of this app whose "
        "traceback is in the log"
    )
    [line] = [record for record in caplog.records if record.message == "delivery attempt failed"]
    fields = vars(line)
    assert (fields["instance_id"], fields["external_id"], fields["attempt"]) == (BATCH, "b-1", 4)
    assert line.exc_info
    assert line.exc_info[0] is ZeroDivisionError


async def test_an_index_that_the_batch_does_not_have_is_a_defect() -> None:
    with pytest.raises(IndexError):
        await post(host_with(8), ScriptedPartner(), [8])


@pytest.mark.parametrize("words", ["x" * 5_000, "ü" * 5_000, "\N{ROCKET}" * 5_000])
async def test_of_a_long_reason_the_beginning_is_kept(words: str) -> None:
    rejected = await post(host_with(8), ScriptedPartner(refused(422, words)), [0])
    reason = rejected["rejected"][0]["reason"]

    assert reason.startswith("The partner answered 422: Refused: " + words[:100])
    assert len(reason) == MAX_REASON
    assert reason.endswith("…")


async def test_a_partner_in_trouble_is_asked_by_few_of_a_chunk() -> None:
    partner = ByRecord(lambda _method, _index: refused(503, retry_after="20"))

    result = await post(host_with(1_000), partner, list(range(1_000)), count=1_000)
    assert len(partner.requests) <= FEW
    assert (len(result["deferred"]), result["retryAfter"]) == (1_000, 20.0)
    assert "uncertain" not in result or len(result["uncertain"]) <= FEW


async def test_what_an_attempt_is_told_of_its_batch_reaches_its_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shared.delivery.activities")

    await post(host_with(8), ScriptedPartner(created()), [5], attempt=3, age=12.5)
    [line] = [vars(record) for record in caplog.records if record.message == "delivery attempt"]
    assert (line["instance_id"], line["external_id"], line["attempt"]) == (BATCH, "b-5", 3)


async def test_an_order_without_number_and_age_is_a_first_attempt(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shared.delivery.activities")

    await post(host_with(8), ScriptedPartner(created()), [5])
    assert [vars(record)["attempt"] for record in caplog.records if record.message == "delivery attempt"] == [1]


async def test_an_old_batchs_fresh_token_that_is_refused_is_no_longer_waited_for() -> None:
    def partner() -> ScriptedPartner:
        return ScriptedPartner(refused(401, www_authenticate='Bearer error="invalid_token"'))

    assert "deferred" in await post(host_with(8), partner(), [0], age=1.0)
    assert "rejected" in await post(host_with(8), partner(), [0], age=9_999.0)


async def test_records_that_cannot_be_read_now_are_all_deferred_and_nothing_is_sent() -> None:
    host = host_with(8)
    host.read_faults.append(BROKEN)
    partner = ScriptedPartner()

    assert await post(host, partner, [0, 4]) == {
        "deferred": [0, 4],
        "reason": "The records of the batch cannot be read now",
    }
    assert partner.requests == []


async def test_records_that_could_not_be_read_are_read_again_the_next_time() -> None:
    host, batches = host_with(8), BatchRecords()
    host.read_faults.append(BROKEN)

    await post(host, ScriptedPartner(), [0], batches=batches)
    assert await post(host, ScriptedPartner(created()), [0], batches=batches) == {"created": [0]}
    assert reads(host) == 2


async def test_a_batch_is_read_once_by_all_its_chunks() -> None:
    host, batches = host_with(40), BatchRecords()
    partner = ByRecord(lambda _method, _index: created())

    gate = trusting_gate()
    chunks = [list(range(start, start + 10)) for start in range(0, 40, 10)]
    await asyncio.gather(*(post(host, partner, chunk, count=40, batches=batches, gate=gate) for chunk in chunks))
    await post(host, partner, [0], count=40, batches=batches, gate=gate)
    assert reads(host) == 1
    assert len(partner.posted_keys) == 41


async def test_two_batches_at_once_do_not_mix() -> None:
    host, batches = DurableHost(), BatchRecords()
    both = {"one": records(5, "Ada"), "two": records(5, "Bob")}
    for batch_id, batch in both.items():
        host.instances[batch_id] = Instance("DeliverBatch", json.dumps(batch_input(batch)))
    partner = ByRecord(lambda _method, _index: created())

    def go(batch_id: str) -> Awaitable[dict[str, Any]]:
        order = {"instanceId": batch_id, "digest": batch_input(both[batch_id])["digest"]}
        return post(host, partner, [0, 1, 2, 3, 4], batches=batches, **order)

    assert [*await asyncio.gather(go("one"), go("two"))] == [{"created": [0, 1, 2, 3, 4]}] * 2
    sent = {request.headers["idempotency-key"]: json.loads(request.content) for request in partner.requests}
    assert sent == {f"{batch_id}-{index}": both[batch_id][index] for batch_id in both for index in range(5)}


async def test_an_id_that_stands_for_another_batch_since_a_purge_gives_that_ones_records() -> None:
    host, batches = host_with(3), BatchRecords()
    await post(host, ScriptedPartner(created()), [0], count=3, batches=batches)
    later = [business("other-0", note="Bob")]
    host.instances[BATCH] = Instance("DeliverBatch", json.dumps(batch_input(later)))

    partner = ScriptedPartner(created())
    await post(host, partner, [0], batches=batches, digest=batch_input(later)["digest"])
    assert json.loads(partner.requests[0].content) == later[0]


async def test_a_late_run_for_a_purged_batch_posts_nothing_of_the_one_that_has_its_id_now() -> None:
    host = host_with(3)
    partner = ScriptedPartner()

    with pytest.raises(LookupError, match=BATCH):
        await post(host, partner, [0], digest=digest(4))
    assert partner.requests == []


@pytest.mark.parametrize("input_", [None, "text", '["b-1"]', json.dumps({"business": records(1)[0]})])
async def test_what_is_no_batch_is_a_defect(input_: str | None) -> None:
    host = DurableHost()
    host.instances[BATCH] = Instance("DeliverBusiness", input_)

    with pytest.raises(LookupError, match=BATCH):
        await post(host, ScriptedPartner(), [0])
    with pytest.raises(LookupError, match=BATCH):
        await post(DurableHost(), ScriptedPartner(), [0])


async def test_records_that_have_come_past_the_intake_are_rejected_each_for_itself() -> None:
    marked = {"__class__": "Path", "__module__": "pathlib", "__data__": "/"}
    odd: list[Any] = [
        *records(2),
        5,
        {"externalId": "x" * 9_999},
        records(1)[0] | {"x": "y" * 99_999},
        records(1)[0] | {"x": marked},
    ]
    host = DurableHost()
    host.instances[BATCH] = Instance("DeliverBatch", json.dumps(batch_input(odd)))
    partner = ByRecord(lambda _method, _index: created())

    result = await post(host, partner, [0, 1, 2, 3, 4, 5], digest=batch_input(odd)["digest"])
    assert result["created"] == [0, 1]
    assert [rejection["index"] for rejection in result["rejected"]] == [2, 3, 4, 5]
    assert [rejection["externalId"] for rejection in result["rejected"]] == ["None", "x" * 128, "b-0", "b-0"]
    assert result["rejected"][0]["reason"] == "must be a JSON object"
    assert len(partner.requests) == 2


async def test_records_that_cannot_be_unpacked_are_rejected() -> None:
    host = DurableHost()
    host.instances[BATCH] = Instance("DeliverBatch", json.dumps({"total": 2, "digest": "d", "packed": "AAAA"}))

    result = await post(host, ScriptedPartner(), [0, 1], digest="d")
    reason = "The records of the batch cannot be unpacked"
    assert result == {"rejected": [{"index": index, "externalId": "", "reason": reason} for index in (0, 1)]}


class TakingASecond(httpx.AsyncBaseTransport):
    """Stores every record within a second; `on_post` is told after how many."""

    def __init__(self, on_post: Callable[[int], None]) -> None:
        self.posts = 0
        self._on_post = on_post

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        await asyncio.sleep(1)
        self.posts += 1
        self._on_post(self.posts)
        return created()


def end(host: DurableHost, how: str) -> None:
    if how == "purged":
        del host.instances[BATCH]
    elif how == "begun anew":
        host.instances[BATCH].created += timedelta(seconds=90)
    else:
        host.instances[BATCH].status = how


@pytest.mark.parametrize("how", ["Terminated", "Suspended", "Failed", "Completed", "purged", "begun anew"])
@in_virtual_time
async def test_an_activity_stops_soon_when_its_batch_does_not_go_on(how: str) -> None:
    host = host_with(20)
    slow = TakingASecond(lambda posts: end(host, how) if posts == 7 else None)
    api = BusinessApi(httpx.AsyncClient(transport=slow), ORIGIN)

    async def business_api() -> BusinessApi:
        return api

    order = {"instanceId": BATCH, "digest": digest(20), "chunk": 1, "records": [[index, False] for index in range(20)]}
    result = await post_businesses(order, host.client(), BatchRecords(), business_api, trusting_gate())
    assert 7 <= slow.posts <= 7 + LOOK
    assert result == {
        "created": [*range(slow.posts)],
        "deferred": [*range(slow.posts, 20)],
        "reason": "The batch was ended or suspended meanwhile",
    }
    await asyncio.sleep(0)


@in_virtual_time
async def test_an_activity_that_cannot_find_out_whether_its_batch_goes_on_goes_on() -> None:
    host = host_with(8)
    # Not said to run yet, as it may be for a moment.
    host.instances[BATCH].status = "Pending"
    slow = TakingASecond(lambda posts: host.read_faults.append(BROKEN) if posts < 4 else None)
    api = BusinessApi(httpx.AsyncClient(transport=slow), ORIGIN)

    async def business_api() -> BusinessApi:
        return api

    order = {"instanceId": BATCH, "digest": digest(8), "chunk": 1, "records": [[index, False] for index in range(8)]}
    result = await post_businesses(order, host.client(), BatchRecords(), business_api, trusting_gate())
    assert result == {"created": [*range(8)]}
    assert reads(host) > 3
    assert not host.read_faults
    await asyncio.sleep(0)


async def test_a_record_that_brings_its_key_along_is_posted_under_it() -> None:
    host = DurableHost()
    input_ = batch_input(records(3), [None, "key-1-17", None])
    host.instances[BATCH] = Instance("DeliverBatch", json.dumps(input_))
    partner = ScriptedPartner(*[created() for _ in range(3)])

    await post(host, partner, [0, 1, 2], digest=input_["digest"])
    assert sorted(partner.posted_keys) == ["key-1-17", "key-7-0", "key-7-2"]


async def test_a_chunk_that_is_all_done_already_is_nothing_to_do() -> None:
    assert await post(host_with(8), ScriptedPartner(), []) == {}


async def test_an_attempt_whose_fate_is_unknown_is_said_to_be_uncertain() -> None:
    partner = ScriptedPartner(httpx.ReadTimeout("no answer"), httpx.ConnectError("no route"), missing(), created())

    first = await post(host_with(8), partner, [0])
    second = await post(host_with(8), partner, [0])
    assert (first["uncertain"], second.get("uncertain")) == ([0], None)
    assert await post(host_with(8), partner, [0], look_up=True) == {"created": [0]}
