"""The HTTP server of the host: the host's own routes, then those of the app's functions."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Router

from sandbox.host.durable.client_binding import RPC, WEBHOOKS
from sandbox.host.errors import BadRequestError, StartError
from sandbox.host.paths import decoded_path

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from starlette.routing import BaseRoute
    from starlette.types import Receive, Scope, Send

    from sandbox.host.http_functions import HttpFunctions

ADDRESS = "127.0.0.1"
HOST_PREFIXES = ("/admin/", f"{WEBHOOKS}/", f"{RPC}/", "/sandbox/worker", "/sandbox/histories/")
BANNER = "<!DOCTYPE html><title>Function app</title><h1>The function app is up and running</h1>"
BACKLOG = 2048
SHUTDOWN_GRACE_SECONDS = 3


class Application:
    """The ASGI application of the host."""

    def __init__(self, host_routes: Iterable[BaseRoute], functions: HttpFunctions) -> None:
        self._host_router = Router(list(host_routes), redirect_slashes=False)
        self._functions = functions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        try:
            path = decoded_path(scope["raw_path"])
        except BadRequestError:
            await Response(status_code=400)(scope, receive, send)
            return
        if path.startswith(HOST_PREFIXES):
            await self._host_router({**scope, "path": path}, receive, send)
            return
        response = await self._functions.respond(Request(scope, receive), path)
        if response is None:
            response = HTMLResponse(BANNER) if path == "/" else Response(status_code=404)
        await response(scope, receive, send)


def listen(port: int) -> socket.socket:
    """Listen on a port of the loopback address, 0 for any free one.

    Raises:
        StartError: the port is in use, or not allowed.
    """
    # asyncio turns Nagle's algorithm off only where the protocol is named: each answer would wait 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((ADDRESS, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StartError(f"cannot listen on port {port} of {ADDRESS}: {reason}") from error
    return listener


class Server(uvicorn.Server):
    """The server without signal handlers: the host has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave signals alone."""
        yield


def make_server(application: Application) -> Server:
    """Make the server; its `serve` takes the socket of `listen`."""
    return Server(
        uvicorn.Config(
            application,
            http="httptools",
            ws="none",
            lifespan="off",
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_SECONDS,
            # A client that keeps its connection, like the client library, shall not meet a closing one.
            timeout_keep_alive=120,
        )
    )
