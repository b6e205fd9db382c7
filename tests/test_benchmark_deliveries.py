"""That the benchmark times a delivery to its end, and fails unless each record arrived once: beside a host of ours."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import pytest
from aiohttp import web

from benchmarks import app
from benchmarks.app import App
from benchmarks.partner import Partner, running_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from benchmarks.app import Delivery

INSTANCES = "/runtime/webhooks/durabletask/instances"


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with running_server() as origin:
        yield origin


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the partner lacks is not waited for long: there is nobody to bring it."""
    monkeypatch.setattr(app, "PATIENCE", 0.05)


@dataclass
class FakeHost:
    """Posts what is handed in to the partner at once, each record so many times, and notes what it is asked.

    It says of its orchestrations that one runs when it is asked for the first `runs` times. Before each delivery it is
    asked once: the connection is there then.
    """

    partner: Partner
    posts: dict[str, int] = field(default_factory=dict)  # of an external id, where it is not one
    runs: int = 0
    ends: str = "Completed"
    asked: list[str] = field(default_factory=list)

    def clock(self) -> float:
        """Give a millionth of a second for each thing that it was asked."""
        return len(self.asked) / 1e6

    async def hand_in(self, request: web.Request) -> web.Response:
        self.asked.append("hand in")
        body = await request.json()
        for record in body if isinstance(body, list) else [body]:
            for _ in range(self.posts.get(record["externalId"], 1)):
                headers = {"authorization": f"Bearer {self._token}", "idempotency-key": record["externalId"]}
                await (await self._http.post(self.partner.posts_url, json=record, headers=headers)).read()
        location = f"{request.url.origin()}{INSTANCES}/{len(self.asked)}?taskHub=hub"
        return web.Response(status=202, headers={"location": location})

    async def list_running(self, request: web.Request) -> web.Response:
        assert dict(request.query) == {"runtimeStatus": "Running,Pending", "top": "1", "showInput": "false"}
        self.asked.append("list")
        if len(self.asked) > 1:
            self.runs -= 1
        return web.json_response([{"runtimeStatus": "Running"}] if self.runs >= 0 else [])

    async def status(self, request: web.Request) -> web.Response:
        assert request.query["showInput"] == "false"
        self.asked.append("status")
        return web.json_response({"runtimeStatus": self.ends})

    @asynccontextmanager
    async def app(self) -> AsyncIterator[App]:
        application = web.Application()
        application.router.add_post("/api/businesses", self.hand_in)
        application.router.add_post("/api/businesses/batch", self.hand_in)
        application.router.add_get(INSTANCES, self.list_running)
        application.router.add_get(INSTANCES + "/{id}", self.status)
        runner = web.AppRunner(application)
        await runner.setup()
        self._token = self.partner.token()
        async with aiohttp.ClientSession() as self._http:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            _, port = runner.addresses[0]
            try:
                yield App(f"http://127.0.0.1:{port}", self.partner, self.clock)
            finally:
                await runner.cleanup()


@pytest.mark.parametrize(
    ("deliver", "records", "requests", "delivered", "asked"),
    [(App.deliver_singly, 40, 40, 43 / 1e6, 83 / 1e6), (App.deliver_at_once, 2_001, 3, 6 / 1e6, 9 / 1e6)],
    ids=["singly", "in batches"],
)
async def test_deliveries_are_timed_until_none_runs_and_then_until_each_was_asked_for(  # noqa: PLR0913, PLR0917, they are parameters
    origin: str,
    deliver: Callable[[App, int], Awaitable[Delivery]],
    records: int,
    requests: int,
    delivered: float,
    asked: float,
) -> None:
    host = FakeHost(Partner(origin, f"timed-{requests}"), runs=2)
    async with host.app() as its:
        delivery = await deliver(its, records)
    assert host.asked == ["list"] + ["hand in"] * requests + ["list"] * 3 + ["status"] * requests
    assert (delivery.delivered, delivery.asked, delivery.looks) == (delivered, asked, 3)


async def test_batches_in_turn_wait_for_the_one_before_and_their_times_are_added(origin: str) -> None:
    host = FakeHost(Partner(origin, "in-turn"))
    async with host.app() as its:
        took = await its.deliver(2_001)
    assert host.asked == ["list", "hand in", "list", "status"] * 3
    assert took == pytest.approx(6 / 1e6)


@pytest.mark.parametrize(("record", "times"), [("business-2", 2), ("business-2", 0), ("business-5", 0)])
async def test_a_record_that_arrives_twice_or_never_is_an_error(origin: str, record: str, times: int) -> None:
    host = FakeHost(Partner(origin, f"{record}-{times}"), posts={record: times})
    async with host.app() as its:
        with pytest.raises(RuntimeError, match="5 records were handed in, the partner has"):
            await its.deliver_singly(5)


async def test_a_record_too_few_and_another_twice_is_an_error(origin: str) -> None:
    host = FakeHost(Partner(origin, "few-and-many"), posts={"business-1": 0, "business-2": 2})
    async with host.app() as its:
        with pytest.raises(RuntimeError, match="5 records were handed in, the partner has"):
            await its.deliver_at_once(5)


async def test_an_orchestration_that_has_not_completed_is_an_error(origin: str) -> None:
    host = FakeHost(Partner(origin, "failed"), ends="Failed")
    async with host.app() as its:
        with pytest.raises(RuntimeError, match="ended otherwise"):
            await its.deliver_at_once(5)


async def test_a_call_that_the_partner_refused_is_an_error(origin: str) -> None:
    host = FakeHost(Partner(origin, "refused"))
    async with host.app() as its, aiohttp.ClientSession() as http:
        (await http.get(host.partner.posts_url + "business-1")).close()
        with pytest.raises(RuntimeError, match="'unauthorized': 1"):
            await its.deliver_singly(5)


async def test_the_time_of_a_look_is_that_of_what_a_look_asks(origin: str) -> None:
    host = FakeHost(Partner(origin, "look"))
    async with host.app() as its:
        assert await its.look_time() == pytest.approx(1 / 1e6)
    assert set(host.asked) == {"list"}


async def test_who_waits_for_records_is_answered_when_they_are_there_or_the_time_is_over(origin: str) -> None:
    partner = Partner(origin, "waited-for")
    headers = {"authorization": f"Bearer {partner.token()}"}

    async def keys(http: aiohttp.ClientSession, wish: int, seconds: float) -> int:
        async with http.post(f"{partner.url}/await", json={"keys": wish, "seconds": seconds}) as answer:
            counts: dict[str, int] = await answer.json()
            return counts["keys"]

    async with aiohttp.ClientSession() as http:
        waiting = [asyncio.create_task(keys(http, wish, 20)) for wish in (2, 1)]
        assert await keys(http, 1, 0.01) == 0
        for key in ("a", "a", "b"):
            (await http.post(partner.posts_url, headers={**headers, "idempotency-key": key})).close()
            assert waiting[0].done() is False or key == "b"
        assert await asyncio.gather(*waiting) == [2, 1]
        assert await keys(http, 2, 20) == 2
        assert await keys(http, 3, 0.01) == 2
