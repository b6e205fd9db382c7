from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from shared.durable.durable_client import Instance
from shared.durable.inputs import DeliveryOptions, batch_input, single_input
from shared.durable.starting import keyed_id
from shared.http import deliveries
from shared.http.deliveries import STATES, events_of, record_states, state_of, view
from shared.http.messages import Reply, Request, answered
from shared.rules.retry import RetryPolicy
from tests.fakes.durable_host import NOON, DurableHost, answer
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Awaitable

TEXTS = [b'{"parcelId": "P-%d", "weight": 1}' % number for number in range(4)]
ONE = single_input(TEXTS[0], DeliveryOptions())
OPTIONS = DeliveryOptions.of_batch(RetryPolicy(60, 1, 10), 5, 50, 100)
DELIVERED = {"state": "delivered", "recordId": "P-0", "outcome": "created", "attempts": 1}
NOW = NOON + timedelta(minutes=1)


def asked(id_: str = "", **query: str) -> Request:
    return Request("GET", "https://app/api/deliveries", {}, params={"id": id_}, query=query)


async def content(work: Awaitable[Reply]) -> tuple[Reply, dict[str, Any]]:
    reply = await answered(work)
    return reply, msgspec.json.decode(reply.body)


async def listed(host: DurableHost, **query: str) -> dict[str, Any]:
    return (await content(deliveries.list_deliveries(asked(**query), host.client(), [PARCEL], NOW)))[1]


def with_deliveries(*outputs: dict[str, Any]) -> DurableHost:
    """Return a host with a completed delivery for each output; the first one is the oldest."""
    host = DurableHost()
    for number, output in enumerate(outputs):
        created = NOON + timedelta(seconds=number)
        host.put(f"parcel-{number}", "DeliverParcel", ONE, status="Completed", output=output, created=created)
    return host


async def test_a_page_is_newest_first_and_the_next_one_keeps_its_moment_and_filters() -> None:
    host = with_deliveries(DELIVERED, DELIVERED, DELIVERED)
    host.put("other-1", "SomebodyElses", {})

    page = await listed(host, state="delivered", code="secret")
    following = dict(part.split("=") for part in page["nextLink"].partition("?")[2].split("&"))
    rest = await listed(host, token=following["token"])

    assert [each["id"] for each in page["deliveries"]] == ["parcel-1", "parcel-0"]
    assert [each["id"] for each in rest["deliveries"]] == ["parcel-2"]
    assert "nextLink" not in rest
    assert following.keys() == {"state", "from", "token"}
    assert following["from"].startswith("2026-01-30T12")
    assert "output" not in page["deliveries"][0]
    assert page["deliveries"][0]["outcome"] == "created"


async def test_states_that_durable_does_not_know_are_told_apart() -> None:
    host = with_deliveries(DELIVERED, {**DELIVERED, "state": "rejected"})

    assert [each["id"] for each in (await listed(host, state="rejected,failed"))["deliveries"]] == ["parcel-1"]
    assert "runtimeStatus=Completed%2CFailed" in host.calls[-1]


async def test_finds_the_delivery_of_an_idempotency_key() -> None:
    host = DurableHost()
    host.put(keyed_id(PARCEL, "k"), "DeliverParcel", ONE)

    assert [each["id"] for each in (await listed(host, key="k"))["deliveries"]] == [keyed_id(PARCEL, "k")]
    assert (await listed(host, key="other"))["deliveries"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"state": "gone"},
        {"resource": "Letter"},
        *({"top": top} for top in ("0", "101", "x", "-1", "1.5")),
        {"from": "yesterday"},
        {"to": "yesterday"},
        {"token": "a b"},
        {"token": "x\r\ny: z", "key": "k"},
        {"key": "a b"},
    ],
)
async def test_a_filter_that_makes_no_sense_is_400(query: dict[str, str]) -> None:
    reply, told = await content(deliveries.list_deliveries(asked(**query), DurableHost().client(), [PARCEL], NOW))

    assert (reply.status, told["type"]) == (400, "/api/docs#malformed")


async def test_a_token_that_durable_refuses_is_400_and_durable_without_an_answer_503() -> None:
    host = DurableHost()
    host.faults.extend([answer(400, {"Message": "Invalid continuation token"}), OSError("refused")])

    statuses = [
        (await content(deliveries.list_deliveries(asked(**query), host.client(), [PARCEL], NOW)))[0].status
        for query in ({"token": "abc"}, {})
    ]

    assert statuses == [400, 503]


async def test_a_delivery_is_202_with_links_while_it_goes_on_and_200_at_its_end() -> None:
    host = DurableHost()
    waiting = {"state": "waiting", "recordId": "P-0", "attempts": 2, "nextAttempt": "2026-01-31T13:00:00Z"}
    instance = host.put("parcel-1", "DeliverParcel", ONE, custom_status=waiting)

    going, told = await content(deliveries.get_delivery(asked("parcel-1"), host.client(), [PARCEL]))
    instance.status, instance.output = "Completed", DELIVERED
    ended, result = await content(deliveries.get_delivery(asked("parcel-1"), host.client(), [PARCEL]))

    assert (going.status, going.headers["location"]) == (202, "https://app/api/deliveries/parcel-1")
    assert (told["state"], told["nextAttempt"], told["createdTime"]) == (
        "waiting",
        "2026-01-31T13:00:00Z",
        "2026-01-31T12:00:00Z",
    )
    assert (ended.status, result["state"], result["attempts"]) == (200, "delivered", 1)
    assert "nextAttempt" not in result
    assert (result["runtimeStatus"], result["output"]) == ("Completed", DELIVERED)


@pytest.mark.parametrize("id_", ["none", "..", "a/b", "x" * 101, "foreign"])
async def test_what_is_no_delivery_of_ours_is_404(id_: str) -> None:
    host = DurableHost()
    host.put("foreign", "SomebodyElses", {})

    reply, _ = await content(deliveries.get_delivery(asked(id_), host.client(), [PARCEL]))

    assert reply.status == 404


@pytest.mark.parametrize(
    ("status", "told", "state"),
    [
        ("Pending", None, "accepted"),
        ("Running", None, "delivering"),
        ("Running", {"state": "waiting"}, "waiting"),
        ("Running", {"state": "nonsense"}, "delivering"),
        ("ContinuedAsNew", {"state": "waiting"}, "waiting"),
        ("Completed", {"state": "partly"}, "partly"),
        ("Completed", "text", "delivered"),
        ("Suspended", {"state": "waiting"}, "suspended"),
        ("Terminated", {"state": "delivering"}, "cancelled"),
        ("Failed", {"state": "delivering"}, "failed"),
        ("Unheard", None, "failed"),
    ],
)
def test_the_state_comes_from_what_was_told_or_from_durable(status: str, told: Any, state: str) -> None:  # noqa: ANN401, any JSON
    assert state_of(Instance("1", "DeliverParcel", status, NOON, NOON, output=told, custom_status=told)) == state
    assert state in STATES


def test_the_reason_of_what_somebody_ended_is_theirs() -> None:
    instance = Instance(
        "1", "DeliverParcel", "Terminated", NOON, NOON, output="enough", custom_status={"reason": "503"}
    )

    assert view(asked(), instance, "Parcel")["reason"] == "enough"


def test_each_record_of_a_batch_has_its_own_state() -> None:
    told = {"createdRecords": "0", "existsRecords": "1", "rejectedRecords": "2"}
    input_ = batch_input(TEXTS, DeliveryOptions())
    going = Instance("1", "DeliverParcelBatch", "Running", NOON, NOON, input_, custom_status=told)
    rejection = {"index": 2, "recordId": "P-2", "state": "rejected", "reason": "No", "status": 422}
    ended = Instance("1", "DeliverParcelBatch", "Completed", NOON, NOON, input_, {"rejections": [rejection]}, told)

    assert [each["state"] for each in record_states(going, PARCEL)] == ["created", "exists", "rejected", "pending"]
    assert record_states(ended, PARCEL)[2] == rejection
    assert record_states(ended, PARCEL)[3]["recordId"] == "P-3"


async def test_what_can_be_done_depends_on_the_state() -> None:
    host = DurableHost()
    host.put("parcel-1", "DeliverParcel", ONE)

    async def act(verb: str) -> tuple[int, str]:
        reply, told = await content(deliveries.act(asked("parcel-1"), host.client(), [PARCEL], verb))
        return reply.status, told["state"] if reply.status == 202 else told["type"].rpartition("#")[2]

    done = [await act(verb) for verb in ("resume", "suspend", "suspend", "resume", "cancel", "cancel")]

    assert done == [
        (409, "wrong-state"),
        (202, "delivering"),
        (409, "wrong-state"),
        (202, "suspended"),
        (202, "delivering"),
        (409, "wrong-state"),
    ]
    assert host.instances["parcel-1"].reasons[-1] == "cancel through the deliveries API"


async def test_what_is_left_is_redelivered_under_one_id() -> None:
    host = with_deliveries({**DELIVERED, "state": "rejected", "status": 422}, DELIVERED)
    redeliver = partial(
        deliveries.redeliver,
        client=host.client(),
        resources=[PARCEL],
        options=lambda _: OPTIONS,
        call_timeout=lambda _: 30,
    )

    first, again = [(await content(redeliver(asked("parcel-0"))))[1]["id"] for _ in range(2)]
    nothing, _ = await content(redeliver(asked("parcel-1")))

    assert first == again == "parcel-0-redelivery-1"
    assert host.instances[first].starts == 1
    assert nothing.status == 409


def test_a_history_is_told_as_attempts_and_waits_with_their_times() -> None:
    def at(second: int) -> str:
        return f"2026-01-31T12:00:{second:02}Z"

    history: list[dict[str, Any]] = [
        {"EventType": "ExecutionStarted", "Timestamp": at(0)},
        {
            "EventType": "TaskCompleted",
            "ScheduledTime": at(1),
            "Timestamp": at(3),
            "Result": {"outcome": "deferred", "status": 503},
        },
        {"EventType": "TimerCreated", "Timestamp": at(3), "FireAt": at(8)},
        {"EventType": "TimerFired", "Timestamp": at(9), "FireAt": at(8)},
        {"EventType": "TaskFailed", "ScheduledTime": at(9), "Timestamp": at(10), "Reason": "exited with code 137"},
        {
            "EventType": "TaskCompleted",
            "ScheduledTime": at(11),
            "Timestamp": at(12),
            "Result": {"outcomes": {"0": {"outcome": "created"}, "1": {"outcome": "created"}}},
        },
        {"EventType": "ExecutionTerminated", "Timestamp": at(13), "Input": "enough"},
    ]

    events = events_of(history)

    assert [event["type"] for event in events] == ["started", "attempt", "wait", "attempt", "attempt", "cancelled"]
    assert (events[1]["seconds"], events[1]["outcome"], events[1]["status"]) == (2, "deferred", 503)
    assert (events[2]["time"], events[2]["end"], events[2]["seconds"]) == (at(3), at(8), 5)
    assert (events[3]["outcome"], events[3]["reason"]) == ("failed", "exited with code 137")
    assert (events[4]["outcome"], events[4]["records"]) == ("created", 2)
    assert events[5]["reason"] == "enough"


async def test_a_history_is_that_of_the_delivery() -> None:
    host = with_deliveries(DELIVERED)
    host.instances["parcel-0"].history = [{"EventType": "ExecutionStarted", "Timestamp": "2026-01-31T12:00:00"}]

    _, told = await content(deliveries.get_history(asked("parcel-0"), host.client(), [PARCEL]))

    assert told == {
        "id": "parcel-0",
        "state": "delivered",
        "events": [{"type": "started", "time": "2026-01-31T12:00:00"}],
    }
    assert datetime.now(UTC) > NOON
