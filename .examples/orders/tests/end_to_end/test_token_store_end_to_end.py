from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sandbox.processes import SandboxProcess, app_settings
from sandbox.sample import business
from tests.end_to_end.stage import finished
from tests.fakes.redis_server import RedisServer, needs_redis

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    import httpx


@needs_redis
async def test_two_instances_of_the_app_share_a_token_and_outlive_their_store(
    processes: ExitStack, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    redis = processes.enter_context(RedisServer(tmp_path))
    partner = processes.enter_context(SandboxProcess("partner", ["--port", "0"]))
    environ = app_settings(partner.url) | {"TOKEN_STORE_URL": redis.url, "TOKEN_STORE_KEY": "k" * 32}
    hosts = [processes.enter_context(SandboxProcess("host", ["--port", "0"], environ)) for _ in range(2)]

    async def deliver(number: int) -> str:
        url = f"{hosts[number % 2].url}/api/businesses"
        response = await http.post(url, json=business(f"record-{number}"))
        status = await finished(http, response.json()["statusQueryGetUri"])
        return str(status["runtimeStatus"])

    before = await asyncio.gather(*map(deliver, range(20)))
    with redis.client() as client:
        stored = [client.dump(key) or b"" for key in client.keys("*")]
    shared = (await http.get(f"{partner.url}/sandbox/counters")).json()
    redis.stop()
    after = await asyncio.gather(*map(deliver, range(20, 40)))

    assert set(before) == set(after) == {"Completed"}
    assert shared["token_requests"] == 1
    assert stored
    assert not any(b"sandbox-access-token-" in value for value in stored)
    assert (await http.get(f"{partner.url}/sandbox/counters")).json()["token_requests"] == 1
