"""HTTP functions of every shape that the host's tests need."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from pathlib import Path

import azure.functions as func

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)
logger = logging.getLogger("webapp.echo")

DIARY = Path(os.environ.get("DIARY_FOLDER", "."))


def as_seen(req: func.HttpRequest) -> func.HttpResponse:
    document = {
        "method": req.method,
        "url": req.url,
        "headers": dict(req.headers),
        "params": dict(req.params),
        "route": dict(req.route_params),
        "body": req.get_body().decode("latin-1"),
    }
    return func.HttpResponse(json.dumps(document), mimetype="application/json")


@app.route(route="echo/{*rest}")
async def echo(req: func.HttpRequest) -> func.HttpResponse:
    logger.info("An echo", extra={"method": req.method, "reason": None, "why": "asked for"})
    return as_seen(req)


@app.route(route="things/{id}", methods=["GET", "PUT"])
async def thing(req: func.HttpRequest) -> func.HttpResponse:
    return as_seen(req)


@app.route(route="things/special", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def special(req: func.HttpRequest) -> str:
    return f"special, in {threading.current_thread() is threading.main_thread()}"


@app.route(methods=["GET"])
async def no_route(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse("by its name", headers={"Cache-Control": "max-age=5"})


@app.route(route="broken", methods=["GET"])
async def broken(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("something is missing")


@app.route(route="trace", methods=["GET"])
async def trace(req: func.HttpRequest, context: func.Context) -> func.HttpResponse:
    return func.HttpResponse(f"{context.trace_context.trace_parent} {context.trace_context.trace_state}")


@app.route(route="wait/{name}")
async def wait(req: func.HttpRequest) -> func.HttpResponse:
    """Say that it runs, then wait for a file of that name."""
    name = req.route_params["name"]
    with (DIARY / f"{name}.started").open("a") as file:
        file.write(f"{os.getpid()}\n")
    async with asyncio.timeout(30):
        while not (DIARY / name).exists():
            await asyncio.sleep(0.01)
    return func.HttpResponse("done")


@app.route(route="block")
async def block(req: func.HttpRequest) -> func.HttpResponse:
    """Block the event loop for good."""
    (DIARY / "block.started").touch()
    threading.Event().wait()
    return func.HttpResponse("never")


@app.route(route="environment/{name}", methods=["GET"])
async def environment(req: func.HttpRequest) -> func.HttpResponse:
    return func.HttpResponse(json.dumps([os.environ.get(req.route_params["name"]), str(Path.cwd())]))
