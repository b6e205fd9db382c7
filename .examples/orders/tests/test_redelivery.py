from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery.batch import BatchBooks, OrderResult, Rejection
from shared.delivery.batch_input import batch_input
from shared.delivery.durable_client import Instance
from shared.delivery.problem import ProblemError
from shared.delivery.redelivery import next_redelivery, redelivery_id, undelivered
from shared.delivery.routes import INSTANCE_ID
from tests.fakes.durable_client import NOON, DurableHost
from tests.fakes.durable_client import Instance as Stored

RECORDS = [business(f"b-{index}") for index in range(6)]


def batch(
    status: str = "Completed", output: object = None, custom_status: object = None, created: datetime | None = None
) -> Instance:
    return Instance("key-1", status, batch_input(RECORDS), output, custom_status, created)


def refusal(instance: Instance) -> int:
    with pytest.raises(ProblemError) as caught:
        undelivered(instance)
    assert json.loads(caught.value.reply.body)["detail"]
    return caught.value.reply.status


def left(instance: Instance) -> list[int]:
    return [RECORDS.index(record) for record in undelivered(instance).records]


def test_of_a_completed_batch_the_rejected_are_left_in_their_order() -> None:
    output = {"rejections": [{"index": 4, "status": 422}, {"index": 1}]}

    assert left(batch(output=output)) == [1, 4]


def test_a_completed_batchs_status_does_not_count() -> None:
    assert left(batch(output={"rejections": [{"index": 1}]}, custom_status={"delivered": "1"})) == [1]


@pytest.mark.parametrize("status", ["Failed", "Terminated"])
@pytest.mark.parametrize(
    ("custom_status", "expected"),
    [
        ({"delivered": "0-2,5", "posting": "3", "rejectedRecords": "4"}, [3, 4]),
        ({"delivered": "0-4"}, [5]),
        ({"total": 6}, [0, 1, 2, 3, 4, 5]),
        (None, [0, 1, 2, 3, 4, 5]),
        ("text", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_of_a_batch_that_was_ended_all_is_left_that_is_not_known_to_be_delivered(
    status: str, custom_status: object, expected: list[int]
) -> None:
    assert left(batch(status, custom_status=custom_status)) == expected


def keys(instance: Instance) -> list[str | None]:
    return undelivered(instance).keys


def test_what_was_given_up_keeps_its_key_and_what_the_partner_has_rejected_gets_a_new_one() -> None:
    assert keys(batch(output={"rejections": [{"index": 4, "status": 422}, {"index": 1}]})) == ["key-1-1", None]


@pytest.mark.parametrize("status", ["Failed", "Terminated"])
def test_what_was_being_posted_when_its_batch_ended_keeps_its_key(status: str) -> None:
    shown = {"delivered": "0-2", "posting": "3", "rejectedRecords": "4"}
    assert keys(batch(status, custom_status=shown)) == ["key-1-3", None, "key-1-5"]


def test_a_key_is_kept_through_any_number_of_redeliveries() -> None:
    first = undelivered(batch(output={"rejections": [{"index": 4}, {"index": 1, "status": 422}]}))
    again = Instance("key-1-redelivery-1", "Terminated", batch_input(first.records, first.keys))

    assert keys(again) == ["key-1-redelivery-1-0", "key-1-4"]


async def test_a_redelivery_passes_over_ids_that_stand_for_others() -> None:
    host = DurableHost()
    ended = batch("Terminated", created=NOON)
    later, earlier = NOON + timedelta(seconds=1), NOON - timedelta(seconds=1)
    ours = batch_input(RECORDS)
    others = json.dumps(batch_input(RECORDS[:2]))
    # Other records, and the same ones of the batch that had the id before.
    host.instances["key-1-redelivery-1"] = Stored("DeliverBatch", others, "Completed", created=later)
    host.instances["key-1-redelivery-2"] = Stored("DeliverBatch", json.dumps(ours), "Completed", created=earlier)

    assert await redelivery_id(host.client(), ended, ours) == "key-1-redelivery-3"
    host.instances["key-1-redelivery-3"] = Stored("DeliverBatch", json.dumps(ours), "Completed", created=later)
    assert await redelivery_id(host.client(), ended, ours) == "key-1-redelivery-3"


async def test_a_batch_that_was_redelivered_too_often_is_a_409() -> None:
    host = DurableHost()
    others = json.dumps(batch_input(RECORDS[:2]))
    for number in range(1, 101):
        host.instances[f"key-1-redelivery-{number}"] = Stored("DeliverBatch", others, "Completed")

    with pytest.raises(ProblemError) as caught:
        await redelivery_id(host.client(), batch("Terminated"), batch_input(RECORDS))
    assert caught.value.reply.status == 409
    assert "key-1-redelivery-100" in json.loads(caught.value.reply.body)["detail"]


@pytest.mark.parametrize(
    "instance",
    [
        Instance("key-1", "Completed", {"packed": batch_input([])["packed"]}, {"rejections": []}),
        Instance("key-1", "Completed", {"businesses": 5}, {"rejections": []}),
        Instance("key-1", "Completed", {"business": RECORDS[0], **batch_input(RECORDS)}, {"outcome": "created"}),
        batch(output={"rejections": [{"index": 6}]}),
        batch(output={"rejections": [{"index": "1"}]}),
        batch(output={"rejections": ["1"]}),
        batch(output="text"),
        batch("Failed", custom_status={"delivered": "a-b"}),
        batch("Failed", custom_status={"delivered": 5}),
        Instance("key-1", "Failed", {**batch_input(RECORDS), "keys": "AAAA"}),
        Instance("key-1", "Failed", {**batch_input(RECORDS), "keys": batch_input([RECORDS[0]])["packed"]}),
        Instance("key-1", "Failed", batch_input(RECORDS, ["a\r\nb: c", *[None] * 5])),
    ],
)
def test_what_somebody_else_has_started_as_a_batch_is_a_409(instance: Instance) -> None:
    assert refusal(instance) == 409


@pytest.mark.parametrize("status", ["Pending", "Running", "Suspended", "ContinuedAsNew"])
def test_a_batch_that_goes_on_is_a_409(status: str) -> None:
    assert refusal(batch(status)) == 409


@pytest.mark.parametrize(
    "instance",
    [
        batch(output={"rejections": []}),
        batch("Failed", custom_status={"delivered": "0-5"}),
        batch("Terminated", custom_status={"delivered": "0-5"}),
    ],
)
def test_a_batch_with_nothing_left_is_a_409(instance: Instance) -> None:
    assert refusal(instance) == 409


@pytest.mark.parametrize("input_", [None, "text", [], {"business": RECORDS[0]}])
def test_what_is_no_batch_is_a_404(input_: Any) -> None:  # noqa: ANN401 - any JSON
    assert refusal(Instance("key-1", "Completed", input_, {"rejections": []})) == 404


@pytest.mark.parametrize("wrong", [{"packed": "AAAA"}, {"total": 5}, {"packed": None}])
def test_a_batch_that_was_not_made_here_is_a_409(wrong: dict[str, Any]) -> None:
    assert refusal(Instance("key-1", "Failed", batch_input(RECORDS) | wrong)) == 409


@given(
    st.lists(st.sampled_from(["created", "exists", "rejected", "open"]), min_size=1, max_size=40),
    st.sampled_from(["Completed", "Failed", "Terminated"]),
)
def test_what_is_delivered_and_what_is_left_are_the_whole_batch(fates: list[str], status: str) -> None:
    records = [{"externalId": f"b-{index}"} for index in range(len(fates))]
    books = BatchBooks(len(fates), set())

    def of(fate: str) -> list[int]:
        return [index for index, its in enumerate(fates) if its == fate]

    rejections = [Rejection(index, f"b-{index}", "no") for index in of("rejected")]
    books.enter(OrderResult(created=of("created"), exists=of("exists"), rejected=rejections))
    if status == "Completed":
        books.enter(OrderResult(rejected=[Rejection(index, f"b-{index}", "given up") for index in of("open")]))
    shown = json.loads(json.dumps({"output": books.result(), "status": books.progress(posting=of("open"))}))
    instance = Instance("key-1", status, batch_input(records), shown["output"], shown["status"])

    expected = [records[index] for index in sorted([*of("rejected"), *of("open")])]
    if expected:
        assert undelivered(instance).records == expected
    else:
        assert refusal(instance) == 409


@pytest.mark.parametrize(
    ("instance_id", "expected"),
    [
        ("key-1", "key-1-redelivery-1"),
        ("key-1-redelivery-1", "key-1-redelivery-2"),
        ("key-1-redelivery-9", "key-1-redelivery-10"),
        ("key-1-redelivery-", "key-1-redelivery--redelivery-1"),
        ("key-1-redelivery-x", "key-1-redelivery-x-redelivery-1"),
        ("key-1-redelivery-1-redelivery-1", "key-1-redelivery-1-redelivery-2"),
        ("-redelivery-1", "-redelivery-2"),
        ("a-redelivery--1", "a-redelivery--1-redelivery-1"),
    ],
)
def test_a_redelivery_has_an_id_that_counts_on(instance_id: str, expected: str) -> None:
    assert next_redelivery(instance_id) == expected


def test_a_batch_can_be_redelivered_very_often() -> None:
    instance_id = "key-" + "f" * 40
    seen = {instance_id}
    for _ in range(2_000):
        instance_id = next_redelivery(instance_id)
        assert INSTANCE_ID.fullmatch(instance_id)
        assert instance_id not in seen
        seen.add(instance_id)
