from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest

from shared.auth.entra import MsalHttp
from shared.errors import TokenRejectedError, TokenUnavailableError
from tests.fakes.token_server import TokenServer, refusal


async def test_a_thread_whose_caller_has_gone_can_send_nothing_more() -> None:
    begun, cancelled = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def ask(http: MsalHttp) -> None:
        begun.set()
        assert cancelled.wait(20)
        try:
            http.get(server.url)
        except TokenUnavailableError as exc:
            failures.append(exc)

    async with TokenServer() as server, httpx.AsyncClient() as client:
        flight = asyncio.create_task(MsalHttp(client, "the server", timeout=5).run(ask))
        await asyncio.to_thread(begun.wait, 20)
        flight.cancel()
        with pytest.raises(asyncio.CancelledError):
            await flight
        cancelled.set()
        await asyncio.get_running_loop().shutdown_default_executor()
        assert server.requests == []
    assert ["nobody waits" in str(failure) for failure in failures] == [True]


async def test_a_thread_that_works_for_too_long_is_given_up_and_ends_by_itself() -> None:
    given_up = threading.Event()
    async with httpx.AsyncClient() as client:
        with pytest.raises(TokenUnavailableError, match=r"the server did not answer within 0\.1 s"):
            await MsalHttp(client, "the server", timeout=0.1).run(lambda _: given_up.wait(20))
    given_up.set()
    await asyncio.get_running_loop().shutdown_default_executor()


async def test_a_failure_of_msal_before_any_answer_shows_its_type_alone() -> None:
    def ask(_: MsalHttp) -> Any:  # noqa: ANN401, it returns nothing
        raise RuntimeError("s3cr3t")

    async with httpx.AsyncClient() as client:
        with pytest.raises(TokenUnavailableError, match="MSAL failed with RuntimeError") as caught:
            await MsalHttp(client, "the server", timeout=5).run(ask)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_a_failure_of_msal_after_an_answer_is_what_the_answer_says() -> None:
    async with TokenServer() as server, httpx.AsyncClient() as client:
        server.queue.append(refusal("invalid_client", "not s3cr3t", 401))

        def ask(http: MsalHttp) -> None:
            http.post(server.url, data={"client_secret": "s3cr3t", "left_out": None}, params={"a": "b"})
            raise RuntimeError("MSAL cannot read it")

        with pytest.raises(TokenRejectedError) as caught:
            await MsalHttp(client, "the server", timeout=5).run(ask)
    assert (caught.value.error, caught.value.description) == ("invalid_client", "not [redacted]")
    assert (server.requests[0].target, server.requests[0].form) == ("/token?a=b", {"client_secret": "s3cr3t"})
