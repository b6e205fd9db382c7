"""The commands of docs/operations.md do what the page says, in their order, against a partner and the app."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sandbox.sample import business
from tests.end_to_end.stage import finished, until

if TYPE_CHECKING:
    import httpx

    from tests.end_to_end.conftest import StartStage
    from tests.end_to_end.stage import Stage

pytestmark = pytest.mark.long

PROJECT = Path(__file__).parents[2]
BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INSTANCES = "/runtime/webhooks/durabletask/instances"


def commands() -> list[str]:
    """Give the page's blocks of commands, but for those that need Azure."""
    blocks = BLOCK.findall((PROJECT / "docs" / "operations.md").read_text(encoding="utf-8"))
    return [block for block in blocks if not block.startswith("# Needs Azure.")]


async def run(stage: Stage, block: str) -> None:
    """Run a block in a shell, at the addresses of this stage; every command must succeed."""
    block = block.replace("http://127.0.0.1:7071", stage.host.url).replace("http://127.0.0.1:8081", stage.partner.url)
    block = re.sub(r"^( *)curl ", r"\1curl --fail-with-body --silent --show-error ", block, flags=re.MULTILINE)
    shell = await asyncio.create_subprocess_exec(
        *("sh", "-e", "-c", block), cwd=PROJECT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await shell.communicate()
    assert shell.returncode == 0, f"{block}\n{output.decode()}"


async def test_every_command_of_the_runbook_does_what_it_says(start: StartStage, http: httpx.AsyncClient) -> None:
    stage = start()
    for block in commands():
        await run(stage, block)

    async def all_have_ended() -> dict[str, dict[str, Any]] | None:
        listed = (await http.get(f"{stage.host.url}{INSTANCES}")).json()
        ended = all(instance["runtimeStatus"] in {"Completed", "Failed", "Terminated"} for instance in listed)
        return {instance["instanceId"]: instance for instance in listed} if ended else None

    instances = await until(all_have_ended)
    single, cancelled, batch = (re.compile(f"key-{digits}").match for digits in ("173d0ddb", "183e45c3", "fb93fec1"))
    [terminated] = [instance for id_, instance in instances.items() if cancelled(id_)]
    assert (terminated["runtimeStatus"], terminated["output"]) == ("Terminated", "mistake")
    assert terminated["customStatus"]["outcome"] == "deferred"
    counts = [
        (instance["output"]["created"], instance["output"]["rejected"])
        for id_, instance in sorted(instances.items())
        if batch(id_)
    ]
    assert counts == [(1, 1), (1, 0)]
    assert not any(map(single, instances)), "it was purged"
    restarted = [instance["output"] for instance in instances.values() if "outcome" in (instance["output"] or {})]
    assert [output["outcome"] for output in restarted if isinstance(output, dict)] == ["exists"]
    assert await stage.stored(http) == {"crm-1": 1, "crm-2": 1, "crm-4711": 1}
    assert (await http.get(f"{stage.partner.url}/sandbox/faults")).json() == []


async def test_a_suspended_delivery_goes_on_after_its_deadline_with_one_more_attempt(
    start: StartStage, http: httpx.AsyncClient
) -> None:
    # It waits for some seconds between its attempts: time enough to be seen and suspended, on a busy machine too.
    retry = {"DELIVERY_DEADLINE": "12", "DELIVERY_RETRY_FIRST": "9", "DELIVERY_RETRY_MAX": "9"}
    stage = start(environ=retry)
    await stage.set_faults(http, {"fault": "status", "route": "post", "status": 500, "times": 1})
    response = await http.post(f"{stage.host.url}/api/businesses", json=business("b-1"))
    links = response.json()

    async def status() -> dict[str, Any]:
        shown: dict[str, Any] = (await http.get(links["statusQueryGetUri"])).json()
        return shown

    async def waits() -> bool:
        return "nextAttempt" in ((await status())["customStatus"] or {})

    async def is_suspended() -> bool:
        return bool((await status())["runtimeStatus"] == "Suspended")

    async def is_over() -> bool:
        # Its beginning is shown without the fractions of its second.
        began_at = datetime.fromisoformat((await status())["createdTime"])
        return datetime.now(UTC) > began_at + timedelta(seconds=13)

    await until(waits)
    await http.post(links["suspendPostUri"])
    await until(is_suspended)
    # The deadline is on the wall's clock.
    await until(is_over)
    await http.post(links["resumePostUri"])
    ended = await finished(http, links["statusQueryGetUri"])

    assert (ended["runtimeStatus"], ended["output"]["attempts"]) == ("Completed", 2)
