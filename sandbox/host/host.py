"""The host: reads the app's configuration, starts its worker process and serves its functions until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from sandbox.host.admin import Admin
from sandbox.host.durable.client_binding import client_payload
from sandbox.host.durable.functions import DurableFunctions
from sandbox.host.durable.store import Store
from sandbox.host.durable.webhooks import Webhooks
from sandbox.host.errors import StartError
from sandbox.host.functions import TIMER, functions_from_metadata
from sandbox.host.http_functions import HttpFunctions
from sandbox.host.logs import configure_logging
from sandbox.host.messages import TypedData
from sandbox.host.routes import RouteTable
from sandbox.host.server import ADDRESS, Application, listen, make_server
from sandbox.host.settings import app_settings, host_configuration
from sandbox.host.spans import spans_from_settings, worker_settings
from sandbox.host.timers import TimerFunction
from sandbox.host.worker_process import WorkerProcess

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from sandbox.host.functions import Function
    from sandbox.host.keys import Keys
    from sandbox.host.messages import FunctionMetadata

# What the Core Tools set as well; an app setting of the same name wins.
DEVELOPMENT_SETTINGS = {"AZURE_FUNCTIONS_ENVIRONMENT": "Development", "FUNCTIONS_WORKER_RUNTIME": "python"}
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def functions_text(functions: Iterable[Function], routes: RouteTable) -> str:
    """Return the list of functions: method and route of those that HTTP triggers, the trigger of the others."""
    http = {route.function.name: route for route in routes.routes}
    lines = []
    for function in functions:
        route = http.get(function.name)
        how = f"{','.join(sorted(route.methods)) or 'ANY'}  /{route.template}" if route else function.kind
        lines.append(f"  {how}  {function.name}")
    return "\n".join(lines)


async def _started(worker: WorkerProcess, stop: asyncio.Event) -> list[FunctionMetadata] | None:
    """Start the worker process; None where the host is told to stop meanwhile."""
    starting, stopped = asyncio.ensure_future(worker.start()), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([starting, stopped], return_when=asyncio.FIRST_COMPLETED)
        return starting.result() if starting.done() else None
    finally:
        starting.cancel()
        stopped.cancel()


async def serve(  # noqa: PLR0913 - all that the host takes from outside
    directory: Path,
    listener: socket.socket,
    environ: Mapping[str, str],
    stop: asyncio.Event,
    *,
    verbose: bool,
    keys: Keys | None,
    store_folder: Path | None,
) -> None:
    """Serve the app in `directory` until `stop` is set; prints the address when it is ready.

    Raises:
        StartError: the app cannot run, its worker process cannot be started any more, or the store cannot be used.
    """
    settings = app_settings(directory, environ)
    configuration = host_configuration(directory, settings)
    origin = f"http://{ADDRESS}:{listener.getsockname()[1]}"
    system_key = keys.system if keys is not None else None
    client = TypedData(string=client_payload(origin, configuration.extensions.durable_task.hub_name, system_key))
    own = {"WEBSITE_HOSTNAME": origin.partition("//")[2], **DEVELOPMENT_SETTINGS, **worker_settings(settings)}
    environment = {**own, **settings}
    spans = spans_from_settings(settings)
    provider = configuration.extensions.durable_task.storage_provider
    store = Store(store_folder, provider) if store_folder is not None else None
    worker = WorkerProcess(directory, environment, client, timeout=configuration.function_timeout, verbose=verbose)
    try:
        listing = await _started(worker, stop)
        if listing is None:
            return
        functions = functions_from_metadata(listing, settings)
        routes = RouteTable(functions, configuration.extensions.http.route_prefix.strip("/"))
        timers = [TimerFunction(each, worker) for each in functions if each.kind == TIMER]
        durable = DurableFunctions(functions, worker, configuration, spans, store)
        admin = Admin(functions, routes, durable, timers, worker, configuration, keys)
        host_routes = [*admin.routes(), *Webhooks(durable, configuration, system_key).routes()]
        http = HttpFunctions(routes, worker, spans, keys)
        server = make_server(Application(host_routes, http, configuration, keys))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        running = [asyncio.create_task(each.run()) for each in timers]
        key_lines = keys.lines() if keys is not None else ""
        sys.stdout.write(f"host: {origin}\n{key_lines}{functions_text(functions, routes)}\n")
        sys.stdout.flush()
        stopped = asyncio.create_task(stop.wait())
        try:
            ends: list[asyncio.Future[Any]] = [stopped, worker.failed, serving]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if worker.failed.done():
                raise worker.failed.result()
        finally:
            for task in (stopped, *running):
                task.cancel()
            # Requests that wait for the worker process are answered once it is gone, so the server can close.
            await worker.stop()
            await asyncio.gather(durable.close(), admin.close(), return_exceptions=True)
            server.should_exit = True
            await serving
    finally:
        await worker.stop()
        if store is not None:
            store.close()
        await asyncio.to_thread(spans.close)


async def run_host(
    directory: Path, port: int, *, verbose: bool = False, keys: Keys | None = None, store: Path | None = None
) -> int:
    """Run the function app in `directory` on a port of the loopback address, 0 for any free one; return the exit code.

    With `keys` the host asks for them, and prints them. `store` is the folder of the durable state, which is in memory
    without. The host ends with 0 on SIGINT or SIGTERM. Where it cannot run it says why in one line on stderr, and ends
    with 1. This process's environment wins over local.settings.json.
    """
    configure_logging(verbose=verbose)
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        with listen(port) as listener:
            directory = directory.resolve()  # noqa: ASYNC240 - nothing else runs yet
            await serve(directory, listener, os.environ, stop, verbose=verbose, keys=keys, store_folder=store)
    except StartError as error:
        sys.stderr.write(f"sandbox host: {error}\n")
        if verbose:
            sys.stderr.write(error.details)
        return 1
    finally:
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)
    return 0
