from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from opentelemetry import trace

from shared.durable.durable_client import DurableClient, HostSession, wait_until_finished
from shared.errors import RefusedError
from tests.fakes.durable_host import NOON, PAGE, DurableHost, answer
from tests.fakes.virtual_time import in_virtual_time

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


async def test_starts_an_orchestration_with_its_input_as_json_in_json() -> None:
    host = DurableHost()

    assert await host.client("invocation-7").start("DeliverParcel", "a b/c", {"when": "2026-01-31T00:00:00+01:00"})

    assert host.calls == ["POST orchestrators/DeliverParcel/a%20b%2Fc"]
    assert host.input_of("a b/c") == {"when": "2026-01-31T00:00:00+01:00"}
    assert host.headers[0]["x-azure-functions-invocationid"] == "invocation-7"


async def test_the_trace_of_the_request_goes_along() -> None:
    host = DurableHost()
    context = trace.SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=trace.TraceFlags(1))

    with trace.use_span(trace.NonRecordingSpan(context)):
        await host.client().start("DeliverParcel", "1", {})

    assert host.headers[0]["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"


@pytest.mark.parametrize("status", [409, 500])
async def test_a_living_instance_is_not_started_again(status: int) -> None:
    host = DurableHost()
    host.faults.append(answer(status, {"ExceptionMessage": "An Orchestration instance … already exists."}))

    assert not await host.client().start("DeliverParcel", "1", {})


async def test_finds_an_instance_with_what_was_asked_for() -> None:
    host = DurableHost()
    host.put("1", "DeliverParcel", {"a": 1}, custom_status={"state": "waiting"}, history=[{"EventType": "TaskFailed"}])

    plain = await host.client().find("1")
    full = await host.client().find("1", show_input=True, show_history=True)

    assert plain is not None
    assert full is not None
    assert (plain.name, plain.status, plain.input, plain.created) == ("DeliverParcel", "Running", None, NOON)
    assert (full.input, full.history) == ({"a": 1}, [{"EventType": "TaskFailed"}])
    assert await host.client().find("2") is None


async def test_lists_instances_page_by_page() -> None:
    host = DurableHost()
    for number in range(2 * PAGE + 1):
        status = "Failed" if number in {0, 4} else "Completed"
        host.put(f"parcel-{number}", "DeliverParcel", {}, status=status)
    host.put("parcels-1", "DeliverParcels", {}, status="Failed")
    pages: list[list[str]] = []
    token = None
    while token or not pages:
        page, token = await host.client().list_instances(
            token, runtimeStatus="Failed", createdTimeTo=NOON + timedelta(hours=1), instanceIdPrefix="parcel-", top=2
        )
        pages.append([instance.id for instance in page])

    assert pages == [["parcel-0"], [], ["parcel-4"]], "an empty page may have a next one"
    assert host.calls[0] == (
        "GET instances?runtimeStatus=Failed&createdTimeTo=2026-01-31T13%3A00%3A00%2B00%3A00"
        "&instanceIdPrefix=parcel-&top=2&showInput=false"
    )


@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [
        ("terminate", "Running", "Terminated"),
        ("suspend", "Running", "Suspended"),
        ("resume", "Suspended", "Running"),
        ("rewind", "Failed", "Running"),
    ],
)
async def test_manages_an_instance_that_is_in_the_state_for_it(operation: Any, before: str, after: str) -> None:  # noqa: ANN401 - a literal
    host = DurableHost()
    host.put("1", "DeliverParcel", {}, status=before)
    host.put("2", "DeliverParcel", {}, status="Completed")

    done = [await host.client().manage(operation, id_, "because & why") for id_ in ("1", "2", "3")]

    assert done == [True, False, False]
    assert (host.instances["1"].status, host.instances["1"].reasons) == (after, ["because & why"])


async def test_suspending_what_is_suspended_is_refused_and_no_outage() -> None:
    host = DurableHost()
    host.faults.append(answer(500, {"ExceptionType": "System.InvalidOperationException"}))

    assert not await host.client().manage("suspend", "1", "why")


async def test_purges_what_has_finished() -> None:
    host = DurableHost()
    host.put("1", "DeliverParcel", {}, status="Completed")
    host.put("2", "DeliverParcel", {})

    assert [await host.client().purge(id_) for id_ in ("1", "2", "3")] == [True, False, False]


CALLS: list[Callable[[DurableClient], Awaitable[object]]] = [
    lambda client: client.start("DeliverParcel", "1", {}),
    lambda client: client.find("1"),
    lambda client: client.list_instances(),
    lambda client: client.manage("terminate", "1", "why"),
    lambda client: client.purge("1"),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault", [answer(500, {"Message": "storage is away"}), ConnectionError("refused"), TimeoutError()]
)
async def test_a_host_that_does_not_answer_as_it_should_is_a_503(call: Any, fault: Any) -> None:  # noqa: ANN401 - the parameters above
    host = DurableHost()
    host.faults.append(fault)

    with pytest.raises(RefusedError) as refused:
        await call(host.client())

    assert (refused.value.kind, refused.value.options) == ("unavailable", {"retry_after": 1})


@in_virtual_time
async def test_waits_for_the_end_and_overlooks_a_look_that_failed() -> None:
    host = DurableHost()
    instance = host.put("1", "DeliverParcel", {})
    host.faults.append(answer(500))
    waiting = asyncio.create_task(wait_until_finished(host.client(), "1", 10))
    await asyncio.sleep(3)
    instance.status = "Completed"

    assert (found := await waiting) is not None
    assert found.status == "Completed"
    assert await wait_until_finished(host.client(), "2", 1.0) is None


async def test_a_session_speaks_http_and_reports_a_dead_host() -> None:
    async def instances(request: web.Request) -> web.Response:
        assert request.headers["X-Ms-Continuation-Token"] == "next"
        return web.json_response([], headers={"X-MS-Continuation-Token": "more"})

    app = web.Application()
    app.router.add_get("/durabletask/instances", instances)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    session = HostSession()
    client = DurableClient(json.dumps({"rpcBaseUrl": f"http://127.0.0.1:{port}/durabletask/"}), session)

    assert await client.list_instances(token="next") == ([], "more")
    await runner.cleanup()
    with pytest.raises(RefusedError):
        await client.find("1")
    await session.aclose()
