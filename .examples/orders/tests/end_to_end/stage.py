"""A partner and the app under the sandbox's host, and what tests ask of them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any, TypeVar

from sandbox.processes import SandboxProcess, app_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import ExitStack

    import httpx

T = TypeVar("T")

FINISHED = {"Completed", "Failed", "Terminated"}
# Every access token of the sandbox's partner starts with it, and this is its client's secret, plain and in base64.
SECRETS = ("sandbox-access-token-", "sandbox-secret", "c2FuZGJveC1jbGllbnQ6c2FuZGJveC1zZWNyZXQ")
# Seconds: long enough for a machine with much else to do; nothing waits for it in a good run.
PATIENCE = 90.0


class Stage:
    """A partner and the app against it."""

    def __init__(self, processes: ExitStack, partner: Sequence[str], environ: Mapping[str, str]) -> None:
        self.partner = processes.enter_context(SandboxProcess("partner", ["--port", "0", "--verbose", *partner]))
        settings = app_settings(self.partner.url) | {"DELIVERY_RETRY_MAX": "2", **environ}
        self.host = processes.enter_context(SandboxProcess("host", ["--port", "0"], settings))

    async def post(self, http: httpx.AsyncClient, business: object, key: str | None = None) -> str:
        """Hand a business in; give the URL of its status."""
        headers = {} if key is None else {"Idempotency-Key": key}
        response = await http.post(f"{self.host.url}/api/businesses", json=business, headers=headers)
        assert response.status_code == 202, response.text
        return str(response.json()["statusQueryGetUri"])

    async def all_finished(self, http: httpx.AsyncClient, urls: Iterable[str]) -> list[dict[str, Any]]:
        """Wait until the orchestrations of these status URLs have finished; give their statuses."""
        ids = [url.partition("?")[0].rpartition("/")[2] for url in urls]

        async def look() -> list[dict[str, Any]] | None:
            listed = (await http.get(f"{self.host.url}/runtime/webhooks/durabletask/instances?top=100000")).json()
            statuses = {status["instanceId"]: status for status in listed}
            done = all(statuses[instance_id]["runtimeStatus"] in FINISHED for instance_id in ids)
            return [statuses[instance_id] for instance_id in ids] if done else None

        return await until(look)

    async def counters(self, http: httpx.AsyncClient) -> dict[str, Any]:
        counters: dict[str, Any] = (await http.get(f"{self.partner.url}/sandbox/counters")).json()
        return counters

    async def stored(self, http: httpx.AsyncClient) -> dict[str, int]:
        """Tell how often each external id is stored."""
        records: dict[str, int] = (await http.get(f"{self.partner.url}/sandbox/records")).json()["externalIds"]
        return records

    async def are_stored(self, http: httpx.AsyncClient, least: int) -> bool:
        """Tell whether the partner has stored so many records."""
        return int((await self.counters(http))["records_stored"]) >= least

    async def set_faults(self, http: httpx.AsyncClient, *faults: dict[str, Any]) -> None:
        response = await http.put(f"{self.partner.url}/sandbox/faults", json=faults)
        assert response.status_code == 200, response.text

    async def kill_worker(self, http: httpx.AsyncClient) -> int:
        """End the worker process as the out-of-memory killer would; give its process id."""
        worker = (await http.get(f"{self.host.url}/sandbox/worker")).json()
        os.kill(worker["pid"], signal.SIGKILL)
        return int(worker["pid"])

    async def assert_no_secret(self, http: httpx.AsyncClient) -> None:
        """Look for tokens and secrets in every status with its history, and in all that the processes have written."""
        listed = await http.get(f"{self.host.url}/runtime/webhooks/durabletask/instances?top=10000&showInput=true")
        texts = [listed.text, self.host.output, self.partner.output]
        for instance in listed.json()[:50]:
            url = f"{self.host.url}/runtime/webhooks/durabletask/instances/{instance['instanceId']}"
            texts.append((await http.get(f"{url}?showInput=true&showHistory=true&showHistoryOutput=true")).text)
        for secret in SECRETS:
            assert not any(secret in text for text in texts), secret


async def finished(http: httpx.AsyncClient, url: str, patience: float = PATIENCE) -> dict[str, Any]:
    """Wait until an orchestration has finished; give its status."""

    async def look() -> dict[str, Any] | None:
        response = await http.get(url)
        assert response.status_code in {200, 202}, response.text
        status: dict[str, Any] = response.json()
        return status if status["runtimeStatus"] in FINISHED else None

    return await until(look, patience)


async def until(look: Callable[[], Awaitable[T | None]], patience: float = PATIENCE) -> T:
    """Look again and again until there is something to see; give it."""
    pause = 0.05
    async with asyncio.timeout(patience):
        while True:
            seen = await look()
            if seen:
                return seen
            await asyncio.sleep(pause)
            # Hundreds may be looking: those who wait longest look least.
            pause = min(1.5 * pause, 0.5)
