"""Starting orchestration instances over HTTP: new ones, and finished ones again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from sandbox.host.durable import webhook_queries as queries
from sandbox.host.durable.client_binding import management_urls
from sandbox.host.durable.instance_status import status_json
from sandbox.host.durable.orchestrator_state import OrchestratorFailedError
from sandbox.host.durable.payloads import PayloadResponse, payload_value
from sandbox.host.durable.spans import INSTANCE_ID
from sandbox.host.errors import EngineError
from sandbox.host.http_invocation import read_body
from sandbox.host.trace import trace_context_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from sandbox.host.durable.functions import DurableFunctions
    from sandbox.host.durable.instances import Instance
    from sandbox.host.messages import TraceContext
    from sandbox.host.settings import HostConfiguration


def message(status: int, text: str) -> Response:
    """Answer with an explanation, in the form of the extension's errors."""
    return JSONResponse({"Message": text}, status_code=status)


def origin_of(request: Request) -> str:
    """Give scheme, host and port under which the caller reached the host."""
    return f"{request.url.scheme}://{request.url.netloc}"


async def json_text(request: Request) -> str | None:
    """Read a body of JSON as its text, None where it is empty.

    Raises:
        ValueError: it is not JSON.
    """
    text = (await read_body(request)).decode()
    if not text.strip():
        return None
    try:
        # As text: of bytes it would take a byte order mark, which nobody who reads the text later does.
        json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return text


@dataclass(frozen=True, slots=True)
class _Start:
    """A wish to start an instance: its orchestrator, its id where one is wished for, its input as JSON.

    `wait_seconds` is how long the caller wants to wait for its end.
    """

    name: str
    instance_id: str | None
    payload: str | None
    version: str | None
    wait_seconds: float | None = None


class StartWebhooks:
    """The operations that start an instance."""

    def __init__(self, durable: DurableFunctions, configuration: HostConfiguration) -> None:
        self._durable, self._hub = durable, durable.hub
        self._configuration = configuration

    def _links(self, request: Request, instance_id: str, *, retry_after: int = 10) -> Response:
        """Answer 202 with the links of an instance."""
        links = management_urls(origin_of(request), self._configuration.hub_name, instance_id)
        headers = {"Location": links["statusQueryGetUri"], "Retry-After": str(retry_after)}
        return JSONResponse(links, status_code=202, headers=headers)

    def _trace_context(self, request: Request) -> TraceContext | None:
        """Give the trace in which a caller starts an instance: its own, or that of the function that calls."""
        own = trace_context_of(request.headers)
        invocation_id = request.headers.get("x-azure-functions-invocationid", "")
        return own or self._durable.trace_of_invocation(invocation_id)

    async def start(self, request: Request) -> Response:
        """Start an instance; with `timeout` in the query, wait that many seconds for its end."""
        name, instance_id = request.path_params["name"], request.path_params.get("instance_id")
        try:
            self._durable.known.check("orchestrator", name)
            queries.check_instance_id(instance_id or "")
            wait_seconds = queries.seconds(request.query_params, "timeout")
            payload = await json_text(request)
        except (OrchestratorFailedError, ValueError) as error:
            # The client library raises the ExceptionMessage of a 400.
            return JSONResponse({"Message": str(error), "ExceptionMessage": str(error)}, status_code=400)
        wanted = _Start(
            name=name,
            instance_id=instance_id,
            payload=payload,
            version=request.query_params.get("version", self._configuration.default_version),
            wait_seconds=wait_seconds,
        )
        return await self._start(request, wanted)

    async def _start(self, request: Request, wanted: _Start) -> Response:
        span = self._durable.spans.creation(wanted.name, self._trace_context(request))
        try:
            started = self._hub.start(
                wanted.name, wanted.instance_id, wanted.payload, version=wanted.version, trace=span.context
            )
        except EngineError as error:
            span.end(failed=True)
            # The engine refuses a start for no other reason than an unfinished instance with this id.
            return message(409, str(error))
        span.set(INSTANCE_ID, started)
        span.end()
        finished = await self._hub.ended(started, wanted.wait_seconds) if wanted.wait_seconds else None
        return self._links(request, started) if finished is None else self._outcome(finished)

    @staticmethod
    def _outcome(instance: Instance) -> Response:
        """Answer with the output of a finished instance, or with its status where it did not complete."""
        if instance.status == "Completed":
            return PayloadResponse(payload_value(instance.output or "null"))
        return PayloadResponse(status_json(instance), status_code=500 if instance.status == "Failed" else 200)

    async def restart(self, request: Request) -> Response:
        """Start an instance again with its input, under a new id unless `restartWithNewInstanceId=false`."""
        instance = self._hub.get(request.path_params["instance_id"])
        if instance is None:
            return message(400, f"No instance with ID '{request.path_params['instance_id']}' found.")
        is_new = queries.flag(request.query_params, "restartWithNewInstanceId", default=True)
        wanted = _Start(
            name=instance.name,
            instance_id=None if is_new else instance.instance_id,
            payload=instance.input,
            version=self._configuration.default_version,
        )
        return await self._start(request, wanted)
