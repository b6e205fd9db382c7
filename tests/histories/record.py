"""Records the histories of one version of the app: `.venv/bin/python -m tests.histories.record v1.0.0`.

Each scenario runs the app with the record type of tests/models.py under the sandbox's host, against the sandbox's
partner. A version is recorded once and never written again: tests/test_histories.py replays all of them, because a
delivery that is under way during an upgrade replays its history through the new code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from sandbox.processes import PROJECT, SandboxProcess
from sandbox.resources import sandbox_settings
from shared.durable.batch_orchestrator import deliver_batch
from shared.durable.orchestrators import deliver_one
from tests.histories.recording import FOLDER, Recording
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SETTINGS = {"DELIVERY_RETRY_FIRST": "0.2", "DELIVERY_RETRY_MAX": "0.5", "DELIVERY_CHUNK": "3", "DELIVERY_SETTLE": "0.3"}
# Two chunks at a time.
SETTINGS |= {"CARRIER_API_MAX_CONNECTIONS": "6"}
ORCHESTRATORS = {
    PARCEL.deliver: partial(deliver_one, resource=PARCEL),
    PARCEL.deliver_batch: partial(deliver_batch, resource=PARCEL),
}
PATIENCE = 60.0


def parcel(number: int) -> dict[str, Any]:
    return {"parcelId": f"P-{number}", "weight": 1.5, "note": "Zoë's “Bar”", "more": [None, True, {"a": []}]}


class App:
    """The app with parcels under the sandbox's host, and what scenarios do with it."""

    def __init__(self, processes: ExitStack, **settings: str) -> None:
        folder = Path(processes.enter_context(tempfile.TemporaryDirectory()))
        shutil.copytree(PROJECT / "shared", folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("function_app.py", "host.json"):
            shutil.copy(PROJECT / name, folder)
        model = (PROJECT / "tests" / "models.py").read_text(encoding="utf-8")
        (folder / "shared" / "partner.py").write_text(f"{model}\n\nRESOURCES = [PARCEL]\n", encoding="utf-8")
        app = ["--app", str(folder), "--port", "0"]
        self.partner = processes.enter_context(SandboxProcess("partner", app))
        environ = sandbox_settings(self.partner.url, [PARCEL]) | SETTINGS | settings
        self.host = processes.enter_context(SandboxProcess("host", app, environ))
        self.http = processes.enter_context(httpx.Client(trust_env=False, timeout=PATIENCE))

    def faults(self, *faults: dict[str, Any]) -> None:
        self.http.put(f"{self.partner.url}/sandbox/faults", json=faults).raise_for_status()

    def start(self, records: object, key: str) -> str:
        """Start a delivery. Return the URL of its state."""
        path = "parcels/batch" if isinstance(records, list) else "parcels"
        response = self.http.post(f"{self.host.url}/api/{path}", json=records, headers={"Idempotency-Key": key})
        response.raise_for_status()
        return str(response.json()["statusQueryGetUri"])

    def until(self, url: str, *states: str) -> str:
        """Wait until a delivery is in one of these states. Return its id."""
        deadline = time.monotonic() + PATIENCE
        while (delivery := self.http.get(url).json())["state"] not in states:
            assert time.monotonic() < deadline, delivery
            time.sleep(0.05)
        return str(delivery["id"])

    def act(self, url: str, verb: str) -> None:
        self.http.post(f"{url}/{verb}").raise_for_status()


def refused(status: int, **more: object) -> dict[str, Any]:
    return {"fault": "status", "route": "post", "status": status, **more}


LOST = {"fault": "drop", "route": "post", "stage": "after"}


def created(app: App, records: object, key: str) -> str:
    return app.until(app.start(records, key), "delivered")


def exists(app: App, records: object, key: str) -> str:
    created(app, records, f"{key}-first")
    return created(app, records, key)


def deferred(app: App, records: object, key: str) -> str:
    app.faults(refused(429, retry_after=1, times=1), refused(500, times=1), LOST | {"times": 1})
    return app.until(app.start(records, key), "delivered")


def rejected(app: App, records: object, key: str) -> str:
    app.faults(refused(500, times=1), refused(422, body={"title": "Refused", "detail": "Kein Ort “Xanadú”", "code": 7}))
    return app.until(app.start(records, key), "rejected", "partly")


def expired(app: App, records: object, key: str) -> str:
    app.faults(refused(500))
    return app.until(app.start(records, key), "expired", "partly")


def cancelled(app: App, records: object, key: str) -> str:
    app.faults(refused(429, retry_after=600))
    url = app.start(records, key)
    app.until(url, "waiting")
    app.act(url, "cancel")
    return app.until(url, "cancelled")


def suspended(app: App, records: object, key: str) -> str:
    app.faults(refused(429, retry_after=1, times=1))
    url = app.start(records, key)
    app.until(url, "waiting")
    app.act(url, "suspend")
    app.until(url, "suspended")
    # Its timer fires meanwhile.
    time.sleep(1.5)
    app.act(url, "resume")
    return app.until(url, "delivered")


def continued(app: App, records: object, key: str) -> str:
    app.faults(refused(500, times=25))
    return app.until(app.start(records, key), "delivered")


def redelivered(app: App, records: object, key: str) -> str:
    app.faults(refused(422))
    url = app.start(records, key)
    app.until(url, "rejected", "partly")
    app.faults()
    again = app.http.post(f"{url}/redeliver").json()
    return app.until(again["statusQueryGetUri"], "delivered")


def mixed(app: App, records: object, key: str) -> str:
    app.faults(
        refused(422, record="P-*1", body={"title": "Refused"}),
        refused(429, record="P-*2", retry_after=1, times=2),
        refused(500, record="P-*3", times=1),
        LOST | {"record": "P-*4", "times": 1},
    )
    return app.until(app.start(records, key), "partly")


ONE: tuple[Callable[[App, object, str], str], ...] = (
    created,
    exists,
    deferred,
    rejected,
    cancelled,
    suspended,
    continued,
    redelivered,
)
BATCH = (created, deferred, rejected, cancelled, suspended, continued, redelivered, mixed)


def record(folder: Path, version: str, one: Sequence[Any] = ONE, batch: Sequence[Any] = BATCH) -> list[Recording]:
    """Record every scenario with one record and with a batch of seven.

    Raises:
        FileExistsError: this version is recorded already.
    """
    made = []
    with ExitStack() as processes:
        app = App(processes)
        impatient = App(processes, DELIVERY_DEADLINE="2")
        number = 0
        for kind, scenarios in (("one", [*one, expired]), ("batch", [*batch, expired])):
            for scenario in scenarios:
                its = impatient if scenario is expired else app
                its.faults()
                number += 10
                records = parcel(number) if kind == "one" else [parcel(number + index) for index in range(7)]
                name = f"{kind}-{scenario.__name__}"
                recording = _recording(its, version, name, scenario(its, records, name))
                recording.save(folder / f"{name}.json")
                made.append(recording)
    return made


def _recording(app: App, version: str, scenario: str, instance_id: str) -> Recording:
    history = app.http.get(f"{app.host.url}/sandbox/histories/{instance_id}").raise_for_status().json()
    status = app.http.get(f"{app.host.url}/api/deliveries/{instance_id}").json()["runtimeStatus"]
    name = next(event["Name"] for event in history if event["EventType"] == 0)
    return Recording.make(
        _handle(name),
        version=version,
        scenario=scenario,
        orchestrator=name,
        instance_id=instance_id,
        status=status,
        history=history,
    )


def _handle(name: str) -> Callable[[str], str]:
    from azure.durable_functions import Orchestrator  # noqa: PLC0415, as the host's worker does

    handle: Callable[[str], str] = Orchestrator.create(ORCHESTRATORS[name])
    return handle


def main() -> None:
    """Record the version that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("version", help="such as v1.0.0")
    version = parser.parse_args().version
    folder = FOLDER / version
    folder.mkdir()
    print(json.dumps([recording.scenario for recording in record(folder, version)]))  # noqa: T201, it is a command


if __name__ == "__main__":
    main()
