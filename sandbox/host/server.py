"""The HTTP server of the host: the host's own routes, then those of the app's functions."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from typing import TYPE_CHECKING

import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Router

from sandbox.host.durable.client_binding import RPC, WEBHOOKS
from sandbox.host.errors import StartError
from sandbox.host.kestrel import KestrelProtocol
from sandbox.host.keys import MASTER, SYSTEM
from sandbox.host.paths import decoded_path
from sandbox.host.settings import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from starlette.routing import BaseRoute
    from starlette.types import Message, Receive, Scope, Send

    from sandbox.host.http_functions import HttpFunctions
    from sandbox.host.keys import Keys
    from sandbox.host.settings import HostConfiguration

ADDRESS = "127.0.0.1"
BANNER = "<!DOCTYPE html><title>Function app</title><h1>The function app is up and running</h1>"
# Routes that the platform serves elsewhere, or without counting them as requests to the app.
UNCOUNTED = ("/admin/", "/sandbox/worker", "/sandbox/histories/", f"{RPC}/")
BACKLOG = 2048
SHUTDOWN_GRACE_SECONDS = 3


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code=404)(scope, receive, send)


class Application:
    """The ASGI application of the host.

    `host_routes` are the routes below `/admin/`, `/sandbox/`, and the two prefixes of Durable Functions.
    """

    def __init__(
        self,
        host_routes: Iterable[BaseRoute],
        functions: HttpFunctions,
        configuration: HostConfiguration,
        keys: Keys | None = None,
    ) -> None:
        self._host_router = Router(list(host_routes), redirect_slashes=False, default=_not_found)
        self._functions = functions
        self._keys = keys
        section = configuration.extensions.http
        self._headers = [(name.encode(), value.encode()) for name, value in section.custom_headers.items()]
        self._outstanding, self._max_outstanding = 0, section.max_outstanding_requests
        limit = section.max_concurrent_requests
        self._slots = contextlib.nullcontext() if limit == UNLIMITED else asyncio.Semaphore(limit)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; the custom headers of host.json are added where the answer lacks them."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                message["headers"] += [header for header in self._headers if header[0].lower() not in names]
            await send(message)

        path = decoded_path(scope["raw_path"])
        if "\0" in path:
            await Response(status_code=400)(scope, receive, send)
        else:
            await self._route(path, scope, receive, send_with_headers)

    async def _route(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to its part of the host; requests for functions and webhooks are limited."""
        if "//" in path:
            await _not_found(scope, receive, send)
        elif path.startswith(UNCOUNTED):
            await self._host_router({**scope, "path": _own_path(path)}, receive, send)
        elif self._max_outstanding != UNLIMITED and self._outstanding >= self._max_outstanding:
            await Response(status_code=429)(scope, receive, send)
        else:
            self._outstanding += 1
            try:
                async with self._slots:
                    await self._answer(path, scope, receive, send)
            finally:
                self._outstanding -= 1

    async def _answer(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if path == WEBHOOKS or path.startswith(f"{WEBHOOKS}/"):
            if scope["method"] == "HEAD":
                await _not_found(scope, receive, send)
                return
            refusal = self._keys.refusal(request, MASTER, SYSTEM) if self._keys is not None else None
            await (refusal or self._host_router)({**scope, "path": _own_path(path)}, receive, send)
            return
        response = await self._functions.respond(request, path)
        if response is None:
            banner = Response(BANNER, headers={"Content-Type": "text/html"})
            response = banner if path == "/" else Response(status_code=404)
        await response(scope, receive, send)


def _own_path(path: str) -> str:
    """Return the path that the host's own routes see: an encoded slash ends a segment there."""
    return re.sub("%2f", "/", path, flags=re.IGNORECASE)


def listen(port: int) -> socket.socket:
    """Listen on a port of the loopback address, 0 for any free one.

    Raises:
        StartError: the port is in use, or not allowed.
    """
    # asyncio turns Nagle's algorithm off only if the protocol is named. Without that each answer takes 40 ms.
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
    """Return the server; its `serve` takes the socket of `listen`."""
    return Server(
        uvicorn.Config(
            application,
            http=KestrelProtocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE_SECONDS,
            # A client that reuses its connection, as the client library does, must not meet one that is closing.
            timeout_keep_alive=120,
        )
    )
