"""Durable functions of every shape that the host's tests need."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import azure.durable_functions as df
import azure.functions as func

if TYPE_CHECKING:
    from collections.abc import Generator

    Orchestration = Generator[Any, Any, Any]

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)

# Where activities leave a trace of themselves, and wait for one another.
DIARY = Path(os.environ.get("DIARY_FOLDER", "."))


async def until_exists(path: Path) -> None:
    async with asyncio.timeout(30):
        while not path.exists():
            await asyncio.sleep(0.01)


def note(name: str) -> None:
    with (DIARY / name).open("a") as file:
        file.write(f"{os.getpid()}\n")


@app.route(route="start/{name}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(
    req: func.HttpRequest, client: df.DurableOrchestrationClient, context: func.Context
) -> func.HttpResponse:
    instance_id = await client.start_new(
        req.route_params["name"], req.params.get("id"), json.loads(req.get_body() or b"null")
    )
    response: func.HttpResponse = client.create_check_status_response(req, instance_id)
    return response


@app.orchestration_trigger(context_name="context")
def chain(context: df.DurableOrchestrationContext) -> Orchestration:
    first = yield context.call_activity("greet", context.get_input())
    second = yield context.call_activity("greet_sync", first)
    return [first, second]


@app.orchestration_trigger(context_name="context")
def echo(context: df.DurableOrchestrationContext) -> Orchestration:
    return (yield context.call_activity("repeat", context.get_input()))


@app.orchestration_trigger(context_name="context")
def not_a_generator(context: df.DurableOrchestrationContext) -> dict[str, Any]:
    return {"input": context.get_input(), "id": context.instance_id, "version": context.version}


@app.orchestration_trigger(context_name="context")
def first_of(context: df.DurableOrchestrationContext) -> Orchestration:
    tasks = [context.call_activity("wait_for_file", name) for name in context.get_input()]
    winner = yield context.task_any(tasks)
    return winner.result


@app.orchestration_trigger(context_name="context")
def timer(context: df.DurableOrchestrationContext) -> Orchestration:
    started = context.current_utc_datetime
    yield context.create_timer(started + timedelta(seconds=context.get_input()))
    return (context.current_utc_datetime - started).total_seconds()


@app.orchestration_trigger(context_name="context")
def approval(context: df.DurableOrchestrationContext) -> Orchestration:
    deadline = context.create_timer(context.current_utc_datetime + timedelta(seconds=context.get_input()))
    event = context.wait_for_external_event("go")
    context.set_custom_status({"waiting": True})
    winner = yield context.task_any([event, deadline])
    if winner == event:
        deadline.cancel()
        return {"approved": event.result}
    return "too late"


@app.orchestration_trigger(context_name="context")
def uncancelled(context: df.DurableOrchestrationContext) -> Orchestration:
    deadline = context.create_timer(context.current_utc_datetime + timedelta(seconds=context.get_input()))
    yield context.task_any([deadline, context.wait_for_external_event("go")])
    return "done"


@app.orchestration_trigger(context_name="context")
def events(context: df.DurableOrchestrationContext) -> Orchestration:
    got = []
    for _ in range(context.get_input()):
        got.append((yield context.wait_for_external_event("go")))
        context.set_custom_status(len(got))
    return got


@app.orchestration_trigger(context_name="context")
def parent(context: df.DurableOrchestrationContext) -> Orchestration:
    given = context.get_input()
    return (yield context.call_sub_orchestrator(given["name"], given["input"], given.get("id")))


@app.orchestration_trigger(context_name="context")
def failing(context: df.DurableOrchestrationContext) -> Orchestration:
    yield context.call_activity("greet", "x")
    raise ValueError(f"no {context.get_input()}")


@app.orchestration_trigger(context_name="context")
def calls_failing_activity(context: df.DurableOrchestrationContext) -> Orchestration:
    try:
        yield context.call_activity("fail", context.get_input())
    except Exception as error:  # noqa: BLE001 - the SDK raises no other
        return str(error)


@app.orchestration_trigger(context_name="context")
def not_deterministic(context: df.DurableOrchestrationContext) -> Orchestration:
    name = "note_run" if (DIARY / "second_run").exists() else "wait_for_file"
    yield context.call_activity(name, "second_run")


@app.orchestration_trigger(context_name="context")
def interrupted(context: df.DurableOrchestrationContext) -> Orchestration:
    """Waits, in its first activity and in the second, for a file that the test makes."""
    first = yield context.call_activity("wait_for_file", "first")
    yield context.create_timer(context.current_utc_datetime + timedelta(seconds=0.2))
    second = yield context.call_activity("wait_for_file", "second")
    return [first, second]


@app.orchestration_trigger(context_name="context")
def ends_its_worker_once(context: df.DurableOrchestrationContext) -> Orchestration:
    """Ends the worker process in the midst of the orchestrator's own first run."""
    if not (DIARY / "orchestrator").exists():
        note("orchestrator")
        os.kill(os.getpid(), 9)
    return (yield context.call_activity("greet", "again"))


@app.orchestration_trigger(context_name="context")
def traced(context: df.DurableOrchestrationContext) -> Orchestration:
    own = yield context.call_activity("trace_parent", None)
    child = yield context.call_sub_orchestrator("traced_child", None)
    return [own, child]


@app.orchestration_trigger(context_name="context")
def traced_child(context: df.DurableOrchestrationContext) -> Orchestration:
    return (yield context.call_activity("trace_parent", None))


@app.activity_trigger(input_name="name")
async def greet(name: str) -> str:
    return f"Hello {name}"


@app.activity_trigger(input_name="name")
def greet_sync(name: str) -> str:
    return f"Hi {name}"


@app.activity_trigger(input_name="value")
async def repeat(value: object) -> object:
    return value


@app.activity_trigger(input_name="name")
async def note_run(name: str) -> None:
    note(name)


@app.activity_trigger(input_name="name")
async def wait_for_file(name: str) -> str:
    note(f"{name}.started")
    await until_exists(DIARY / name)
    return name


@app.activity_trigger(input_name="what")
async def fail(what: str) -> None:
    if what == "cancelled":
        raise asyncio.CancelledError
    raise RuntimeError(f"cannot {what}")


@app.activity_trigger(input_name="nothing")
async def trace_parent(nothing: str, context: func.Context) -> str:
    return str(context.trace_context.trace_parent)
