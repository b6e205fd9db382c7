"""The app under the sandbox's host with the corpus's record types, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sandbox.processes import SandboxProcess
from tests.hostile.servers import CLIENT, SECRET, leaks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

PROJECT = Path(__file__).parent.parent.parent
WEBHOOKS = "/runtime/webhooks/durabletask"
FINISHED = {"Completed", "Failed", "Terminated"}
MAX_RSS = 250 * 1024
"""KiB. Instances of Flex Consumption have 512 MB, with the host's process beside the worker."""

_SPEED = {"DELIVERY_RETRY_FIRST": "0.2", "DELIVERY_RETRY_MAX": "1", "DELIVERY_SETTLE": "0.3", "DELIVERY_DEADLINE": "90"}


class Answer(NamedTuple):
    """What the app answered; status 0 where it closed the connection without a word."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401, it is any JSON
        return json.loads(self.body)


def app_folder(folder: Path, partner: str) -> Path:
    """Make a folder with the app, in which `shared/partner.py` has the text `partner`."""
    shutil.copytree(PROJECT / "shared", folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("function_app.py", "host.json"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / "shared" / "partner.py").write_text(partner)
    return folder


def partner_settings(name: str, url: str) -> dict[str, str]:
    """Return the settings of a partner of `HostilePartner` at `url`."""
    return {
        f"{name}_URL": f"{url}/{name}",
        f"{name}_TOKEN_URL": f"{url}/{name}/token",
        f"{name}_CLIENT_ID": CLIENT,
        f"{name}_CLIENT_SECRET": SECRET,
        f"{name}_TIMEOUT": "20",
    }


class HostileRelay:
    """The app in `folder`, as a process of its own."""

    def __init__(self, folder: Path, environ: Mapping[str, str]) -> None:
        self._host = SandboxProcess("host", ["--app", str(folder), "--port", "0"], {**_SPEED, **environ})
        self.url = self._host.url
        self._port = int(self.url.rpartition(":")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._host.stop()

    async def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        """Send a request to a path below /api, whatever its bytes."""
        named = {"Host": f"127.0.0.1:{self._port}", "Content-Type": "application/json", **(headers or {})}
        lines = [f"{method} /api/{path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
        head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "Connection: close", "", ""])
        return await self.send(head.encode() + body)

    async def send(self, octets: bytes) -> Answer:
        """Send bytes, and read until the app closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(octets)
            async with asyncio.timeout(60):
                answer = await reader.read()
        except ConnectionError:
            answer = b""
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        named = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split(" ")[1]) if first else 0, named, body)

    async def deliver(self, route: str, record: object, headers: Mapping[str, str] | None = None) -> str:
        """Hand a record or a batch in. Return the delivery's id."""
        answer = await self.ask("POST", route, json.dumps(record).encode(), headers)
        assert answer.status == 202, answer
        return str(answer.json()["id"])

    async def host(self, method: str, path: str) -> Any:  # noqa: ANN401, it is any JSON
        """Ask the host itself, such as for the Durable extension's webhooks."""
        answer = await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return answer.json()

    async def instances(self) -> dict[str, dict[str, Any]]:
        """Return the status of each orchestration."""
        found = await self.host("GET", f"{WEBHOOKS}/instances?top=100000&showInput=false")
        return {each["instanceId"]: each for each in found}

    async def finished(
        self, ids: Iterable[str], patience: float = 150.0, final: Collection[str] = FINISHED
    ) -> dict[str, dict[str, Any]]:
        """Wait until these deliveries have one of these statuses. Return them as the app shows them."""
        wanted = set(ids)
        async with asyncio.timeout(patience):
            while True:
                there = await self.instances()
                if all(each in there and there[each]["runtimeStatus"] in final for each in wanted):
                    break
                await asyncio.sleep(0.3)
        return {each: (await self.ask("GET", f"deliveries/{each}")).json() for each in wanted}

    async def worker(self) -> dict[str, Any]:
        """Return the id and the restarts of the worker process."""
        found: dict[str, Any] = await self.host("GET", "/sandbox/worker")
        return found

    async def peak(self) -> int:
        """Return the most memory that the worker process has had, in KiB."""
        lines = Path(f"/proc/{(await self.worker())['pid']}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])

    async def assert_is_well(self, but: str = "a secret of this test") -> None:
        """Check that the worker has not ended, has stayed small, and has told no secret and no traceback."""
        assert (await self.worker())["restarts"] == 0
        peak = await self.peak()
        print(f"the worker's peak: {peak // 1024} MiB")  # noqa: T201, a figure for whoever runs it with -s
        assert peak < MAX_RSS
        assert "Traceback" not in self._host.output, self._host.output[self._host.output.index("Traceback") - 2000 :]
        texts = [self._host.output, json.dumps(await self.instances())]
        for id_ in list(await self.instances()):
            texts += [(await self.ask("GET", f"deliveries/{id_}{more}")).body.decode() for more in ("", "/history")]
        leaked = [leak for text in texts for leak in leaks(text)]
        assert not leaked, leaked
        assert not any(but in text for text in texts), but
