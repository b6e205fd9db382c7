from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery.batch import BatchBooks, OrderResult, Rejection
from shared.delivery.batch_input import batch_input
from shared.delivery.durable_client import Instance
from shared.delivery.problem import ProblemError
from shared.delivery.redelivery import redelivery_id, undelivered
from shared.delivery.routes import INSTANCE_ID

RECORDS = [business(f"b-{index}") for index in range(6)]


def batch(status: str = "Completed", output: object = None, custom_status: object = None) -> Instance:
    return Instance("key-1", status, batch_input(RECORDS), output, custom_status)


def refusal(instance: Instance) -> int:
    with pytest.raises(ProblemError) as caught:
        undelivered(instance)
    assert json.loads(caught.value.reply.body)["detail"]
    return caught.value.reply.status


def left(instance: Instance) -> list[int]:
    return [RECORDS.index(record) for record in undelivered(instance)]


def test_of_a_completed_batch_the_rejected_are_left_in_their_order() -> None:
    output = {"rejections": [{"index": 4}, {"index": 1}]}

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
        assert undelivered(instance) == expected
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
    assert redelivery_id(instance_id) == expected


def test_a_batch_can_be_redelivered_very_often() -> None:
    instance_id = "key-" + "f" * 40
    seen = {instance_id}
    for _ in range(2_000):
        instance_id = redelivery_id(instance_id)
        assert INSTANCE_ID.fullmatch(instance_id)
        assert instance_id not in seen
        seen.add(instance_id)
