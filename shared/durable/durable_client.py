"""The Durable extension's operations on orchestrations, over its HTTP interface in the host process.

`DurableOrchestrationClient` of the Durable SDK has no continuation token, does not quote ids, and raises bare
exceptions. Its other half, the base URL of the interface, is in the JSON that the binding hands to a function.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import quote, urlencode

import msgspec
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import DeliveryRefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

logger = logging.getLogger(__name__)

FINISHED = {"Completed", "Failed", "Terminated"}
CALL_TIMEOUT = 60.0
# `traceparent` and `tracestate`: the orchestration's spans join the trace of the request that started it.
_PROPAGATOR = TraceContextTextMapPropagator()
_ALREADY = b"already exists"


class HostResponse(NamedTuple):
    """What the extension answered; the names of `headers` are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


if TYPE_CHECKING:
    # Method, URL, headers and body of a request to the extension.
    HostCall = Callable[[str, str, Mapping[str, str], bytes | None], Awaitable[HostResponse]]
    Operation = Literal["terminate", "suspend", "resume", "rewind"]


@dataclass(frozen=True, slots=True)
class Instance:
    """An orchestration instance: `status` is Durable's runtimeStatus ("Running", "Completed", …).

    `created` and `updated` are when it was started, and when it went on last. `history` has the events of the status
    API, where they were asked for.
    """

    id: str
    name: str
    status: str
    input: Any = None
    output: Any = None
    custom_status: Any = None
    created: datetime | None = None
    updated: datetime | None = None
    history: tuple[dict[str, Any], ...] = ()

    @classmethod
    def from_json(cls, status: Mapping[str, Any]) -> Instance:
        """Read a status of the extension."""
        return cls(
            status["instanceId"],
            status.get("name") or "",
            status["runtimeStatus"],
            _decoded(status.get("input")),
            status.get("output"),
            status.get("customStatus"),
            _time(status.get("createdTime")),
            _time(status.get("lastUpdatedTime")),
            tuple(status.get("historyEvents") or ()),
        )

    def is_older_than(self, other: Instance) -> bool:
        """Whether it was started before the other was, which may have been started again since."""
        return self.created is not None and other.created is not None and self.created < other.created


class DurableClient:
    """The client of one invocation. `binding` is the JSON of a binding of the type durableClient.

    `invocation_id` is the invocation's: by it the host knows which request starts an orchestration.

    All methods raise `DeliveryRefusedError` with the status 503 if the extension does not answer as it should.
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
        answer = await self._ask("POST", f"orchestrators/{name}/{quote(instance_id, safe='')}", headers, body)
        if answer.status in {200, 202}:
            return True
        if answer.status == 409 or _ALREADY in answer.body:  # noqa: PLR2004, older extensions answer 500
            return False
        raise self._unexpected(answer, f"start {instance_id}")

    async def find(self, instance_id: str, *, show_input: bool = False, show_history: bool = False) -> Instance | None:
        """Return the instance, None if there is none."""
        query = {"showInput": str(show_input).lower()}
        if show_history:
            query |= {"showHistory": "true", "showHistoryOutput": "true"}
        answer = await self._ask("GET", f"instances/{quote(instance_id, safe='')}?{urlencode(query)}")
        if answer.status == 404:  # noqa: PLR2004, RFC 9110
            return None
        if answer.status not in {200, 202}:
            raise self._unexpected(answer, f"find {instance_id}")
        return Instance.from_json(self._content(answer))

    async def list_instances(  # noqa: PLR0913, each is a filter
        self,
        *,
        statuses: Iterable[str] = (),
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        prefix: str | None = None,
        top: int | None = None,
        token: str | None = None,
        show_input: bool = False,
    ) -> tuple[list[Instance], str | None]:
        """Return a page of instances in the order of their ids, and the token of the next page, None after the last.

        A page may be empty and still have a next one.

        Raises:
            DeliveryRefusedError: 400, `token` is none; 503, Durable Functions does not answer.
        """
        query = {
            "runtimeStatus": ",".join(statuses),
            "createdTimeFrom": created_from.isoformat() if created_from else None,
            "createdTimeTo": created_to.isoformat() if created_to else None,
            "instanceIdPrefix": prefix,
            "top": top,
            "showInput": str(show_input).lower(),
        }
        said = urlencode({name: value for name, value in query.items() if value})
        headers = {"x-ms-continuation-token": token} if token else {}
        answer = await self._ask("GET", f"instances?{said}", headers)
        if answer.status == 400 and token:  # noqa: PLR2004, RFC 9110
            raise DeliveryRefusedError(400, "token must be that of a nextLink.")
        if answer.status != 200:  # noqa: PLR2004, RFC 9110
            raise self._unexpected(answer, "list instances")
        page = [Instance.from_json(status) for status in self._content(answer)]
        return page, answer.headers.get("x-ms-continuation-token") or None

    async def manage(self, operation: Operation, instance_id: str, reason: str) -> bool:
        """Terminate, suspend, resume or rewind an instance; False if there is none, or its state does not allow it.

        Rewinding raises as well where the engine does not offer it.
        """
        path = f"instances/{quote(instance_id, safe='')}/{operation}?{urlencode({'reason': reason})}"
        answer = await self._ask("POST", path)
        if answer.status in {404, 409, 410, 412} or b"InvalidOperationException" in answer.body:
            return False
        if answer.status not in {200, 202}:
            raise self._unexpected(answer, f"{operation} {instance_id}")
        return True

    async def purge(self, instance_id: str) -> bool:
        """Delete a finished instance and its history; False if there is none, or it is not finished."""
        answer = await self._ask("DELETE", f"instances/{quote(instance_id, safe='')}")
        if answer.status not in {200, 404, 412}:
            raise self._unexpected(answer, f"purge {instance_id}")
        return answer.status == 200  # noqa: PLR2004, RFC 9110

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> HostResponse:
        try:
            return await self._call(method, self._base + path, headers or {}, body)
        except (OSError, TimeoutError) as exc:
            raise _unavailable(f"{method} {path.partition('?')[0]}: {type(exc).__name__}: {exc}") from exc

    def _content(self, answer: HostResponse) -> Any:  # noqa: ANN401, it is any JSON
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, RecursionError) as exc:
            raise _unavailable(f"the answer is not JSON that can be read: {exc}") from exc

    def _unexpected(self, answer: HostResponse, what: str) -> DeliveryRefusedError:
        words = answer.body[:500].decode(errors="replace")
        return _unavailable(f"{what}: answered with {answer.status}: {words}")


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
                lowered = {name.lower(): value for name, value in response.headers.items()}
                return HostResponse(response.status, lowered, await response.read())
        except aiohttp.ClientError as exc:
            raise ConnectionError(f"{type(exc).__name__}: {exc}") from exc

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()


async def wait_until_finished(client: DurableClient, instance_id: str, seconds: float) -> Instance | None:
    """Watch an instance for so many seconds. Return it once it has finished, None if it has not.

    A look that fails has seen nothing: the delivery has begun, and its caller is told where to watch it.
    """
    clock = asyncio.get_running_loop().time
    deadline = clock() + seconds
    # Twice as long after each look: a quick delivery is seen at once, a slow one is not asked for a hundred times.
    pause = 0.05
    while True:
        with suppress(DeliveryRefusedError):
            instance = await client.find(instance_id)
            if instance is not None and instance.status in FINISHED:
                return instance
        left = deadline - clock()
        if left <= 0:
            return None
        await asyncio.sleep(min(pause, left))
        pause = min(2 * pause, 1.0)


def _unavailable(reason: str) -> DeliveryRefusedError:
    logger.error("durable functions unavailable", extra={"reason": reason})
    detail = "Durable Functions does not answer now. Send the request again, with the same Idempotency-Key."
    return DeliveryRefusedError(503, detail, retry_after=1)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _decoded(text: object) -> Any:  # noqa: ANN401, it is any JSON
    """Return the input as it was: the status API has it as JSON text in a string, once or twice over."""
    while isinstance(text, str):
        try:
            text = msgspec.json.decode(text)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return text
    return text
