"""How the partner is served: its signals, its port and the ends of its connections."""

from __future__ import annotations

import signal
from typing import Any

import httpx
import pytest

from sandbox.partner.server import PortInUseError, running, serve
from sandbox.partner.state import PartnerConfig
from sandbox.partner.wire import Wire
from tests.models import PARCEL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_serves_until_a_signal_and_leaves_the_signals_as_they_were(number: signal.Signals) -> None:
    announced: list[str] = []
    handlers = [signal.getsignal(known) for known in (signal.SIGINT, signal.SIGTERM)]

    def announce(base_url: str) -> None:
        announced.append(base_url)
        signal.raise_signal(number)

    await serve(PartnerConfig(resources=[PARCEL]), 0, announce=announce)

    assert announced[0].startswith("http://127.0.0.1:")
    assert handlers[1] == signal.getsignal(signal.SIGTERM)
    async with httpx.AsyncClient() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(announced[0])


async def test_takes_the_port_it_is_given_again_and_again_but_not_twice() -> None:
    async with running(PartnerConfig(resources=[PARCEL])) as first, httpx.AsyncClient() as http:
        await http.get(f"{first.base_url}/sandbox/counters")
        port = int(first.base_url.rpartition(":")[2])
        with pytest.raises(PortInUseError, match=f"port {port} cannot be had: Address already in use"):
            async with running(PartnerConfig(resources=[PARCEL]), port):
                pass

    async with running(PartnerConfig(resources=[PARCEL]), port) as second:
        assert second.base_url == first.base_url


async def test_answers_say_what_time_it_is() -> None:
    async with running(PartnerConfig(resources=[PARCEL])) as partner, httpx.AsyncClient() as http:
        response = await http.get(f"{partner.base_url}/sandbox/counters")

    assert response.headers["date"].endswith(" GMT")
    assert "server" not in response.headers


async def test_a_connection_has_ended_only_when_the_server_says_so() -> None:
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": b"x"}, {"type": "http.disconnect"}]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(_message: object) -> None:
        raise AssertionError("nothing is to be sent")

    transport = object()
    scope = {"extensions": {"sandbox.transport": {"sandbox.transport": transport}}}
    await Wire(scope, receive, send).closed()

    assert messages == []
