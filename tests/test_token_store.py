from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from shared.auth.token_endpoint import AccessToken
from shared.auth.token_store import StoredGrant
from shared.errors import SettingsError, TokenUnavailableError
from tests.fakes.redis_server import RedisServer, needs_redis
from tests.fakes.token_server import TokenServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = needs_redis
KEY = "k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class GatedGrant:
    """Stands for the token endpoint behind all processes: numbers its tokens, waits at its gate, fails on demand."""

    def __init__(self) -> None:
        self.requests = 0
        self.expires_in: float | None = 3600.0
        self.refresh_in: float | None = None
        self.failure: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.asked = asyncio.Event()
        self.again: AccessToken | None = None

    async def __call__(self) -> AccessToken:
        self.requests += 1
        number = self.requests
        self.asked.set()
        await self.gate.wait()
        if self.failure:
            raise self.failure
        return self.again or AccessToken(f"token-{number}", self.expires_in, self.refresh_in)


class App:
    """Processes of one app: each has a stored grant of its own, over one Redis and one token endpoint."""

    def __init__(self, server: RedisServer, stack: AsyncExitStack) -> None:
        self.server = server
        self.clock = Clock()
        self.grant = GatedGrant()
        self._stack = stack

    def process(self, key: str = KEY, *, url: str = "", request_timeout: float = 30.0) -> StoredGrant:
        process = StoredGrant(
            self.grant, "grant", url or self.server.url, key, request_timeout=request_timeout, clock=self.clock
        )
        self._stack.push_async_callback(process.aclose)
        return process

    def keys(self, kind: str) -> list[bytes]:
        with self.server.client() as client:
            return [*client.scan_iter(f"business-relay:{kind}:*")]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as running:
        yield running


@pytest.fixture
async def app(server: RedisServer) -> AsyncIterator[App]:
    async with AsyncExitStack() as stack:
        yield App(server, stack)


async def test_a_second_process_takes_the_stored_token_with_what_is_left_of_its_life(app: App) -> None:
    app.grant.refresh_in = 1800.0
    first = await app.process().request_token()
    assert (first, first.is_shared) == (AccessToken("token-1", 3600.0, 1800.0), False)
    app.clock.now += 600
    second = await app.process().request_token()
    assert (second, second.is_shared) == (AccessToken("token-1", 3000.0, 1200.0), True)
    app.clock.now += 2000
    assert await app.process().request_token() == AccessToken("token-1", 1000.0, 0.0)
    assert app.grant.requests == 1
    assert app.keys("lease") == []
    with app.server.client() as client:
        assert 3_590_000 < client.pttl(app.keys("token")[0]) <= 3_600_000


async def test_many_cold_processes_send_one_request(app: App) -> None:
    app.grant.gate.clear()
    flights = [asyncio.create_task(app.process().request_token()) for _ in range(20)]
    await app.grant.asked.wait()
    app.grant.gate.set()
    tokens = await asyncio.gather(*flights)
    assert {token.value for token in tokens} == {"token-1"}
    assert app.grant.requests == 1


async def test_who_asks_again_wants_another_token(app: App) -> None:
    first, second, third = app.process(), app.process(), app.process()
    await first.request_token()
    await second.request_token()

    assert (await first.request_token()).value == "token-2"  # nobody has renewed it yet
    assert (await second.request_token()).value == "token-2"  # and now somebody has
    assert (await third.request_token()).value == "token-2"
    assert app.grant.requests == 2


async def test_a_token_that_comes_again_though_another_was_wanted_is_not_stored(app: App) -> None:
    process = app.process()
    app.grant.again = await process.request_token()
    with app.server.client() as client:
        client.flushall()
    assert (await process.request_token()).value == "token-1"
    assert app.keys("*") == []


@pytest.mark.parametrize(("lifetime", "usable_for"), [(3600.0, 3595.0), (20.0, 18.0), (None, 295.0)])
async def test_a_token_is_left_alone_shortly_before_its_end(
    app: App, lifetime: float | None, usable_for: float
) -> None:
    app.grant.expires_in = lifetime
    await app.process().request_token()
    app.clock.now += usable_for - 0.1
    assert (await app.process().request_token()).value == "token-1"
    app.clock.now += 0.1
    assert (await app.process().request_token()).value == "token-2"


async def test_a_token_issued_by_a_clock_that_is_far_ahead_is_left_alone(app: App) -> None:
    app.clock.now += 3600
    await app.process().request_token()
    app.clock.now -= 3600
    assert (await app.process().request_token()).value == "token-2"


async def test_a_process_that_waited_in_vain_asks_for_itself(app: App) -> None:
    app.grant.gate.clear()
    first = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    app.grant.asked.clear()
    impatient = asyncio.create_task(app.process(request_timeout=0.04).request_token())
    await app.grant.asked.wait()
    app.grant.gate.set()
    assert {token.value for token in await asyncio.gather(first, impatient)} == {"token-1", "token-2"}


async def test_who_waits_takes_over_when_the_first_one_fails(app: App) -> None:
    app.grant.gate.clear()
    app.grant.failure = TokenUnavailableError("down")
    first = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    second = asyncio.create_task(app.process().request_token())
    app.grant.gate.set()
    with pytest.raises(TokenUnavailableError):
        await first
    app.grant.failure = None
    assert (await second).value == "token-2"


async def test_a_cancelled_request_gives_its_lease_back(app: App) -> None:
    app.grant.gate.clear()
    flight = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    assert len(app.keys("lease")) == 1
    flight.cancel()
    with pytest.raises(asyncio.CancelledError):
        await flight
    assert app.keys("lease") == []


def warnings_in(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING}


@pytest.mark.parametrize("rubbish", [b"", b"hello", b"x" * 60])
async def test_rubbish_is_replaced_with_a_warning(app: App, caplog: pytest.LogCaptureFixture, rubbish: bytes) -> None:
    await app.process().request_token()
    with app.server.client() as client:
        client.set(app.keys("token")[0], rubbish)
    assert (await app.process().request_token()).value == "token-2"
    assert (await app.process().request_token()).value == "token-2"
    assert warnings_in(caplog) == {"token store holds rubbish"}


async def test_a_token_under_another_key_or_of_another_request_is_rubbish(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    await app.process().request_token()
    assert (await app.process(KEY + "x").request_token()).value == "token-2"
    other = StoredGrant(app.grant, "another", app.server.url, KEY, clock=app.clock)
    assert (await other.request_token()).value == "token-3"
    one, two = app.keys("token")
    with app.server.client() as client:
        client.copy(one, two, replace=True)
    assert (await app.process().request_token()).value == "token-4"
    assert (await other.request_token()).value == "token-5"
    await other.aclose()
    assert warnings_in(caplog) == {"token store holds rubbish"}


async def test_a_store_that_is_down_costs_one_warning_and_is_used_again_after_a_pause(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    app.server.stop()
    process = app.process()
    values = [(await process.request_token()).value for _ in range(3)]
    assert values == ["token-1", "token-2", "token-3"]
    assert [record.getMessage() for record in caplog.records] == ["token store unavailable"]
    app.server.start()
    app.clock.now += 29
    await process.request_token()
    assert app.keys("token") == []
    app.clock.now += 1
    await process.request_token()
    assert (await app.process().request_token()).value == "token-5"


async def test_a_store_that_hangs_is_given_up_and_can_come_back(app: App, caplog: pytest.LogCaptureFixture) -> None:
    app.server.freeze()
    process = app.process()
    assert (await process.request_token()).value == "token-1"
    app.server.thaw()
    app.clock.now += 30
    assert (await process.request_token()).value == "token-2"
    assert (await app.process().request_token()).value == "token-2"
    assert warnings_in(caplog) == {"token store unavailable"}


async def test_a_store_that_goes_down_in_the_middle_fails_nobody(app: App) -> None:
    app.grant.gate.clear()
    flight = asyncio.create_task(app.process().request_token())
    await app.grant.asked.wait()
    app.server.stop()
    app.grant.gate.set()
    assert (await flight).value == "token-1"


async def test_no_log_repeats_the_password_that_redis_repeats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(tmp_path, "--requirepass", "p4ssw0rd", "--rename-command", "HELLO", "") as server:
        async with AsyncExitStack() as stack:
            with caplog.at_level(logging.DEBUG):
                process = App(server, stack).process(url=server.url.replace("//", "//:p4ssw0rd@"))
                assert (await process.request_token()).value == "token-1"
    assert "token store unavailable" in caplog.text
    assert "p4ssw0rd" not in caplog.text + "".join(str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://:s3cr3t@localhost:port", ""])
def test_a_url_of_something_else_is_a_settings_error_that_does_not_show_it(url: str) -> None:
    with pytest.raises(SettingsError, match="TOKEN_STORE_URL is not the address of a Redis") as caught:
        StoredGrant(GatedGrant(), "grant", url, KEY)
    assert "s3cr3t" not in str(caught.value)


def test_redis_is_not_imported_before_a_store_is_made_and_its_absence_is_a_settings_error() -> None:
    check = (
        "import sys, shared.auth.token_store as module\n"
        "from shared.errors import SettingsError\n"
        "assert 'redis' not in sys.modules\n"
        "sys.modules['redis'] = None\n"  # what an import finds where the package is not installed
        "try: module.StoredGrant(None, 'grant', 'redis://localhost', 'key')\n"
        "except SettingsError as exc: sys.exit('needs the package redis' not in str(exc))\n"
        "sys.exit('no error')"
    )
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)  # noqa: S603, this interpreter, constant code


PROCESS = """
import asyncio, functools, logging, ssl, sys
from shared.auth.client_credentials import ClientCredentials
from shared.auth.token_store import StoredGrant
from shared.auth.token_provider import TokenProvider
from shared.client.transport import RelayTransport

async def main(token_url, store_url):
    async with RelayTransport(max_connections=1, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)) as transport:
        settings = ClientCredentials("CRM_", "relay", token_url=token_url, client_secret="s3cr3t")
        grant = functools.partial(settings.request_token, transport)
        stored = StoredGrant(grant, "grant", store_url, "a key of thirty-two characters..")
        provider = TokenProvider(stored.request_token)
        print("ready", flush=True)
        while command := (await asyncio.to_thread(sys.stdin.readline)).strip():
            if command == "get":
                token = await provider.get_token()
            else:
                token = await provider.renew(await provider.get_token())
            print(token.value, flush=True)
        await provider.aclose()
        await stored.aclose()

class SlowLoop(asyncio.SelectorEventLoop):
    def time(self):  # a busy machine has five times as long for everything
        return super().time() / 5

logging.basicConfig(format="%(message)s")
with asyncio.Runner(loop_factory=SlowLoop) as runner:
    runner.run(main(*sys.argv[1:]))
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
