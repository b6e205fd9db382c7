from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import weakref
from typing import TYPE_CHECKING

import pytest

from sandbox.sample import business
from shared import container as container_module
from shared.container import Container
from shared.delivery import activities, routes
from shared.delivery.attempt import Attempt
from shared.delivery.exchange import Request
from shared.errors import SettingsError, TokenRejectedError
from tests.fakes.durable_client import DurableHost
from tests.fakes.raw_server import RawServer, answering, response
from tests.fakes.token_server import TokenServer, refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shared.api.business_api import BusinessApi

PATIENT = 20.0
# Nobody listens there, and nobody is asked: a client is made without a connection.
ENVIRON = {
    "BUSINESS_API_URL": "http://127.0.0.1:9/v1",
    "BUSINESS_API_TOKEN_URL": "http://127.0.0.1:9/token",
    "BUSINESS_API_CLIENT_ID": "relay",
    "BUSINESS_API_CLIENT_SECRET": "s3cr3t",
}


@pytest.fixture
async def tokens() -> AsyncIterator[TokenServer]:
    async with TokenServer() as running:
        yield running


def test_the_app_has_one_container_of_the_process_environment() -> None:
    assert container_module.container._environ is os.environ  # noqa: SLF001, that it is this one is what is tested


def test_making_a_container_reads_no_setting() -> None:
    assert isinstance(Container({}), Container)


def test_valid_settings_are_kept() -> None:
    environ = dict(ENVIRON)
    container = Container(environ)
    settings = container.settings()
    environ["BUSINESS_API_TIMEOUT"] = "1"
    assert container.settings() is settings
    assert settings.timeout == 30


def test_wrong_settings_are_read_again_when_they_were_mended() -> None:
    environ: dict[str, str] = {}
    container = Container(environ)
    for _ in range(2):
        with pytest.raises(SettingsError, match="BUSINESS_API_URL is missing"):
            container.settings()
    environ.update(ENVIRON)
    assert container.settings().name == "BUSINESS_API"


async def test_one_api_client_is_made_however_many_ask_for_it_at_once() -> None:
    container = Container(ENVIRON)
    apis = await asyncio.gather(*(container.business_api() for _ in range(50)))
    assert len({id(api) for api in apis}) == 1
    assert await container.business_api() is apis[0]
    await container.aclose()


async def test_the_first_caller_can_go_away_without_taking_the_client_along() -> None:
    container = Container(ENVIRON)
    first = asyncio.create_task(container.business_api())
    others = [asyncio.create_task(container.business_api()) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    apis = await asyncio.gather(*others)
    assert apis == [await container.business_api()] * 3
    await container.aclose()


def test_the_event_loop_goes_on_while_a_client_is_made_with_all_that_it_imports() -> None:
    code = """
import asyncio, json, sys
from shared.container import Container

async def main():
    making = asyncio.create_task(Container(json.loads(sys.argv[1])).business_api())
    steps, before = 0, set()
    while not making.done():
        await asyncio.sleep(0)
        steps += 1
        before = before or {"redis", "cryptography", "jwt", "httpx"} & set(sys.modules)
    await making
    print(steps > 100, {"redis", "cryptography", "jwt", "httpx"} <= set(sys.modules), len(before) < 4)

asyncio.run(main())
"""
    environ = ENVIRON | {
        "BUSINESS_API_CLIENT_AUTH": "private_key_jwt",
        "BUSINESS_API_CLIENT_CERTIFICATE": "/nowhere.pem",
        "TOKEN_STORE_URL": "unix:///nowhere/redis.sock",
        "TOKEN_STORE_KEY": "k" * 32,
    }
    done = subprocess.run(  # noqa: S603, the code is this module's own
        [sys.executable, "-c", code, json.dumps(environ)], capture_output=True, text=True, check=True, timeout=100
    )
    assert done.stdout.split() == ["True"] * 3


async def test_wrong_settings_fail_every_call_until_they_are_mended() -> None:
    environ: dict[str, str] = {}
    container = Container(environ)
    results = await asyncio.gather(
        *(container.business_api() for _ in range(3)), container.check_token(), return_exceptions=True
    )
    assert [type(result) for result in results] == [SettingsError] * 4
    environ.update(ENVIRON)
    assert await container.business_api()
    await container.aclose()


async def test_while_a_secret_is_not_resolved_nothing_is_sent_and_what_waits_is_delivered_later(
    tokens: TokenServer,
) -> None:
    record = business("b-1")
    async with RawServer(answering(response(b"{}", status="201 Created"))) as server:
        addresses = {"BUSINESS_API_URL": server.url, "BUSINESS_API_TOKEN_URL": tokens.url}
        secret = {"BUSINESS_API_CLIENT_SECRET": "@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/s)"}
        environ = ENVIRON | addresses | secret
        container = Container(environ)
        attempt = Attempt(record, "key-1", "key-1", look_up=False).to_json()

        first = await activities.post_business(attempt, container.business_api, container.gate)
        health = await routes.get_health(Request("/api/health", {}), container.settings)
        refused = await routes.post_business(taking(record), DurableHost().client(), container.settings)
        deep = await routes.get_deep_health(container.check_token)
        assert (first["outcome"], health.status, refused.status, deep.status) == ("deferred", 503, 503, 503)
        said = first["reason"], refused.body.decode(), deep.body.decode()
        assert all("BUSINESS_API_CLIENT_SECRET is a reference that is not resolved" in text for text in said)
        assert "vault.example" not in "".join(said)
        assert tokens.requests == []

        environ["BUSINESS_API_CLIENT_SECRET"] = "s3cr3t"
        second = await activities.post_business(attempt, container.business_api, container.gate)
        health = await routes.get_health(Request("/api/health", {}), container.settings)
        assert (second["outcome"], health.status) == ("created", 200)
        await container.aclose()
    assert len(tokens.requests) == 1


def taking(record: dict[str, str]) -> Request:
    return Request("/api/businesses", {"content-type": "application/json"}, json.dumps(record).encode())


async def test_a_second_api_is_a_second_name(tokens: TokenServer) -> None:
    async with RawServer(answering(response(b'"one"'))) as one, RawServer(answering(response(b'"two"'))) as two:
        environ = ENVIRON | {"BUSINESS_API_URL": one.url, "BUSINESS_API_TOKEN_URL": f"{tokens.origin}/one"}
        environ |= {name.replace("BUSINESS_API", "CRM_API"): value for name, value in ENVIRON.items()}
        environ |= {"CRM_API_URL": two.url, "CRM_API_TOKEN_URL": f"{tokens.origin}/two"}
        container = Container(environ)
        api, crm = await container.business_api(), await container.business_api("CRM_API")
        assert api is not crm
        assert [(await api.get_business("a")).content, (await crm.get_business("a")).content] == ["one", "two"]
        assert await container.business_api("CRM_API") is crm
        await container.aclose()
    assert [request.target for request in tokens.requests] == ["/one", "/two"]


async def test_a_token_can_be_had(tokens: TokenServer) -> None:
    container = Container(ENVIRON | {"BUSINESS_API_TOKEN_URL": tokens.url})
    await container.check_token()
    await container.check_token()
    await container.aclose()
    assert len(tokens.requests) == 1


async def test_a_token_that_cannot_be_had_is_an_error(tokens: TokenServer) -> None:
    tokens.queue.extend([refusal("invalid_client", status=401)] * 2)
    container = Container(ENVIRON | {"BUSINESS_API_TOKEN_URL": tokens.url})
    with pytest.raises(TokenRejectedError, match="invalid_client"):
        await container.check_token()
    await container.aclose()


async def test_after_closing_a_new_client_is_made(tokens: TokenServer) -> None:
    async with RawServer(answering(response(b"{}"))) as server:
        container = Container(ENVIRON | {"BUSINESS_API_URL": server.url, "BUSINESS_API_TOKEN_URL": tokens.url})
        first = await container.business_api()
        await first.get_business("a")
        await container.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await first.get_business("a")
        second = await container.business_api()
        assert (await second.get_business("a")).status == 200
        await container.aclose()
    await container.aclose()


async def test_closing_while_a_client_is_made_leaves_nothing_behind() -> None:
    container = Container(ENVIRON)
    making = asyncio.create_task(container.business_api())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await container.aclose()
    with pytest.raises(asyncio.CancelledError):
        await making
    assert asyncio.all_tasks() == {asyncio.current_task()}


def test_a_client_belongs_to_its_event_loop_and_goes_with_it() -> None:
    container = Container(ENVIRON)

    async def use() -> tuple[BusinessApi, weakref.ref[asyncio.AbstractEventLoop]]:
        return await container.business_api(), weakref.ref(asyncio.get_running_loop())

    first, loop = asyncio.run(use())
    second, _ = asyncio.run(use())
    assert first is not second
    gc.collect()
    assert loop() is None
