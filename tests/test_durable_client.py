from __future__ import annotations

import asyncio
import json
import uuid
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sandbox.sample import business
from shared.delivery.durable_client import FINISHED, POLL_AFTER, accepted, find, start_once, wait_until_finished
from shared.delivery.exchange import Request
from shared.delivery.problem import ProblemError
from tests.fakes.durable_client import ALIVE, BROKEN, EXISTS, DurableHost, Instance
from tests.fakes.fast_loop import run_fast

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from shared.delivery.exchange import Reply

INPUT = {"business": business("b-1", size=1.0, big=2**64 - 1), "lookUp": "always"}
UNREACHABLE = [
    aiohttp.ClientConnectionError("refused"),
    TimeoutError(),
    KeyError("ExceptionMessage"),
    [503, "busy"],
    BROKEN,
]


async def refusal(work: Coroutine[Any, Any, object]) -> Reply:
    with pytest.raises(ProblemError) as caught:
        await work
    return caught.value.reply


def detail(reply: Reply) -> str:
    return str(json.loads(reply.body)["detail"])


async def test_an_instance_that_is_not_there_is_none() -> None:
    assert await find(DurableHost().client(), "key-1") is None


async def test_an_instance_is_found_with_its_input_as_it_was() -> None:
    host = DurableHost()
    await host.client().start_new("DeliverBusiness", "key-1", INPUT)

    found = await find(host.client(), "key-1", show_input=True)
    assert found is not None
    assert (found.id, found.status, found.input) == ("key-1", "Running", INPUT)


async def test_the_input_is_not_asked_for_where_nobody_wants_it() -> None:
    host = DurableHost()
    await host.client().start_new("DeliverBusiness", "key-1", INPUT)

    found = await find(host.client(), "key-1")
    assert found is not None
    assert found.input is None


@pytest.mark.parametrize("input_", [INPUT, json.dumps(INPUT), json.dumps(json.dumps(INPUT))])
async def test_the_input_is_read_however_often_it_was_escaped(input_: object) -> None:
    host = DurableHost()
    host.instances["key-1"] = Instance("DeliverBusiness", input_)

    found = await find(host.client(), "key-1", show_input=True)
    assert found is not None
    assert found.input == INPUT


@pytest.mark.parametrize(("input_", "value"), [("plain text", "plain text"), (None, None), ("null", None), ("7", 7)])
async def test_an_input_of_another_orchestration_is_read_as_far_as_it_goes(input_: object, value: object) -> None:
    host = DurableHost()
    host.instances["key-1"] = Instance("Other", input_)

    found = await find(host.client(), "key-1", show_input=True)
    assert found is not None
    assert found.input == value


@pytest.mark.parametrize("status", sorted(ALIVE | FINISHED | {"ContinuedAsNew", "Canceled"}))
async def test_every_status_of_the_host_is_known(status: str) -> None:
    host = DurableHost()
    host.instances["key-1"] = Instance("DeliverBusiness", "{}", status, {"a": 1}, {"b": 2})

    found = await find(host.client(), "key-1")
    assert found is not None
    assert (found.status, found.output, found.custom_status) == (status, {"a": 1}, {"b": 2})


@pytest.mark.parametrize("fault", UNREACHABLE)
async def test_a_state_that_cannot_be_read_is_a_503(fault: Any, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN401 - an answer or an exception
    host = DurableHost()
    host.read_faults.append(fault)

    reply = await refusal(find(host.client(), "key-1"))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert "with the same Idempotency-Key" in detail(reply)
    [line] = caplog.records
    assert (line.getMessage(), vars(line)["instance_id"]) == ("orchestration not found out", "key-1")


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
    other = {"business": business("b-1", note="Bob")}

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
    turned = dict(reversed(list(INPUT["business"].items())))  # type: ignore[attr-defined]  # it is a dict

    await start_once(host.client(), "DeliverBusiness", "key-1", {"lookUp": "uncertain", "business": turned})
    assert host.instances["key-1"].starts == 1


@pytest.mark.parametrize(
    "other",
    [
        {"business": business("b-1", note="Bob")},
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
    other = {"business": business("b-1", note="Bob")}
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


async def test_accepted_shows_where_the_instance_can_be_watched_on_the_host_that_was_asked() -> None:
    request = Request("https://app.example/api/businesses", {})

    reply = accepted(DurableHost().client(), request, "key-1")
    links = json.loads(reply.body)
    base = "https://app.example/runtime/webhooks/durabletask/instances/key-1"
    assert reply.status == 202
    assert reply.headers["location"] == links["statusQueryGetUri"] == f"{base}?code=system-key"
    assert reply.headers["retry-after"] == str(POLL_AFTER)
    assert links["id"] == "key-1"
    assert links["terminatePostUri"] == f"{base}/terminate?reason={{text}}&code=system-key"


def finishing_after(looks: int, status: str = "Completed") -> DurableHost:
    host = DurableHost()
    host.instances["key-1"] = Instance("DeliverBusiness", "{}")

    def finish(instance: Instance) -> None:
        if instance.looks > looks:
            instance.status, instance.output = status, {"outcome": "created"}

    host.on_read = finish
    return host


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_a_finished_instance_is_given_at_once(status: str) -> None:
    host = finishing_after(0, status)

    instance, waited = run_fast(wait_until_finished(host.client(), "key-1", 20))
    assert instance is not None
    assert (instance.status, instance.output, waited) == (status, {"outcome": "created"}, 0)


def test_an_instance_is_given_soon_after_it_has_finished() -> None:
    instance, waited = run_fast(wait_until_finished(finishing_after(3).client(), "key-1", 20))

    assert instance is not None
    assert waited == pytest.approx(0.05 + 0.1 + 0.2)


def test_an_instance_that_takes_longer_is_none_after_the_time_that_was_given() -> None:
    host = finishing_after(10**6)

    instance, waited = run_fast(wait_until_finished(host.client(), "key-1", 20))
    assert instance is None
    assert waited == pytest.approx(20)
    assert host.instances["key-1"].looks < 30


def test_a_look_that_fails_is_followed_by_another() -> None:
    host = finishing_after(0)
    host.read_faults.extend([aiohttp.ClientConnectionError("refused"), BROKEN])

    instance, waited = run_fast(wait_until_finished(host.client(), "key-1", 20))
    assert instance is not None
    assert waited == pytest.approx(0.15)


def test_looks_that_all_fail_see_nothing() -> None:
    host = finishing_after(0)
    host.read_faults.extend([BROKEN] * 100)

    instance, waited = run_fast(wait_until_finished(host.client(), "key-1", 5))
    assert instance is None
    assert waited == pytest.approx(5)


def test_an_instance_that_is_not_there_yet_is_waited_for() -> None:
    instance, waited = run_fast(wait_until_finished(DurableHost().client(), "key-1", 0.5))

    assert instance is None
    assert waited == pytest.approx(0.5)
