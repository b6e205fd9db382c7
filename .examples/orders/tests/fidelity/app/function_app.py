# mypy: ignore-errors
"""A function app that exercises what a host does; it has no other use. The same file runs on the Functions host and on the sandbox."""

import asyncio
import base64
import json
import time
from datetime import timedelta

import azure.durable_functions as df
import azure.functions as func

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def shown(value) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(value, default=repr, sort_keys=True), mimetype="application/json")


# HTTP: what arrives, what leaves, which route wins. The host tries functions in the order of their names.


@app.function_name("Echo")
@app.route(route="echo/{first}/{second?}", methods=METHODS)
def echo(req: func.HttpRequest) -> func.HttpResponse:
    body = req.get_body()
    return shown({
        "method": req.method, "url": req.url, "headers": dict(req.headers), "params": dict(req.params),
        "route_params": dict(req.route_params), "length": len(body), "body": base64.b64encode(body[:200]).decode(), "form": dict(req.form),
    })


@app.function_name("MatchB")
@app.route(route="match/{x}", methods=["GET"])
def match_b(req: func.HttpRequest) -> func.HttpResponse:
    return shown(["MatchB", dict(req.route_params)])


@app.function_name("MatchC")
@app.route(route="match/literal", methods=["GET"])
def match_c(req: func.HttpRequest) -> func.HttpResponse:
    return shown(["MatchC"])


@app.function_name("MatchA")
@app.route(route="match/{x:int}", methods=["GET"])
def match_a(req: func.HttpRequest) -> func.HttpResponse:
    return shown(["MatchA", dict(req.route_params)])


@app.function_name("MatchD")
@app.route(route="match/post", methods=["POST"])
def match_d(req: func.HttpRequest) -> func.HttpResponse:
    return shown(["MatchD"])


@app.function_name("TheRest")
@app.route(route="{*path}", methods=["GET", "POST"])
def the_rest(req: func.HttpRequest) -> func.HttpResponse:
    return shown(["TheRest", dict(req.route_params)])


@app.function_name("Zulu")
@app.route(route="zulu", methods=["GET"])
def zulu(req: func.HttpRequest) -> func.HttpResponse:
    return shown(["Zulu"])


@app.function_name("Respond")
@app.route(route="respond/{what}", methods=["GET", "HEAD", "POST"])
async def respond(req: func.HttpRequest):
    what = req.route_params["what"]
    if what == "text":
        return func.HttpResponse("plain")
    if what == "bytes":
        return func.HttpResponse(b"\x00\xff\x80")
    if what == "empty":
        return func.HttpResponse(status_code=204)
    if what == "204-body":
        return func.HttpResponse("body", status_code=204)
    if what == "304":
        return func.HttpResponse("body", status_code=304)
    if what == "string":
        return "returned as text"
    if what == "none":
        return None
    if what == "number":
        return 5
    if what == "headers":
        return func.HttpResponse("x", headers={"X-One": "1", "x-one-more": "\u00e9", "Location": "/elsewhere", "Retry-After": "7", "Cache-Control": "max-age=5", "Server": "mine", "Content-Length": "99"}, status_code=201)
    if what == "cookie":
        return func.HttpResponse("x", headers={"Set-Cookie": "a=1; Path=/; HttpOnly"})
    if what == "type":
        return func.HttpResponse("{}", mimetype="application/problem+json", charset="utf-8")
    if what == "type-in-headers":
        return func.HttpResponse("{}", headers={"Content-Type": "application/x-ndjson"})
    if what == "299":
        return func.HttpResponse("x", status_code=299)
    if what == "599":
        return func.HttpResponse("x", status_code=599)
    if what == "big":
        return func.HttpResponse("x" * 5_000_000)
    if what == "raise":
        raise ValueError("told by the function: \u00e9")
    if what == "exit":
        raise SystemExit(3)
    if what == "slow":
        await asyncio.sleep(2)
        return func.HttpResponse("slow")
    if what == "too-slow":
        await asyncio.sleep(25)
        return func.HttpResponse("too slow")
    return func.HttpResponse("?", status_code=400)


# Durable: starting and asking, by the client of the SDK.


@app.function_name("Start")
@app.route(route="start/{orchestrator}/{id?}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    body = req.get_body()
    try:
        instance = await client.start_new(req.route_params["orchestrator"], req.route_params.get("id"), json.loads(body) if body else None)
    except Exception as error:
        return shown({"type": type(error).__name__, "text": str(error)})
    return client.create_check_status_response(req, instance)


@app.function_name("Hold")
@app.route(route="hold/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def hold(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    return await client.wait_for_completion_or_create_check_status_response(req, req.route_params["id"], 3000, 200)


@app.function_name("Client")
@app.route(route="client/{operation}/{id}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def ask(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    operation, instance = req.route_params["operation"], req.route_params["id"]
    try:
        if operation == "status":
            found = await client.get_status(instance, show_history=True, show_history_output=True, show_input=True)
            return shown(found.to_json())
        if operation == "count":
            return shown(len(await client.get_status_all()))
        if operation == "by":
            found = await client.get_status_by(runtime_status=[df.OrchestrationRuntimeStatus[instance]])
            return shown(sorted({str(each.runtime_status) for each in found}))
        if operation == "terminate":
            return shown(await client.terminate(instance, "because"))
        if operation == "suspend":
            return shown(await client.suspend(instance, "because"))
        if operation == "resume":
            return shown(await client.resume(instance, "because"))
        if operation == "rewind":
            return shown(await client.rewind(instance, "because"))
        if operation == "event":
            return shown(await client.raise_event(instance, "signal", json.loads(req.get_body())))
        if operation == "purge":
            return shown((await client.purge_instance_history(instance)).instances_deleted)
    except Exception as error:
        return shown({"type": type(error).__name__, "text": str(error)})
    return shown("?")


# Durable: orchestrators and activities.

VALUES = [None, True, 0, -1, 9007199254740993, 1.5, 1e300, "", "text \u00e9 \u2028 \x85 \U0001f600 \\ \" </script>", [], {}, {"a": {"b": [1, None, "x"]}}, ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00.1234567+02:00"], "2026-01-01T00:00:00Z"]


@app.function_name("Values")
@app.orchestration_trigger(context_name="context")
def values(context: df.DurableOrchestrationContext):
    """Every kind of value, there and back."""
    results = []
    for value in VALUES:
        results.append((yield context.call_activity("Same", value)))
    return {"input": context.get_input(), "same": [a == b and type(a) is type(b) for a, b in zip(VALUES, results)], "results": results}


@app.function_name("Same")
@app.activity_trigger(input_name="value")
def same(value):
    return value


@app.function_name("Context")
@app.orchestration_trigger(context_name="context")
def context_members(context: df.DurableOrchestrationContext):
    yield context.call_activity("Same", 1)
    now = context.current_utc_datetime
    return {"instance_id": context.instance_id, "parent": context.parent_instance_id, "now": [type(now).__name__, str(now.tzinfo)], "version": getattr(context, "version", "-"), "replaying": context.is_replaying, "function": dict(context.function_context.__dict__) if context.function_context else None, "status": context.custom_status}


@app.function_name("Fails")
@app.orchestration_trigger(context_name="context")
def fails(context: df.DurableOrchestrationContext):
    """How failures look to the orchestrator, then to the caller."""
    how = context.get_input()
    if how == "orchestrator":
        raise ValueError("the orchestrator's: \u00e9\nsecond line")
    if how == "activity":
        yield context.call_activity("Raise", "ValueError")
    if how == "unknown activity":
        yield context.call_activity("NoSuchActivity", 1)
    if how == "unknown sub":
        yield context.call_sub_orchestrator("NoSuchOrchestrator", 1)
    if how == "sub":
        yield context.call_sub_orchestrator("Fails", "orchestrator")
    if how == "result":
        return {1, 2}
    told = []
    for kind in ("ValueError", "empty", "long", "lines", "result", "base"):
        try:
            yield context.call_activity("Raise", kind)
        except Exception as error:
            told.append([type(error).__name__, str(error)[:1500]])
    try:
        yield context.call_sub_orchestrator("Fails", "orchestrator")
    except Exception as error:
        told.append([type(error).__name__, str(error)[:1500]])
    return told


@app.function_name("Raise")
@app.activity_trigger(input_name="kind")
def raises(kind):
    if kind == "ValueError":
        raise ValueError("the activity's: \u00e9")
    if kind == "empty":
        raise RuntimeError
    if kind == "long":
        raise ValueError("x" * 500)
    if kind == "lines":
        raise ValueError("first line\nResult: second\nException: third")
    if kind == "result":
        return {1, 2}
    raise BaseException("of the base")


COUNT = {}


@app.function_name("Retry")
@app.orchestration_trigger(context_name="context")
def retry(context: df.DurableOrchestrationContext):
    options = df.RetryOptions(first_retry_interval_in_milliseconds=1000, max_number_of_attempts=3)
    first = yield context.call_activity_with_retry("FailTwice", options, context.instance_id)
    try:
        yield context.call_activity_with_retry("Raise", options, "ValueError")
    except Exception as error:
        return [first, str(error)[:400]]


@app.function_name("FailTwice")
@app.activity_trigger(input_name="key")
def fail_twice(key):
    COUNT[key] = COUNT.get(key, 0) + 1
    if COUNT[key] < 3:
        raise ValueError(f"failure {COUNT[key]}")
    return COUNT[key]


@app.function_name("Timers")
@app.orchestration_trigger(context_name="context")
def timers(context: df.DurableOrchestrationContext):
    began = context.current_utc_datetime
    yield context.create_timer(began + timedelta(seconds=1))
    past = context.current_utc_datetime
    yield context.create_timer(past - timedelta(seconds=5))
    event, limit = context.wait_for_external_event("never"), context.create_timer(context.current_utc_datetime + timedelta(seconds=1))
    winner = yield context.task_any([event, limit])
    other, late = context.call_activity("Same", "quick"), context.create_timer(context.current_utc_datetime + timedelta(hours=1))
    second = yield context.task_any([other, late])
    late.cancel()
    return ["limit" if winner is limit else "event", "activity" if second is other else "timer"]


@app.function_name("Events")
@app.orchestration_trigger(context_name="context")
def events(context: df.DurableOrchestrationContext):
    got = []
    for _ in range(context.get_input() or 1):
        got.append((yield context.wait_for_external_event("signal")))
    return got


@app.function_name("Eternal")
@app.orchestration_trigger(context_name="context")
def eternal(context: df.DurableOrchestrationContext):
    count = context.get_input() or 0
    context.set_custom_status({"round": count})
    yield context.call_activity("Same", count)
    if count < 3:
        context.continue_as_new(count + 1)
        return "not the last"
    return count


@app.function_name("Parent")
@app.orchestration_trigger(context_name="context")
def parent(context: df.DurableOrchestrationContext):
    first = yield context.call_sub_orchestrator("Context", None, context.instance_id + ":child")
    both = yield context.task_all([context.call_activity("Same", i) for i in range(3)])
    return [first, both]


@app.function_name("Status")
@app.orchestration_trigger(context_name="context")
def status(context: df.DurableOrchestrationContext):
    """A custom status of a size, in characters of a kind."""
    order = context.get_input()
    context.set_custom_status(order["text"] * order["times"])
    yield context.call_activity("Same", 1)
    return "done"


@app.function_name("Large")
@app.orchestration_trigger(context_name="context")
def large(context: df.DurableOrchestrationContext):
    text = yield context.call_activity("Make", context.get_input())
    back = yield context.call_activity("Same", text)
    return [len(text), len(back), back == text, text]


@app.function_name("Make")
@app.activity_trigger(input_name="size")
def make(size):
    return "\u00e9" * size


@app.function_name("Blocked")
@app.orchestration_trigger(context_name="context")
def blocked(context: df.DurableOrchestrationContext):
    """Holds the worker for some seconds, so that it can be killed inside an orchestrator."""
    yield context.call_activity("Same", 1)
    time.sleep(context.get_input())
    return "done"


@app.function_name("Sleepy")
@app.orchestration_trigger(context_name="context")
def sleepy(context: df.DurableOrchestrationContext):
    try:
        return (yield context.call_activity("Sleep", context.get_input()))
    except Exception as error:
        return ["failed", type(error).__name__, str(error)[:600]]


@app.function_name("Sleep")
@app.activity_trigger(input_name="seconds")
async def sleep(seconds):
    await asyncio.sleep(seconds)
    return "slept"
