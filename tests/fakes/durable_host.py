"""The Durable extension's HTTP interface on a dictionary: what it answered on the real host, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from shared.durable.durable_client import DurableClient, HostResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

RPC = "http://127.0.0.1:7071/durabletask/"
BINDING = json.dumps({"taskHubName": "BusinessRelay", "rpcBaseUrl": RPC})
ALIVE = {"Pending", "Running", "Suspended"}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
PAGE = 2


@dataclass
class HostInstance:
    """An orchestration as the host has it; `starts` counts how often this id was started."""

    name: str
    input: Any
    status: str = "Running"
    output: Any = None
    custom_status: Any = None
    starts: int = 1
    created: datetime = NOON
    updated: datetime = NOON
    history: list[dict[str, Any]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


class DurableHost:
    """`instances` by their ids, each begun a second after the one before. Lists have `PAGE` instances a page.

    `faults` are answers or exceptions for the next calls. `refused` are operations that the engine does not offer.
    """

    def __init__(self) -> None:
        self.instances: dict[str, HostInstance] = {}
        self.faults: deque[Exception | HostResponse] = deque()
        self.refused: set[str] = set()
        self.calls: list[str] = []
        self.headers: list[Mapping[str, str]] = []

    def client(self, invocation_id: str | None = None) -> DurableClient:
        return DurableClient(BINDING, self, invocation_id)

    def put(self, instance_id: str, name: str, input_: Any, **more: Any) -> HostInstance:  # noqa: ANN401 - any JSON
        instance = self.instances[instance_id] = HostInstance(name, json.dumps(input_), **more)
        return instance

    def input_of(self, instance_id: str) -> Any:  # noqa: ANN401 - any JSON
        return json.loads(self.instances[instance_id].input)

    async def __call__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> HostResponse:
        assert url.startswith(RPC)
        self.calls.append(f"{method} {url.removeprefix(RPC)}")
        self.headers.append(headers)
        await asyncio.sleep(0)  # other callers come in between, as they do over a network
        if self.faults:
            fault = self.faults.popleft()
            if isinstance(fault, Exception):
                raise fault
            return fault
        parts = urlsplit(url.removeprefix(RPC))
        steps = [unquote(step) for step in parts.path.split("/")]
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if steps[0] == "orchestrators":
            return self._start(steps[1], steps[2], json.loads(body or b"null"))
        if len(steps) == 1:
            return self._list(query, headers.get("x-ms-continuation-token", ""))
        instance = self.instances.get(steps[1])
        return answer(404) if instance is None else self._of_one(method, steps, instance, query)

    def _of_one(self, method: str, steps: list[str], instance: HostInstance, query: Mapping[str, str]) -> HostResponse:
        if method == "POST":
            return self._manage(steps[2], instance, query["reason"])
        if method == "GET":
            return answer(202 if instance.status in ALIVE else 200, self._status(steps[1], instance, query))
        if instance.status in ALIVE:
            return answer(412)
        del self.instances[steps[1]]
        return answer(200, {"instancesDeleted": 1})

    def _start(self, name: str, instance_id: str, input_: Any) -> HostResponse:  # noqa: ANN401 - any JSON
        there = self.instances.get(instance_id)
        if there is not None and there.status in ALIVE:
            return answer(
                409, {"ExceptionMessage": "An Orchestration instance with the status Running already exists."}
            )
        now = NOON + timedelta(seconds=len(self.calls))
        starts = there.starts + 1 if there else 1
        self.instances[instance_id] = HostInstance(name, input_, starts=starts, created=now, updated=now)
        return answer(202, {"id": instance_id})

    def _manage(self, operation: str, instance: HostInstance, reason: str) -> HostResponse:
        if operation in self.refused:
            return answer(501)
        states = {"terminate": ALIVE, "suspend": {"Running"}, "resume": {"Suspended"}, "rewind": {"Failed"}}
        if instance.status not in states[operation]:
            return answer(412 if operation == "rewind" else 410)
        after = {"terminate": "Terminated", "suspend": "Suspended"}
        instance.status = after.get(operation, "Running")
        instance.reasons.append(reason)
        if operation == "rewind":
            instance.history += [{"EventType": "GenericEvent"}, {"EventType": "GenericEvent"}]
        return answer(202)

    def _list(self, query: Mapping[str, str], token: str) -> HostResponse:
        statuses = query.get("runtimeStatus", "").split(",")
        ids = sorted(id_ for id_ in self.instances if id_ > token and id_.startswith(query.get("instanceIdPrefix", "")))
        page = ids[:PAGE]
        shown = [self._status(id_, self.instances[id_], query) for id_ in page if self._matches(id_, statuses, query)]
        return answer(200, shown, {"x-ms-continuation-token": page[-1]} if len(ids) > PAGE else {})

    def _matches(self, id_: str, statuses: list[str], query: Mapping[str, str]) -> bool:
        instance = self.instances[id_]
        is_in_time = "createdTimeTo" not in query or instance.created <= datetime.fromisoformat(query["createdTimeTo"])
        return is_in_time and (statuses == [""] or instance.status in statuses)

    @staticmethod
    def _status(instance_id: str, instance: HostInstance, query: Mapping[str, str]) -> dict[str, Any]:
        status = {
            "name": instance.name,
            "instanceId": instance_id,
            "runtimeStatus": instance.status,
            "input": instance.input if query.get("showInput") == "true" else None,
            "customStatus": instance.custom_status,
            "output": instance.output,
            "createdTime": f"{instance.created:%Y-%m-%dT%H:%M:%SZ}",
            "lastUpdatedTime": f"{instance.updated:%Y-%m-%dT%H:%M:%SZ}",
        }
        return status | ({"historyEvents": instance.history} if query.get("showHistory") == "true" else {})


def answer(status: int, content: Any = None, headers: Mapping[str, str] | None = None) -> HostResponse:  # noqa: ANN401 - any JSON
    return HostResponse(status, headers or {}, b"" if content is None else json.dumps(content).encode())
