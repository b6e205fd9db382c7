"""Microsoft's Durable client on a host made of a dictionary: its real code, URLs and errors, with no socket.

The host answers as the Durable extension does: a living instance is not started again (409, or 500 from an older one),
a finished one is overwritten, an unknown one is a 404, and an input comes back as the escaped JSON text it came as.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.durable_functions import DurableOrchestrationClient

if TYPE_CHECKING:
    from collections.abc import Callable

RPC = "http://127.0.0.1:7071/durabletask/"
WEBHOOKS = "http://127.0.0.1:7071/runtime/webhooks/durabletask/instances/INSTANCEID"
BINDING = {
    "taskHubName": "BusinessRelay",
    "connectionName": None,
    "creationUrls": {"createNewInstancePostUri": "", "createAndWaitOnNewInstancePostUri": ""},
    "managementUrls": {
        "id": "INSTANCEID",
        "statusQueryGetUri": f"{WEBHOOKS}?code=system-key",
        "sendEventPostUri": f"{WEBHOOKS}/raiseEvent/{{eventName}}?code=system-key",
        "terminatePostUri": f"{WEBHOOKS}/terminate?reason={{text}}&code=system-key",
        "rewindPostUri": f"{WEBHOOKS}/rewind?reason={{text}}&code=system-key",
        "purgeHistoryDeleteUri": f"{WEBHOOKS}?code=system-key",
        "restartPostUri": f"{WEBHOOKS}/restart?code=system-key",
        "suspendPostUri": f"{WEBHOOKS}/suspend?reason={{text}}&code=system-key",
        "resumePostUri": f"{WEBHOOKS}/resume?reason={{text}}&code=system-key",
    },
    "baseUrl": "http://127.0.0.1:7071/runtime/webhooks/durabletask",
    "requiredQueryStringParameters": "code=system-key",
    "rpcBaseUrl": RPC,
    "httpBaseUrl": "http://127.0.0.1:7071/runtime/webhooks/durabletask",
}
ALIVE = {"Pending", "Running", "Suspended"}
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
EXISTS = "An Orchestration instance with the status Running already exists."
BROKEN = [500, {"Message": "Something went wrong while processing your request", "ExceptionMessage": "storage is away"}]


@dataclass
class Instance:
    """An orchestration as the host has it; `starts` counts how often this id was started."""

    name: str
    input: Any
    status: str = "Running"
    output: Any = None
    custom_status: Any = None
    starts: int = 1
    looks: int = 0
    created: datetime = NOON
    updated: datetime = NOON


class DurableHost:
    """`instances` by their ids, each begun a second after the one before.

    `start_faults` and `read_faults` are answers or exceptions for the next calls. A start that is answered with a fault
    has not happened, unless the fault is paired with True. `on_read` is called with each instance before it is shown;
    `duplicate_status` is what a host of its age answers to a duplicate.
    """

    def __init__(self, duplicate_status: int = 409) -> None:
        self.instances: dict[str, Instance] = {}
        self.start_faults: deque[tuple[Exception | list[Any], bool]] = deque()
        self.read_faults: deque[Exception | list[Any]] = deque()
        self.on_read: Callable[[Instance], None] = lambda _instance: None
        self.duplicate_status = duplicate_status
        self.calls: list[str] = []
        self.begun = 0

    def client(self) -> Any:  # noqa: ANN401 - the Durable SDK has no types
        """Give the SDK's own client, with this host behind it."""
        client = DurableOrchestrationClient(json.dumps(BINDING))
        # The SDK's seam for its own tests.
        client._post_async_request = self._post  # noqa: SLF001 - the same
        client._get_async_request = self._get  # noqa: SLF001 - the same
        return client

    async def _post(self, url: str, data: Any = None, *_: object) -> list[Any]:  # noqa: ANN401 - any JSON
        self.calls.append(f"POST {url}")
        await asyncio.sleep(0)  # other callers come in between, as they do over a network
        _rest, name, instance_id = url.removeprefix(RPC).split("/")
        fault, happens = self.start_faults.popleft() if self.start_faults else (None, True)
        if happens:
            there = self.instances.get(instance_id)
            if there is not None and there.status in ALIVE:
                message = {"Message": "Something went wrong", "ExceptionMessage": EXISTS}
                return [self.duplicate_status, message]
            self.begun += 1
            now = NOON + timedelta(seconds=self.begun)
            starts = there.starts + 1 if there else 1
            self.instances[instance_id] = Instance(name, data, starts=starts, created=now, updated=now)
        if isinstance(fault, Exception):
            raise fault
        return fault or [202, {"id": instance_id}]

    async def _get(self, url: str, *_: object) -> list[Any]:
        self.calls.append(f"GET {url}")
        await asyncio.sleep(0)
        fault = self.read_faults.popleft() if self.read_faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault:
            return fault
        path, _mark, query = url.removeprefix(RPC).partition("?")
        instance_id = path.removeprefix("instances/")
        instance = self.instances.get(instance_id)
        if instance is None:
            return [404, ""]
        instance.looks += 1
        self.on_read(instance)
        status = {
            "name": instance.name,
            "instanceId": instance_id,
            "runtimeStatus": instance.status,
            "input": instance.input if "showInput=True" in query else None,
            "customStatus": instance.custom_status,
            "output": instance.output,
            "createdTime": f"{instance.created:%Y-%m-%dT%H:%M:%SZ}",
            "lastUpdatedTime": f"{instance.updated:%Y-%m-%dT%H:%M:%SZ}",
        }
        return [202 if instance.status in ALIVE else 200, status]
