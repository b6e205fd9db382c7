"""A partner and the app under the sandbox's host, and what tests ask of them.

The record type is the first of `shared/partner.py`, whatever that is: nothing here names a member of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from sandbox.processes import PROJECT, SandboxProcess
from sandbox.resources import app_settings, base_path, client_of, partners_of
from sandbox.sample import sample_record
from shared.partner import RESOURCES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    import httpx

    from shared.resource import Resource

T = TypeVar("T")
Json = dict[str, Any]

RESOURCE: Resource = RESOURCES[0]
PREFIX = f"{RESOURCE.partner.name}_"
"""The prefix of the settings of its partner."""

# A test adds members of its own to a record, which a model may forbid.
needs_open_records = pytest.mark.skipif(
    RESOURCE.model.__struct_config__.forbid_unknown_fields, reason="the record type forbids other members"
)

WEBHOOKS = "/runtime/webhooks/durabletask"
# Every access token of the sandbox's partners begins with it.
TOKEN = "sandbox-access-token-"
# A client that makes its own context loads the certificates of the internet's authorities, which takes 50 ms.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
# Seconds: long enough for a machine with much else to do; nothing waits for it in a good run.
PATIENCE = 90.0


# By model and number: to make one takes a millisecond.
_samples: dict[tuple[type, int], Json] = {}


def record(number: int, resource: Resource = RESOURCE, /, **members: object) -> Json:
    """Return a record; other numbers have other ids."""
    key = resource.model, number
    if key not in _samples:
        _samples[key] = sample_record(resource, number)
    return _samples[key] | members


def records(count: int, **members: object) -> list[Json]:
    return [record(number, **members) for number in range(1, count + 1)]


def id_of(number: int, resource: Resource = RESOURCE) -> str:
    return str(record(number, resource)[resource.id_member])


def ids(count: int) -> dict[str, int]:
    """Return what the partner has stored after `records(count)` were delivered once each."""
    return {id_of(number): 1 for number in range(1, count + 1)}


def copy_app(folder: Path) -> None:
    """Copy what is deployed of the app, for a test that changes it."""
    shutil.copytree(PROJECT / "shared", folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("function_app.py", "host.json"):
        shutil.copy2(PROJECT / name, folder)


class Stage:
    """A partner and the app against it. `http` is the client of the running test.

    `partner` and `options` are options of the partner's and the host's command, `environ` are further app settings.
    `app` is the folder of the app, which describes `resources`. `via` returns the URL under which the app sees the
    partner. With a `store`, a folder, a host that is killed is started again on it.
    """

    http: httpx.AsyncClient

    def __init__(  # noqa: PLR0913, each but the first has a default
        self,
        processes: ExitStack,
        partner: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
        *,
        options: Sequence[str] = (),
        app: Path = PROJECT,
        resources: Sequence[Resource] = RESOURCES,
        via: Callable[[str], str] = str,
        store: Path | None = None,
    ) -> None:
        arguments = ["--app", str(app), "--port", "0"]
        self.resources = resources
        self.partner = processes.enter_context(SandboxProcess("partner", [*arguments, "--verbose", *partner]))
        settings = app_settings(via(self.partner.url), resources) | {"DELIVERY_RETRY_MAX": "2", "DELIVERY_SETTLE": "1"}
        self._processes = processes
        self._host_options = [*arguments, *options, *(["--store", str(store)] if store is not None else [])]
        self._settings = settings | dict(environ or {})
        self.host = processes.enter_context(SandboxProcess("host", self._host_options, self._settings))
        self.hosts = [self.host]
        self._restarts = 0
        self.key = self.host.function_key() if "--keys" in options else ""
        self.partner_url = self.partner.url + base_path(resources[0].partner)
        self.secrets = (TOKEN, *(client_of(partner)[1] for partner in partners_of(resources)))

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401, those of httpx
        """Ask a route below /api, with the function key where the host asks for one."""
        headers = {**({"x-functions-key": self.key} if self.key else {}), **options.pop("headers", {})}
        url = path if path.startswith("http") else f"{self.host.url}/api/{path}"
        return await self.http.request(method, url, headers=headers, **options)

    async def send(
        self,
        body: object,
        *,
        key: str | None = None,
        prefer: str | None = None,
        resource: Resource = RESOURCE,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a record or, where it is a list, a batch."""
        named = {"idempotency-key": key, "prefer": prefer, **(headers or {})}
        path = f"{resource.route}/batch" if isinstance(body, list) else resource.route
        sent = {name: value for name, value in named.items() if value is not None}
        return await self.ask("POST", path, json=body, headers=sent)

    async def start(self, body: object, *, key: str | None = None, resource: Resource = RESOURCE) -> Json:
        """Start a delivery; return its links."""
        response = await self.send(body, key=key, resource=resource)
        assert response.status_code == 202, response.text
        links: Json = response.json()
        return links

    async def finished(self, links: Mapping[str, Any], patience: float = PATIENCE) -> Json:
        """Wait until a delivery has finished; return it."""

        shown = ""

        async def look() -> Json | None:
            nonlocal shown
            response = await self.ask("GET", links["statusQueryGetUri"])
            # The host's own answer, without a body: the worker process was killed while it worked on this request.
            assert response.status_code in {200, 202} or not response.content, response.text
            shown = response.text or shown
            return response.json() if response.status_code == 200 else None

        try:
            return await until(look, patience)
        except TimeoutError:
            raise AssertionError(f"The delivery did not end within {patience:g} s: {shown}") from None

    async def deliver(self, body: object, *, resource: Resource = RESOURCE, key: str | None = None) -> Json:
        """Start a delivery, and wait for its end."""
        return await self.finished(await self.start(body, resource=resource, key=key))

    async def start_all(self, bodies: Iterable[object]) -> list[Json]:
        """Start a delivery of each at the same time; return their links."""
        return await asyncio.gather(*map(self.start, bodies))

    async def all_finished(self, links: Iterable[Mapping[str, Any]]) -> list[Json]:
        """Wait until all of these deliveries have finished; return them."""
        # One after the other: to poll hundreds at the same time costs more than to deliver them.
        return [await self.finished(each) for each in links]

    async def deliver_all(self, bodies: Iterable[object]) -> list[Json]:
        """Deliver all of them at the same time."""
        return await self.all_finished(await self.start_all(bodies))

    async def show(self, links: Mapping[str, Any], query: str = "") -> Json:
        """Return a delivery as it is now."""
        shown: Json = (await self.ask("GET", f"{links['statusQueryGetUri']}{query}")).json()
        return shown

    async def in_state(self, links: Mapping[str, Any], *states: str) -> Json:
        """Wait until a delivery is in one of these states; return it."""

        async def look() -> Json | None:
            shown = await self.show(links)
            return shown if shown["state"] in states else None

        return await until(look)

    async def control(self, method: str, path: str, **options: Any) -> Any:  # noqa: ANN401, those of httpx; any JSON
        """Ask a control route of the partner."""
        response = await self.http.request(method, f"{self.partner.url}/sandbox/{path}", **options)
        assert response.status_code == 200, response.text
        return response.json()

    async def set_faults(self, *faults: Mapping[str, Any]) -> None:
        """Put these faults in the place of all others."""
        await self.control("PUT", "faults", json=faults)

    async def counters(self) -> Json:
        counters: Json = await self.control("GET", "counters")
        return counters

    async def stored(self, resource: Resource = RESOURCE) -> dict[str, int]:
        """Return how often each id of a record type is stored."""
        shown = await self.control("GET", "records?records=false")
        counts: dict[str, int] = shown["ids"].get(resource.name, {})
        return counts

    async def are_stored(self, least: int) -> None:
        """Wait until the partner has stored so many records."""

        async def look() -> bool:
            return bool((await self.counters())["records_stored"] >= least)

        await until(look)

    async def kill_worker(self) -> int:
        """End the worker process as the out-of-memory killer would; return its process id."""

        async def killed() -> int | None:
            worker = (await self.http.get(f"{self.host.url}/sandbox/worker")).json()
            try:
                os.kill(worker["pid"], signal.SIGKILL)
            except ProcessLookupError:  # it has just ended
                return None
            return int(worker["pid"])

        return await until(killed)

    async def kill_host(self, *, with_worker: bool = False) -> None:
        """End the host the same way, just after its worker process if asked; start it again on its port and store."""
        self._restarts = await self.restarts()
        if with_worker:
            await self.kill_worker()
        os.kill(self.host.pid, signal.SIGKILL)
        self.host.wait()
        options = [*self._host_options, "--port", self.host.url.rpartition(":")[2]]
        # Its callers meet a closed port meanwhile.
        self.host = await asyncio.to_thread(SandboxProcess, "host", options, self._settings)
        self.hosts.append(self._processes.enter_context(self.host))

    async def restarts(self) -> int:
        """Return how often a host has started its worker process again."""
        worker = (await self.http.get(f"{self.host.url}/sandbox/worker")).json()
        return self._restarts + int(worker["restarts"])

    @property
    def host_output(self) -> str:
        """All that the hosts have written so far."""
        return "\n".join(host.output for host in self.hosts)

    async def durable(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401, those of httpx
        """Ask Durable's own webhooks, for what only they can do."""
        return await self.http.request(method, f"{self.host.url}{WEBHOOKS}/{path}", **options)

    async def assert_no_secret(self) -> None:
        """Look for tokens and secrets in every instance with its history, and in all that the processes wrote."""
        listed = await self.durable("GET", "instances?top=10000&showInput=true")
        texts = [listed.text, self.host_output, self.partner.output]
        for instance in listed.json()[:50]:
            path = f"instances/{instance['instanceId']}?showInput=true&showHistory=true&showHistoryOutput=true"
            texts.append((await self.durable("GET", path)).text)
        for secret in self.secrets:
            assert not any(secret in text for text in texts), secret


async def until(look: Callable[[], Awaitable[T | None]], patience: float = PATIENCE, most: float = 0.5) -> T:
    """Look again and again, every `most` seconds in the end, until there is something to see; return it."""
    pause = 0.05
    async with asyncio.timeout(patience):
        while True:
            seen = await look()
            if seen:
                return seen
            await asyncio.sleep(pause)
            # Hundreds may be looking: those who wait longest look least.
            pause = min(1.5 * pause, most)
