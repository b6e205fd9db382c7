"""Records the histories of one version of the app: `.venv/bin/python -m tests.histories.record v0.2.0`.

Each scenario goes through the sandbox's host and partner, end to end. What a version has recorded is never written
again: a new version has a folder of its own, and all are replayed by tests/test_histories.py.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx

from sandbox import sample
from tests.end_to_end.stage import Stage, finished, until
from tests.fakes.registered_functions import FUNCTIONS
from tests.histories.recording import FOLDER, Recording

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    # Brings an orchestration about and to its end; gives its instance id.
    Scenario = Callable[[Stage, httpx.AsyncClient], Awaitable[str]]

WEBHOOKS = "/runtime/webhooks/durabletask"
QUICK = {"DELIVERY_RETRY_FIRST": "0.2", "DELIVERY_RETRY_MAX": "1", "DELIVERY_CHUNK": "3"}
# Two chunks at a time.
QUICK |= {"BUSINESS_API_MAX_CONNECTIONS": "6"}


def business(number: int = 0) -> dict[str, Any]:
    return sample.business(f"record-{number}", note="Zoë's “Bar”", rating=4.5, more=[None, True, {"a": []}])


async def hand_in(stage: Stage, http: httpx.AsyncClient, records: object, key: str) -> dict[str, Any]:
    """Hand in one record, or a batch; give Durable's links."""
    path = "businesses/batch" if isinstance(records, list) else "businesses"
    response = await http.post(f"{stage.host.url}/api/{path}", json=records, headers={"Idempotency-Key": key})
    assert response.status_code == 202, response.text
    links: dict[str, Any] = response.json()
    return links


async def ended(http: httpx.AsyncClient, links: dict[str, Any], status: str = "Completed") -> str:
    """Wait for an orchestration's end; give its instance id."""
    document = await finished(http, links["statusQueryGetUri"])
    assert document["runtimeStatus"] == status, document
    return str(links["id"])


async def waits(http: httpx.AsyncClient, links: dict[str, Any], member: str) -> bool:
    """Tell whether the custom status says that the orchestration waits."""
    status = (await http.get(links["statusQueryGetUri"])).json()["customStatus"]
    return isinstance(status, dict) and member in status


async def manage(http: httpx.AsyncClient, links: dict[str, Any], operation: str) -> None:
    response = await http.post(links[f"{operation}PostUri"].replace("{text}", "on purpose"))
    assert response.status_code == 202, response.text


async def pause(http: httpx.AsyncClient, links: dict[str, Any]) -> None:
    """Suspend an orchestration, and let it go on after a while in which its timer would have fired."""

    async def is_in(status: str) -> bool:
        return bool((await http.get(links["statusQueryGetUri"])).json()["runtimeStatus"] == status)

    await manage(http, links, "suspend")
    await until(partial(is_in, "Suspended"))
    await asyncio.sleep(1.5)
    await manage(http, links, "resume")


def answer(status: int, **more: object) -> dict[str, Any]:
    return {"fault": "status", "route": "post", "status": status, **more}


async def created(stage: Stage, http: httpx.AsyncClient) -> str:
    return await ended(http, await hand_in(stage, http, business(), "created"))


async def exists(stage: Stage, http: httpx.AsyncClient) -> str:
    await ended(http, await hand_in(stage, http, business(1), "first"))
    return await ended(http, await hand_in(stage, http, business(1), "exists"))


async def deferred(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(
        http, answer(429, retry_after=2, times=1), answer(503, retry_after=1, times=1), answer(500, times=1)
    )
    return await ended(http, await hand_in(stage, http, business(2), "deferred"))


async def lost_answer(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, {"fault": "drop", "route": "post", "stage": "after", "times": 1})
    return await ended(http, await hand_in(stage, http, business(3), "lost-answer"))


async def rejected(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(422, body={"title": "Refused", "detail": "Kein Ort “Xanadú”", "code": 7}))
    return await ended(http, await hand_in(stage, http, business(4), "rejected"), "Failed")


async def rejected_late(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(500, times=1), answer(400))
    return await ended(http, await hand_in(stage, http, business(5), "rejected-late"), "Failed")


async def terminated(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(429, retry_after=60, times=1))
    links = await hand_in(stage, http, business(6), "terminated")
    await until(partial(waits, http, links, "nextAttempt"))
    await manage(http, links, "terminate")
    return await ended(http, links, "Terminated")


async def suspended(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(429, retry_after=1, times=1))
    links = await hand_in(stage, http, business(7), "suspended")
    await until(partial(waits, http, links, "nextAttempt"))
    await pause(http, links)
    return await ended(http, links)


async def given_up(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(500))
    return await ended(http, await hand_in(stage, http, business(), "given-up"), "Failed")


async def batch(stage: Stage, http: httpx.AsyncClient) -> str:
    return await ended(http, await hand_in(stage, http, [business(number) for number in range(10, 18)], "batch"))


async def batch_rounds(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(
        http,
        answer(422, external_id="record-2[04]", body={"title": "Refused", "detail": "no such city"}),
        answer(429, external_id="record-2[37]", retry_after=1, times=2),
        answer(500, external_id="record-25", times=1),
        {"fault": "drop", "route": "post", "stage": "after", "external_id": "record-26", "times": 1},
    )
    return await ended(http, await hand_in(stage, http, [business(number) for number in range(20, 30)], "rounds"))


async def batch_terminated(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(429, external_id="record-31", retry_after=60, times=1))
    links = await hand_in(stage, http, [business(number) for number in range(30, 34)], "batch-terminated")
    await until(partial(waits, http, links, "nextRound"))
    await manage(http, links, "terminate")
    return await ended(http, links, "Terminated")


async def batch_suspended(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(429, external_id="record-41", retry_after=1, times=1))
    links = await hand_in(stage, http, [business(number) for number in range(40, 44)], "batch-suspended")
    await until(partial(waits, http, links, "nextRound"))
    await pause(http, links)
    return await ended(http, links)


async def batch_given_up(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(500, external_id="record-5[13]"))
    return await ended(http, await hand_in(stage, http, [business(number) for number in range(50, 55)], "gave-up"))


async def lose_process(stage: Stage, http: httpx.AsyncClient, links: dict[str, Any], stored: int) -> str:
    """Kill the worker process when the partner has stored so many records, and answers one of them never."""
    await until(partial(stage.are_stored, http, stored))
    await stage.kill_worker(http)
    return await ended(http, links)


async def process_lost(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, {"fault": "hold", "route": "post", "stage": "after", "gate": "never", "times": 1})
    return await lose_process(stage, http, await hand_in(stage, http, business(70), "process-lost"), 1)


async def batch_process_lost(stage: Stage, http: httpx.AsyncClient) -> str:
    hold = {"fault": "hold", "route": "post", "stage": "after", "external_id": "record-8[05]", "gate": "never"}
    await stage.set_faults(http, {**hold, "times": 2})
    links = await hand_in(stage, http, [business(number) for number in range(80, 88)], "batch-process-lost")
    return await lose_process(stage, http, links, 7)


async def redelivered(stage: Stage, http: httpx.AsyncClient) -> str:
    await stage.set_faults(http, answer(422, external_id="record-6[02]"))
    links = await hand_in(stage, http, [business(number) for number in range(60, 64)], "to-redeliver")
    await ended(http, links)
    await stage.set_faults(http)
    response = await http.post(f"{stage.host.url}/api/batches/{links['id']}/redeliver")
    return await ended(http, response.json())


# The app's settings, and the scenarios that are recorded under them one after the other.
GROUPS: list[tuple[dict[str, str], list[Scenario]]] = [
    (QUICK, [created, exists, deferred, lost_answer, rejected, rejected_late, suspended, terminated]),
    (QUICK, [batch, batch_rounds, batch_suspended, redelivered, batch_terminated]),
    (QUICK | {"SANDBOX_LOST_ACTIVITIES": "fail"}, [process_lost, batch_process_lost]),
    (QUICK | {"DELIVERY_LOOK_UP": "uncertain", "DELIVERY_DEADLINE": "3"}, [given_up, batch_given_up]),
]


async def history_of(stage: Stage, http: httpx.AsyncClient, instance_id: str) -> list[dict[str, Any]]:
    """Give an instance's history, without tracebacks: they name the files of this machine."""
    history: list[dict[str, Any]] = (await http.get(f"{stage.host.url}/sandbox/histories/{instance_id}")).json()
    tracebacks = [event["Details"] for event in history if event.get("Details")]

    def shortened(value: object) -> object:
        # A failed activity's is in the orchestrator's own failure as well, as JSON.
        for form in (form for text in tracebacks for form in (text, json.dumps(text)[1:-1])):
            value = value.replace(form, "a traceback") if isinstance(value, str) else value
        return value

    return [{name: shortened(value) for name, value in event.items()} for event in history]


async def record_group(
    folder: Path, version: str, settings: dict[str, str], scenarios: Sequence[Scenario]
) -> list[Recording]:
    """Record some scenarios into a folder, each as a file of its own."""
    made = []
    with ExitStack() as processes:
        stage = Stage(processes, [], settings)
        async with httpx.AsyncClient(timeout=60) as http:
            for scenario in scenarios:
                await stage.set_faults(http)
                instance_id = await scenario(stage, http)
                status = (await http.get(f"{stage.host.url}{WEBHOOKS}/instances/{instance_id}")).json()
                recording = Recording.make(
                    FUNCTIONS[status["name"]].get_user_function(),
                    version=version,
                    scenario=scenario.__name__.replace("_", "-"),
                    orchestrator=status["name"],
                    instance_id=instance_id,
                    status=status["runtimeStatus"],
                    history=await history_of(stage, http, instance_id),
                )
                recording.save(folder / f"{recording.scenario}.json")
                made.append(recording)
    return made


async def record(folder: Path, version: str) -> None:
    """Record all scenarios into a new folder.

    Raises:
        FileExistsError: the version has been recorded.
    """
    folder.mkdir()
    for settings, scenarios in GROUPS:
        for recording in await record_group(folder, version, settings, scenarios):
            sys.stdout.write(f"{version}/{recording.scenario}: {len(recording.history)} events, {recording.status}\n")


def main(arguments: Sequence[str], histories: Path = FOLDER) -> int:
    """Run the command; give the exit code."""
    parser = argparse.ArgumentParser(description="Record the histories of one version of the app.")
    parser.add_argument("version", help="its name, as in v0.2.0; it must not have been recorded")
    version: str = parser.parse_args(arguments).version
    try:
        asyncio.run(record(histories / version, version))
    except FileExistsError:
        sys.stderr.write(f"{version} has been recorded: what a version has recorded is never written again\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
