"""The Durable extension's operations on orchestrations, over its HTTP interface in the host process.

`DurableOrchestrationClient` of the Durable SDK has no continuation token, does not quote ids, and raises bare
exceptions. Its other half, the base URL of the interface, is in the JSON that the binding hands to a function.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from msgspec import field
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

T = TypeVar("T")

logger = logging.getLogger(__name__)

FINISHED = {"Completed", "Failed", "Terminated"}
CALL_TIMEOUT = 60.0
# `traceparent` and `tracestate`: the orchestration's spans join the trace of the request that started it.
_PROPAGATOR = TraceContextTextMapPropagator()
# In some versions of the extension 500 with one of these is what others answer with 409.
_REFUSALS = (b"already exists", b"InvalidOperationException")


class HostResponse(NamedTuple):
    """What the extension answered; `headers` takes their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


if TYPE_CHECKING:
    # Method, URL, headers and body of a request to the extension.
    HostCall = Callable[[str, str, Mapping[str, str], bytes | None], Awaitable[HostResponse]]
    Operation = Literal["terminate", "suspend", "resume", "rewind"]


class Instance(msgspec.Struct):
    """An orchestration instance: `status` is Durable's runtimeStatus ("Running", "Completed", …).

    `created` and `updated` are when it was started, and when it went on last. `history` has the events of the status
    API, where they were asked for.
    """

    id: str = field(name="instanceId")
    name: str = field()
    status: str = field(name="runtimeStatus")
    created: datetime = field(name="createdTime")
    updated: datetime = field(name="lastUpdatedTime")
    input: Any = None
    output: Any = None
    custom_status: Any = field(name="customStatus", default=None)
    history: list[dict[str, Any]] = field(name="historyEvents", default_factory=list)

    def __post_init__(self) -> None:
        # The status API has the input as JSON text in a string, once or twice over.
        while isinstance(self.input, str):
            try:
                self.input = msgspec.json.decode(self.input)
            except (ValueError, RecursionError):
                return

    @property
    def told(self) -> dict[str, Any]:
        """What a delivery tells of itself: its custom status, and over it its output."""
        custom, output = (each if isinstance(each, dict) else {} for each in (self.custom_status, self.output))
        return custom | output

    @property
    def is_misconfigured(self) -> bool:
        """Whether the delivery waits for somebody to mend the app's settings or its credentials."""
        return self.told.get("state") == "waiting" and self.told.get("misconfigured") is True

    def is_older_than(self, other: Instance) -> bool:
        """Whether it was started before the other was, which may have been started again since."""
        return self.created < other.created


class DurableClient:
    """The client of one invocation. `binding` is the JSON of a binding of the type durableClient.

    `invocation_id` is the invocation's: by it the host knows which request starts an orchestration.

    All methods raise `RefusedError` (503) if the extension does not answer as it should.
    """

    def __init__(self, binding: str, call: HostCall, invocation_id: str | None = None) -> None:
        self._base: str = json.loads(binding)["rpcBaseUrl"]
        self._call = call
        self._invocation_id = invocation_id

    async def start(self, name: str, instance_id: str, input_: Mapping[str, Any]) -> bool:
        """Start an orchestration; False if one with this id is alive. A finished one is overwritten."""
        headers = {"content-type": "application/json"}
        _PROPAGATOR.inject(headers)
        if self._invocation_id is not None:
            headers["x-azure-functions-invocationid"] = self._invocation_id
        # JSON in a JSON string, as the Durable SDK sends it: the extension would write dates and numbers anew.
        body = json.dumps(json.dumps(input_)).encode()
        path = f"orchestrators/{name}/{quote(instance_id, safe='')}"
        return (await self._ask("POST", path, {200, 202, 409}, headers, body)).status != 409  # noqa: PLR2004, RFC 9110

    async def find(self, instance_id: str, *, show_input: bool = False, show_history: bool = False) -> Instance | None:
        """Return the instance, None if there is none."""
        query = {"showInput": str(show_input).lower()}
        if show_history:
            query |= {"showHistory": "true", "showHistoryOutput": "true"}
        path = f"instances/{quote(instance_id, safe='')}?{urlencode(query)}"
        answer = await self._ask("GET", path, {200, 202, 404})
        return None if answer.status == 404 else _decoded(answer, Instance)  # noqa: PLR2004, RFC 9110

    async def list_instances(
        self, token: str | None = None, **filters: str | int | datetime | None
    ) -> tuple[list[Instance], str | None]:
        """Return a page of instances in the order of their ids, and the token of the next page, None after the last.

        A page may be empty and still have a next one. `filters` have the names of the status API: `runtimeStatus`,
        `createdTimeFrom`, `createdTimeTo`, `instanceIdPrefix`, `top`.

        Raises:
            RefusedError: 400, `token` is none; 503, Durable Functions does not answer.
        """
        said = {name: value for name, value in filters.items() if value}
        said |= {name: value.isoformat() for name, value in said.items() if isinstance(value, datetime)}
        path = f"instances?{urlencode({**said, 'showInput': 'false'})}"
        headers = {"x-ms-continuation-token": token} if token else {}
        answer = await self._ask("GET", path, {200, 400} if token else {200}, headers)
        if answer.status == 400:  # noqa: PLR2004, RFC 9110
            raise RefusedError("malformed", "token must be that of a nextLink.")
        return _decoded(answer, list[Instance]), answer.headers.get("x-ms-continuation-token") or None

    async def manage(self, operation: Operation, instance_id: str, reason: str) -> bool:
        """Terminate, suspend, resume or rewind an instance; False if there is none, or its state does not allow it.

        Rewinding raises as well where the engine does not offer it.
        """
        path = f"instances/{quote(instance_id, safe='')}/{operation}?{urlencode({'reason': reason})}"
        return (await self._ask("POST", path, {200, 202, 404, 409, 410, 412})).status in {200, 202}

    async def purge(self, instance_id: str) -> bool:
        """Delete a finished instance and its history; False if there is none, or it is not finished."""
        answer = await self._ask("DELETE", f"instances/{quote(instance_id, safe='')}", {200, 404, 412})
        return answer.status == 200  # noqa: PLR2004, RFC 9110

    async def _ask(
        self,
        method: str,
        path: str,
        expected: Collection[int],
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> HostResponse:
        """Call the extension. Return its answer, whose status is an expected one."""
        what = f"{method} {path.partition('?')[0]}"
        try:
            answer = await self._call(method, self._base + path, headers or {}, body)
        except (OSError, TimeoutError) as exc:
            raise _unavailable(f"{what}: {type(exc).__name__}: {exc}") from exc
        if method == "POST" and answer.status not in expected and any(each in answer.body for each in _REFUSALS):
            return answer._replace(status=409)
        if answer.status not in expected:
            raise _unavailable(f"{what}: answered with {answer.status}: {answer.body[:500].decode(errors='replace')}")
        return answer


class HostSession:
    """Makes the calls of `DurableClient`s; belongs to the event loop on which it is first used."""

    def __init__(self) -> None:
        self._session: Any = None

    async def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> HostResponse:
        """Call the extension.

        Raises:
            OSError: it cannot be reached, or its answer breaks off.
            TimeoutError: it takes longer than `CALL_TIMEOUT`.
        """
        import aiohttp  # noqa: PLC0415, not for the import of this module

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT))
        try:
            async with self._session.request(method, url, headers=headers, data=body) as response:
                return HostResponse(response.status, response.headers, await response.read())
        except aiohttp.ClientError as exc:
            raise ConnectionError(f"{type(exc).__name__}: {exc}") from exc

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def wait_until_finished(client: DurableClient, instance_id: str, seconds: float) -> Instance | None:
    """Watch an instance for so many seconds. Return it once it has finished, or waits for somebody to mend the app.

    A look that fails has seen nothing: the delivery has begun, and its caller is told where to watch it.
    """
    # Twice as long after each look: a quick delivery is seen at once, a slow one is not asked for a hundred times.
    pause = 0.05
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                with suppress(RefusedError):
                    instance = await client.find(instance_id)
                    if instance is not None and (instance.status in FINISHED or instance.is_misconfigured):
                        return instance
                await asyncio.sleep(pause)
                pause = min(2 * pause, 1.0)
    return None


def _unavailable(reason: str) -> RefusedError:
    logger.error("durable functions unavailable", extra={"reason": reason})
    detail = "Durable Functions does not answer now. Send the request again, with the same Idempotency-Key."
    return RefusedError("unavailable", detail, retry_after=1)


def _decoded(answer: HostResponse, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise _unavailable(f"the answer is not JSON that can be read: {exc}") from exc
