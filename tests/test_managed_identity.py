from __future__ import annotations

import asyncio
import json
import os
import ssl
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from shared.auth.entra import ManagedIdentity
from shared.auth.token_endpoint import AccessToken
from shared.client.transport import RelayTransport
from shared.errors import TokenUnavailableError
from tests.fakes.token_server import DROPPED, Answer, Request, TokenServer, json_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    Grant = Callable[[], Awaitable[AccessToken]]

MACHINE = "http://169.254.169.254"
RESOURCE = "https://api.example"


class _Detour(RelayTransport):
    """Sends what is meant for the machine's endpoint to a server on loopback."""

    def __init__(self, server: TokenServer) -> None:
        super().__init__(max_connections=10, tls=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        self._server = server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert str(request.url).startswith(MACHINE)
        request.url = request.url.copy_with(host="127.0.0.1", port=self._server.port)
        return await super().handle_async_request(request)


class Machine:
    """The identity endpoint of a virtual machine."""

    def __init__(self, server: TokenServer) -> None:
        self.server = server
        self.transport = _Detour(server)
        server.expires_in = "86399"

    def grant(self, client_id: str | None = None) -> Grant:
        return partial(ManagedIdentity(client_id, RESOURCE).request_token, self.transport)


@pytest.fixture
async def machine() -> AsyncIterator[Machine]:
    async with TokenServer() as server:
        running = Machine(server)
        async with running.transport:
            yield running


async def test_the_system_assigned_identity_of_a_machine_is_asked_by_resource(machine: Machine) -> None:
    token = await machine.grant()()

    assert token == AccessToken("token-1", 86_399.0, 43_199.0)  # MSAL asks for renewal at half of a long life
    (request,) = machine.server.requests
    assert (request.method, urlsplit(request.target).path) == ("GET", "/metadata/identity/oauth2/token")
    assert request.query == {"api-version": "2018-02-01", "resource": "https://api.example"}
    assert request.headers["metadata"] == "true"


async def test_a_user_assigned_identity_is_named_by_its_client_id(machine: Machine) -> None:
    await machine.grant("client-7")()
    assert machine.server.requests[0].query["client_id"] == "client-7"


async def test_no_cache_of_msal_answers_for_the_endpoint(machine: Machine) -> None:
    grant = machine.grant()
    first = await grant()
    second = await grant()
    assert (first.value, second.value) == ("token-1", "token-2")
    assert len(machine.server.requests) == 2


async def test_an_unknown_identity_is_named_and_not_replayed(machine: Machine) -> None:
    grant = machine.grant("client-7")
    machine.server.queue.append(
        json_answer({"error": "invalid_request", "error_description": "Identity not found"}, 400)
    )
    with pytest.raises(TokenUnavailableError, match="it answered 400; error invalid_request; Identity not found"):
        await grant()
    assert (await grant()).value == "token-1"


@pytest.mark.parametrize("status", [404, 429, 503])
async def test_an_endpoint_in_trouble_is_unavailable_until_it_recovers(machine: Machine, status: int) -> None:
    grant = machine.grant()
    machine.server.queue.append(json_answer({"error": "busy", "error_description": "later"}, status, Retry_After="3"))
    with pytest.raises(TokenUnavailableError, match=f"it answered {status}; error busy; later") as caught:
        await grant()
    assert (caught.value.status, caught.value.retry_after) == (status, 3.0)
    assert (await grant()).value == "token-1"


@pytest.mark.parametrize(
    "answer",
    [
        DROPPED,
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(500, body=b"<html>"),
        Answer(500, body=b"[]"),
        json_answer({"access_token": "a", "expires_in": "soon"}),
        json_answer({"access_token": "a b", "expires_in": "3600"}),
    ],
    ids=["dropped", "html", "list", "html-500", "list-500", "senseless-life", "no-header"],
)
async def test_nonsense_is_unavailable_and_not_kept(machine: Machine, answer: Answer) -> None:
    grant = machine.grant()
    machine.server.queue.append(answer)
    with pytest.raises(TokenUnavailableError):
        await grant()
    assert (await grant()).value == "token-1"


ASK = """
import asyncio, json, ssl, sys
from shared.auth.entra import ManagedIdentity
from shared.client.transport import RelayTransport
from shared.errors import TokenError

async def ask():
    identity = ManagedIdentity(sys.argv[1] or None, "https://api.example")
    try:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        async with RelayTransport(max_connections=1, tls=tls) as transport:
            token = await identity.request_token(transport)
            second = await identity.request_token(transport)
    except TokenError as exc:
        return [type(exc).__name__, str(exc)]
    return [token.value, second.value, token.expires_in > 3000]

print(json.dumps(asyncio.run(ask())))
"""


async def ask_with(environment: dict[str, str], client_id: str = "") -> list[Any]:
    """Run the grant as it is, in a process whose environment names the endpoint."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ASK, client_id, env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    answer: list[Any] = json.loads(output)
    return answer


def issue(server: TokenServer) -> None:
    """Answer as App Service does: a moment to expire at instead of a lifetime."""

    def answer(_request: Request) -> Answer:
        server.issued += 1
        expires_on = str(int(time.time()) + 3600)
        return json_answer({"access_token": f"token-{server.issued}", "expires_on": expires_on, "token_type": "Bearer"})

    server.respond = answer


async def test_the_endpoint_of_app_service_is_used_where_the_platform_names_it() -> None:
    async with TokenServer() as server:
        issue(server)
        environment = {"IDENTITY_ENDPOINT": f"{server.origin}/msi/token", "IDENTITY_HEADER": "proof"}
        assert await ask_with(environment, "client-7") == ["token-1", "token-2", True]
    request = server.requests[0]
    assert urlsplit(request.target).path == "/msi/token"
    assert request.query == {"api-version": "2019-08-01", "resource": "https://api.example", "client_id": "client-7"}
    assert request.headers["x-identity-header"] == "proof"
    assert len(server.requests) == 2


@pytest.mark.parametrize(("status", "error"), [(400, "TokenRejectedError"), (500, "TokenUnavailableError")])
async def test_an_error_of_app_service_goes_by_its_status_and_shows_no_proof(status: int, error: str) -> None:
    async with TokenServer() as server:
        server.queue.append(json_answer({"statusCode": status, "message": "not the-pr00f"}, status))
        environment = {"IDENTITY_ENDPOINT": f"{server.origin}/msi/token", "IDENTITY_HEADER": "the-pr00f"}
        name, text = await ask_with(environment)
    assert name == error
    assert "not [redacted]" in text
