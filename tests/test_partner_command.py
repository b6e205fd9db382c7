"""The partner as a command: its options, its first line, its end."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandbox.partner.command import config_from, main, parser
from sandbox.partner.faults import Drop, Limit, Normalise
from sandbox.partner.state import PartnerConfig
from sandbox.resources import base_path, client_of
from shared.partner import RESOURCES
from tests.models import PARCEL
from tests.partner_client import PATIENCE, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


PROJECT = Path(__file__).parent.parent
# Where the partner of the project itself is served.
API = base_path(RESOURCES[0].partner)


def config_of(*arguments: str) -> PartnerConfig:
    return config_from(parser().parse_args(arguments), [PARCEL])


@asynccontextmanager
async def partner_process(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start the command, and kill it where the test has not ended it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sandbox.partner", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def base_url(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("partner: http://127.0.0.1:")
    return line.removeprefix("partner: ").strip()


def test_without_options_everything_has_its_default() -> None:
    assert config_of() == PartnerConfig(resources=[PARCEL])


def test_each_option_sets_its_part_of_the_configuration() -> None:
    config = config_of(
        *("--client-id", "me", "--client-secret", "hidden", "--token-lifetime", "60", "--expires-in", "string"),
        *("--scope", "a", "--scope", "b", "--idempotency", "ignore", "--unique-ids", "--seed", "9"),
    )

    assert config == PartnerConfig(
        resources=[PARCEL],
        client_id="me",
        client_secret="hidden",
        token_lifetime=60,
        expires_in="string",
        scopes=frozenset({"a", "b"}),
        idempotency="ignore",
        unique_ids=True,
        seed=9,
    )
    assert "hidden" not in repr(config)


def test_a_public_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "client.pem"
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.write_bytes(pem)

    assert config_of("--client-public-key", str(path)).client_public_key == pem.decode()


def test_faults_can_be_set_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('[{"fault": "drop", "route": "post", "times": 1}, {"fault": "normalise"}]')

    config = config_of("--fault", '{"fault": "limit", "rate": 5}', "--fault", f"@{path}")

    assert config.faults == (Limit(rate=5), Drop(route="post", times=1), Normalise())


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--port", "65536"], "65536"),
        (["--port", "http"], "http"),
        (["--token-lifetime", "soon"], "soon"),
        (["--expires-in", "never"], "never"),
        (["--idempotency", "maybe"], "maybe"),
        (["--fault", "@no-such-file.json"], "no-such-file.json"),
        (["--fault", '{"fault": "flood"}'], "flood"),
        (["--fault", "[7]"], "[7]"),
        (["--client-public-key", "no-such-file.pem"], "no-such-file.pem"),
        (["--magic"], "--magic"),
    ],
)
def test_refuses_an_option_that_makes_no_sense(
    arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        config_of(*arguments)

    assert ended.value.code == 2
    assert names in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(("option", "content"), [("--fault", "[{}]"), ("--client-public-key", "no key")])
def test_names_the_file_that_makes_no_sense(
    option: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "file"
    path.write_text(content)

    with pytest.raises(SystemExit):
        config_of(option, f"@{path}" if option == "--fault" else str(path))

    assert str(path) in capsys.readouterr().err.splitlines()[-1]


async def test_says_where_it_listens_and_ends_cleanly_on_ctrl_c() -> None:
    async with partner_process("--port", "0") as process:
        url = await base_url(process)
        async with httpx.AsyncClient(base_url=url) as http:
            response = await http.get("/sandbox/counters")
            process.send_signal(signal.SIGINT)
            output, errors = await process.communicate()

    assert response.status_code == 200
    assert (process.returncode, output, errors) == (0, b"", b"")


async def test_ends_cleanly_while_requests_wait_and_a_body_is_half_sent(tmp_path: Path) -> None:
    path = tmp_path / "faults.json"
    path.write_text('{"fault": "hold", "route": "token", "gate": "g"}')
    async with partner_process("--port", "0", "--fault", f"@{path}") as process:
        url = await base_url(process)
        host, port = url.removeprefix("http://").split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"POST {API}/auth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nx".encode())
        async with httpx.AsyncClient(base_url=url) as http:
            held = asyncio.create_task(http.post(f"{API}/auth/token", data={"grant_type": "client_credentials"}))

            async def both_arrived() -> bool:
                return bool((await http.get("/sandbox/counters")).json()["token_requests"] == 2)

            await until(both_arrived)
            process.send_signal(signal.SIGTERM)
            output, errors = await process.communicate()
            with pytest.raises(httpx.TransportError):
                await held
        writer.close()

    assert (process.returncode, output, errors) == (0, b"", b"")


async def test_serves_the_partners_of_another_app(tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "shared", tmp_path / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    partners = tmp_path / "shared" / "partner.py"
    name = RESOURCES[0].partner.name
    partners.write_text(partners.read_text().replace(f'"{name}"', '"OTHER_API"'))

    async with partner_process("--app", str(tmp_path), "--port", "0") as process, httpx.AsyncClient() as http:
        state = (await http.get(f"{await base_url(process)}/sandbox/state")).json()

    assert "OTHER_API" in state["partners"]
    assert name not in state["partners"]


@pytest.mark.parametrize(
    ("partner", "problem"),
    [
        ("RESOURCES = []", "RESOURCES is empty"),
        ("Resources = []", "it has no RESOURCES = […], the list of its record types"),
        ("\n\nHOSPITAL = new Partner()", "line 3: SyntaxError: invalid syntax"),
        ("from guid import Guid", "line 1: ModuleNotFoundError: No module named 'guid'"),
        (
            "from shared.resource import LookUp\n\nLookUp('/a/{id}', Query={})",
            "line 3: TypeError: LookUp.__init__() got an unexpected keyword argument 'Query'",
        ),
    ],
)
async def test_names_what_is_wrong_with_the_partners_of_an_app(tmp_path: Path, partner: str, problem: str) -> None:
    shutil.copytree(PROJECT / "shared", tmp_path / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "shared" / "partner.py").write_text(partner)

    async with partner_process("--app", str(tmp_path)) as process:
        _, errors = await process.communicate()

    assert process.returncode == 1
    # A later Python adds what may have been meant.
    assert errors.decode().startswith(f"sandbox partner: shared/partner.py is not usable: {problem}")
    assert errors.count(b"\n") == 1


def test_a_port_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code = main(["--port", str(port)])

    assert code == 1
    assert capsys.readouterr() == ("", f"sandbox partner: port {port} cannot be had: Address already in use\n")


async def test_logs_each_request_when_asked_to_but_no_secret() -> None:
    partner = RESOURCES[0].partner
    async with partner_process("--port", "0", "--verbose", "--client-secret", "well-hidden") as process:
        async with httpx.AsyncClient(base_url=await base_url(process)) as http:
            response = await http.post(
                f"{API}/auth/token",
                data={"grant_type": "client_credentials"},
                auth=httpx.BasicAuth(client_of(partner)[0], "well-hidden"),
            )
        process.send_signal(signal.SIGINT)
        _, errors = await process.communicate()

    log = errors.decode()
    assert f"INFO sandbox.partner.serving: {partner.name} token: issued" in log
    assert response.json()["access_token"] not in log
    assert "well-hidden" not in log
