from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from sandbox.sample import business
from shared.delivery.durable_client import FINISHED, POLL_AFTER, accepted, find, wait_until_finished
from shared.delivery.exchange import Request
from shared.delivery.problem import ProblemError
from tests.fakes.durable_client import ALIVE, BROKEN, DurableHost, Instance
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
