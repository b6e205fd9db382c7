from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import SandboxProcess
from sandbox.resources import app_settings
from shared.partner import RESOURCES
from tests.end_to_end.stage import TOKEN, record
from tests.fakes.redis_server import RedisServer, needs_redis

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

    from tests.end_to_end.conftest import StartStage


@pytest.mark.long
@needs_redis
async def test_two_instances_of_the_app_share_a_token_and_outlive_their_store(
    start: StartStage, processes: ExitStack, tmp_path: Path
) -> None:
    redis = processes.enter_context(RedisServer(tmp_path))
    store = {"TOKEN_STORE_URL": redis.url, "TOKEN_STORE_KEY": "k" * 32}
    stage = start(environ=store)
    settings = app_settings(stage.partner.url, RESOURCES) | store
    other = processes.enter_context(SandboxProcess("host", ["--port", "0"], settings))
    hosts = [stage.host, other]

    async def deliver(number: int) -> str:
        stage.host = hosts[number % 2]
        return str((await stage.deliver(record(number)))["state"])

    before = await asyncio.gather(*map(deliver, range(1, 9)))
    with redis.client() as client:
        stored = [client.dump(key) or b"" for key in client.keys("*")]
    shared = (await stage.counters())["token_requests"]
    redis.stop()
    after = await asyncio.gather(*map(deliver, range(9, 17)))

    assert set(before) == set(after) == {"delivered"}
    assert (shared, (await stage.counters())["token_requests"]) == (1, 1)
    assert stored
    assert not any(TOKEN.encode() in value for value in stored)
