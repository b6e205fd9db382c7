from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.access_token import AccessToken
from shared.auth.token_store import RedisStore, StoredGrant, StoredToken, TokenCipher
from shared.errors import SettingsError, TokenStoreError
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.redis_server import RedisServer, needs_redis
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path


KEY = "k" * 32
TOKEN = StoredToken("at-1", 1_000.0, 4_600.0, 2_800.0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


@asynccontextmanager
async def open_store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url)
    yield store
    await store.aclose()


@needs_redis
async def test_what_one_store_writes_the_other_reads_until_it_expires(server: RedisServer) -> None:
    async with open_store(server) as one, open_store(server) as other:
        assert await other.read("name") is None
        await one.write("name", b"\x00\xff", 3600.5)
        assert await other.read("name") == b"\x00\xff"
        assert await other.read("another") is None
    with server.client() as client:
        assert 3_599_000 < client.pttl("business-relay:token:name") <= 3_600_500


@needs_redis
async def test_one_owner_at_a_time_has_the_lease(server: RedisServer) -> None:
    async with open_store(server) as store:
        assert await store.acquire("name", "one", 10)
        assert not await store.acquire("name", "two", 10)
        assert await store.acquire("another", "two", 10)
        await store.release("name", "two")
        assert not await store.acquire("name", "two", 10)
        await store.release("name", "one")
        assert await store.acquire("name", "two", 10)
    with server.client() as client:
        assert 9_000 < client.pttl("business-relay:lease:name") <= 10_000


@needs_redis
async def test_a_value_of_the_wrong_kind_is_a_store_error(server: RedisServer) -> None:
    with server.client() as client:
        client.lpush("business-relay:token:name", "x")
    async with open_store(server) as store:
        with pytest.raises(TokenStoreError, match="ResponseError"):
            await store.read("name")


@needs_redis
async def test_a_redis_that_is_down_is_a_store_error_at_once_and_can_come_back(server: RedisServer) -> None:
    async with open_store(server) as store:
        await store.write("name", b"value", 10)
        server.stop()
        for call in (store.read("name"), store.write("name", b"", 1), store.acquire("name", "a", 1)):
            with pytest.raises(TokenStoreError, match="ConnectionError"):
                await call
        with pytest.raises(TokenStoreError, match="ConnectionError"):
            await store.release("name", "a")
        server.start()
        assert await store.read("name") is None


@needs_redis
async def test_a_redis_that_hangs_can_be_given_up_and_can_come_back(server: RedisServer) -> None:
    async with open_store(server) as store:
        await store.write("name", b"value", 100)
        server.freeze()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await store.read("name")
        server.thaw()
        assert await store.read("name") == b"value"


@needs_redis
@pytest.mark.parametrize("milliseconds", [None, 3_600_000])
async def test_a_lease_that_would_not_end_is_taken_over_with_one_warning(
    server: RedisServer, caplog: pytest.LogCaptureFixture, milliseconds: int | None
) -> None:
    with server.client() as client:
        client.set("business-relay:lease:name", "rubbish", px=milliseconds)
    async with open_store(server) as store:
        assert await store.acquire("name", "one", 10)
        assert not await store.acquire("name", "two", 10)
        await store.release("name", "one")
        assert await store.acquire("name", "two", 10)
    assert [record.getMessage() for record in caplog.records] == ["token store held a lease without an end"]


@needs_redis
async def test_no_error_and_no_log_repeats_the_password_that_redis_repeats(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(tmp_path, "--requirepass", "p4ssw0rd", "--rename-command", "HELLO", "") as server:
        store = RedisStore(server.url.replace("//", "//:p4ssw0rd@"))
        with caplog.at_level(logging.DEBUG):
            grant = StoredGrant(NumberedGrant(), store, TokenCipher("k" * 32))
            assert (await grant.request_token()).value == "token-1"
            with pytest.raises(TokenStoreError) as caught:
                await store.read("name")
            await grant.aclose()
    assert "token store unavailable" in caplog.text
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value.__context__) + caplog.text
    assert "p4ssw0rd" not in shown + "".join(str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://:s3cr3t@localhost:port", ""])
def test_a_url_of_something_else_is_a_settings_error_that_does_not_show_it(url: str) -> None:
    with pytest.raises(SettingsError, match="TOKEN_STORE_URL is not the address of a Redis") as caught:
        RedisStore(url)
    assert "s3cr3t" not in str(caught.value)


def test_redis_is_not_imported_before_a_store_is_made_and_its_absence_is_a_settings_error() -> None:
    check = (
        "import sys, shared.auth.token_store as module\n"
        "from shared.errors import SettingsError\n"
        "assert 'redis' not in sys.modules\n"
        "sys.modules['redis'] = None\n"  # what an import finds where the package is not installed
        "try: module.RedisStore('redis://localhost')\n"
        "except SettingsError as exc: sys.exit('needs the package redis' not in str(exc))\n"
        "sys.exit('no error')"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)  # noqa: S603, this interpreter, constant code


PROCESS = """
import asyncio, json, logging, sys
import httpx
from shared.auth.client_credentials import ClientCredentials
from shared.auth.token_store import StoredGrant
from shared.auth.token_store import RedisStore, TokenCipher
from shared.auth.token_provider import TokenProvider

async def main(token_url, store_url):
    async with httpx.AsyncClient() as client:
        grant = ClientCredentials("CRM_", "relay", token_url=token_url, client_secret="s3cr3t").build(client)
        store = RedisStore(store_url)
        await store.read("none")  # connects, which may take longer than a token request leaves the store
        stored = StoredGrant(grant, store, TokenCipher("a key of thirty-two characters.."))
        provider = TokenProvider(stored)
        print("ready", flush=True)
        while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if command == "get":
                token = await provider.get_token()
            else:
                token = await provider.renew(await provider.get_token())
            print(token.value, flush=True)
        await provider.aclose()
        await stored.aclose()

logging.basicConfig(format="%(message)s")
asyncio.run(main(*sys.argv[1:]))
"""


class Worker:
    """One process of the app, which gets and renews its token on command."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> str:
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().strip()

    async def ask(self, command: str) -> str:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        return await self.line()

    async def end(self) -> str:
        """End it; give what it has logged."""
        _, errors = await self._process.communicate(b"")  # which closes its input, on Python 3.11 too
        assert self._process.returncode == 0, errors.decode()
        return errors.decode()


@asynccontextmanager
async def two_workers(tokens: TokenServer, store: RedisServer) -> AsyncIterator[tuple[Worker, Worker]]:
    pipe = asyncio.subprocess.PIPE
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, tokens.url, store.url, stdin=pipe, stdout=pipe, stderr=pipe
        )
        for _ in range(2)
    ]
    try:
        workers = Worker(processes[0]), Worker(processes[1])
        assert [await worker.line() for worker in workers] == ["ready", "ready"]
        yield workers
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@needs_redis
async def test_two_processes_share_one_token_request_and_do_without_redis_when_it_stops(server: RedisServer) -> None:
    async with TokenServer() as tokens, two_workers(tokens, server) as (one, other):
        assert list(await asyncio.gather(one.ask("get"), other.ask("get"))) == ["token-1", "token-1"]
        assert len(tokens.requests) == 1

        assert list(await asyncio.gather(one.ask("renew"), other.ask("renew"))) == ["token-2", "token-2"]
        assert len(tokens.requests) == 2

        with server.client() as client:
            stored = [client.get(key) for key in client.scan_iter("business-relay:*")]
        assert stored
        assert not any(b"token-" in json.dumps(repr(value)).encode() for value in stored)

        server.stop()
        assert list(await asyncio.gather(one.ask("get"), other.ask("get"))) == ["token-2", "token-2"]
        assert set(await asyncio.gather(one.ask("renew"), other.ask("renew"))) == {"token-3", "token-4"}
        assert set(await asyncio.gather(one.ask("get"), other.ask("get"))) == {"token-3", "token-4"}
        assert len(tokens.requests) == 4

        logs = [await one.end(), await other.end()]
    assert all(log.count("token store unavailable") == 1 for log in logs)
    assert not any("token-3" in log or "s3cr3t" in log for log in logs)


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=2_000),
    st.floats(0, 1e10),
    st.floats(0, 1e10),
    st.none() | st.floats(0, 1e10),
)
def test_what_was_encrypted_comes_back(
    value: str, issued_at: float, expires_at: float, refresh_at: float | None
) -> None:
    token = StoredToken(value, issued_at, expires_at, refresh_at)
    assert TokenCipher(KEY).decrypt("name", TokenCipher(KEY).encrypt("name", token)) == token


@pytest.mark.parametrize(
    "rubbish", [b"", b"\x01", b"\x01" + b"n" * 12, b"\x02" + b"x" * 60, b"hello", b"\x01" + b"x" * 60]
)
def test_rubbish_is_a_value_error(rubbish: bytes) -> None:
    with pytest.raises(ValueError, match="not "):
        TokenCipher(KEY).decrypt("name", rubbish)


def test_another_key_or_name_and_any_changed_bit_are_noticed() -> None:
    stored = TokenCipher(KEY).encrypt("name", TOKEN)
    for key, name in ((KEY + "x", "name"), (KEY, "other")):
        with pytest.raises(ValueError, match="not encrypted with this key"):
            TokenCipher(key).decrypt(name, stored)
    for position in range(len(stored)):
        changed = bytes(byte ^ (position == at) for at, byte in enumerate(stored))
        with pytest.raises(ValueError, match="not "):
            TokenCipher(KEY).decrypt("name", changed)


@pytest.mark.parametrize("moment", [float("nan"), float("inf")])
def test_a_token_that_never_expires_is_not_taken(moment: float) -> None:
    stored = TokenCipher(KEY).encrypt("name", StoredToken("at-1", 0.0, moment))
    with pytest.raises(ValueError, match="no moment of expiry"):
        TokenCipher(KEY).decrypt("name", stored)


def test_a_stored_token_is_an_access_token_with_what_is_left_of_its_life() -> None:
    assert TOKEN.at(1_600.0) == AccessToken("at-1", 3_000.0, 1_200.0)
    assert TOKEN.at(3_600.0) == AccessToken("at-1", 1_000.0, 0.0)
    assert StoredToken("at-1", 0.0, 10.0).at(4.0) == AccessToken("at-1", 6.0)
