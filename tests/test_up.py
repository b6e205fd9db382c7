"""`make up` tells in one line of each delivery that ends, and of each problem."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx

from sandbox.up import DeliveryWatch, ProblemLog
from tests.partner_client import Clock

START = datetime(2026, 11, 29, 12, tzinfo=UTC)


class Deliveries:
    """The app's list of deliveries, one delivery a page."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self.created: dict[str, datetime] = {}
        self.asked_from: list[datetime] = []
        self.is_down = False
        http = httpx.Client(transport=httpx.MockTransport(self._list), base_url="http://app")
        self.watch = DeliveryWatch(http, START)

    def put(self, id_: str, state: str, at: int) -> None:
        self.states[id_] = state
        self.created.setdefault(id_, START + timedelta(seconds=at))

    def ended(self, at: int) -> list[str]:
        return [status["id"] for status in self.watch.ended(START + timedelta(seconds=at))]

    def _list(self, request: httpx.Request) -> httpx.Response:
        if self.is_down:
            return httpx.Response(503)
        since = datetime.fromisoformat(request.url.params["from"])
        page = int(request.url.params.get("page", "0"))
        if page == 0:
            self.asked_from.append(since)
        # The store compares whole seconds.
        ids = [id_ for id_, created in self.created.items() if created >= since - timedelta(seconds=1)]
        shown = [
            {"id": id_, "state": self.states[id_], "createdTime": self.created[id_].isoformat()}
            for id_ in ids[page : page + 1]
        ]
        more = page + 1 < len(ids)
        link = str(request.url.copy_set_param("page", str(page + 1)))
        return httpx.Response(200, json={"deliveries": shown} | ({"nextLink": link} if more else {}))


def test_each_delivery_is_told_once_when_it_ends() -> None:
    app = Deliveries()
    app.put("a", "delivered", 1)
    app.put("b", "waiting", 2)
    first, second = app.ended(12), app.ended(13)
    app.put("b", "rejected", 2)
    app.put("c", "partly", 5)

    assert (first, second, app.ended(15), app.ended(16)) == (["a"], [], ["b", "c"], [])


def test_only_what_may_have_changed_is_asked_for() -> None:
    app = Deliveries()
    app.put("a", "delivered", 1)
    app.ended(100)
    app.put("b", "waiting", 95)
    app.put("c", "delivered", 101)
    told = app.ended(200)
    app.put("b", "delivered", 95)

    assert (told, app.ended(300), app.ended(301)) == (["c"], ["b"], [])
    assert [(moment - START).total_seconds() for moment in app.asked_from] == [0, 90, 95, 290]


def test_a_delivery_that_is_made_again_is_told_again() -> None:
    app = Deliveries()
    app.put("a", "rejected", 1)
    first = app.ended(2)
    app.created["a"] += timedelta(seconds=2)

    assert (first, app.ended(4)) == (["a"], ["a"])


def test_an_app_that_is_down_is_asked_again() -> None:
    app = Deliveries()
    app.put("a", "delivered", 1)
    app.is_down = True
    while_down = app.ended(60)
    app.is_down = False

    assert (while_down, app.ended(61)) == ([], ["a"])


def test_only_problems_are_shown_and_each_once_in_a_while() -> None:
    clock, shown = Clock(), list[str]()
    log = ProblemLog(shown.append, clock)
    down = "2026-11-29 12:00:00,000 WARNING shared.client: The partner is down instance_id=a seconds=1"
    lines = [
        "host: http://127.0.0.1:7071",
        "2026-11-29 12:00:00,000 INFO    shared.durable: Delivered instance_id=a",
        down,
        down.replace("id=a", "id=b"),
        "2026-11-29 12:00:00,000 ERROR   shared.auth: The client is refused",
        "Traceback (most recent call last):",
    ]

    for line in lines:
        log(line)
    clock.advance(10)
    log(down)

    assert shown == [lines[2], lines[4], f"{down} (1 more like this before)"]
