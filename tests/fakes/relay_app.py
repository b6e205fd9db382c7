"""The app's HTTP interface over real sockets, on deliveries that are a dictionary.

It answers as the app does: a known idempotency key with its delivery, a batch with faults with 422 and pointers. A
delivery advances by `step` records each time it is looked at, which stands for the time that it takes.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

CREATED = "2099-01-31T12:00:00+00:00"
MONEY = {"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}, "note": {}}}
PARCEL = {
    "type": "object",
    "required": ["parcelId", "city"],
    "properties": {
        "parcelId": {"type": "string", "minLength": 1},
        "city": {"type": "string", "minLength": 1},
        "grams": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "isFragile": {"type": "boolean", "default": False},
        "price": {"anyOf": [{"$ref": "#/components/schemas/Money"}, {"type": "null"}]},
        "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Money"}},
        "size": {"anyOf": [{"$ref": "#/components/schemas/Size"}, {"type": "null"}]},
    },
}
SIZE = {"enum": ["small", "large"]}


def document(names: tuple[str, ...] = ("Parcel",)) -> dict[str, Any]:
    def body(name: str) -> dict[str, Any]:
        schema = {"$ref": f"#/components/schemas/{name}"}
        return {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}

    paths = {f"/{name.lower()}s": body(name) for name in names}
    paths |= {f"/{name.lower()}s/batch": {"post": {}} for name in names}
    return {
        "openapi": "3.1.1",
        "servers": [{"url": "/api"}],
        "paths": {"/health": {"get": {}}, **paths},
        "components": {"schemas": {"Money": MONEY, "Size": SIZE} | dict.fromkeys(names, PARCEL)},
    }


@dataclass
class FakeDelivery:
    id: str
    key: str
    records: list[dict[str, Any]]
    rejected: set[str]
    done: int = 0
    state: str = "delivering"

    def body(self) -> dict[str, Any]:
        outcomes = self.outcomes()
        counts = {name: outcomes.count(name) for name in ("created", "exists", "rejected", "expired", "pending")}
        return {
            "id": self.id,
            "resource": "Parcel",
            "state": self.state,
            "createdTime": CREATED,
            "total": len(self.records),
            **counts,
            "rejections": [
                {"index": index, "state": "rejected", "reason": "no such city"}
                for index, outcome in enumerate(outcomes)
                if outcome == "rejected"
            ],
        }

    def outcomes(self) -> list[str]:
        return [
            "pending" if index >= self.done else "rejected" if record["parcelId"] in self.rejected else "created"
            for index, record in enumerate(self.records)
        ]

    def advance(self, step: int) -> None:
        if self.state != "delivering":
            return
        self.done = min(len(self.records), self.done + step)
        if self.done == len(self.records):
            self.state = "partly" if "rejected" in self.outcomes() else "delivered"


@dataclass
class RelayApp:
    """`answers` are given to the next POSTs of batches instead of what the app would say: (status, headers).

    `posts` counts POSTs of batches, `stored` has the texts of the records of each delivery, `keys` what callers sent as
    the function key. `hold` keeps deliveries from ending.
    """

    names: tuple[str, ...] = ("Parcel",)
    key: str | None = None
    rejected: set[str] = field(default_factory=set)
    step: int = 1000
    hold: bool = False
    most_faults: int = 100
    health: tuple[int, dict[str, Any]] = (200, {"status": "ok"})
    answers: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    deliveries: dict[str, FakeDelivery] = field(default_factory=dict)
    posts: int = 0
    queries: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    url: str = ""
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def stored(self) -> list[str]:
        """The ids of the records of all deliveries."""
        return [record["parcelId"] for delivery in self.deliveries.values() for record in delivery.records]

    def wait_for_posts(self, count: int) -> None:
        """Wait until so many batches were posted."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.posts >= count, timeout=60)

    def __enter__(self) -> Self:
        routes = [
            Route("/api/health", self._health),
            Route("/api/health/deep", self._guarded(self._deep)),
            Route("/api/openapi.json", self._guarded(self._openapi)),
            Route("/api/parcels/batch", self._guarded(self._batch), methods=["POST"]),
            Route("/api/parcels/{id:path}", self._guarded(self._record)),
            Route("/api/deliveries", self._guarded(self._list)),
            Route("/api/deliveries/{id}", self._guarded(self._one)),
            Route("/api/deliveries/{id}/{action}", self._guarded(self._act), methods=["POST"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="error", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def _guarded(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            self.keys.append(request.headers.get("x-functions-key"))
            if self.key is not None and self.keys[-1] != self.key:
                return Response(status_code=401)
            response = await endpoint(request)
            with self._changed:
                self._changed.notify_all()
            return response

        return answer

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _deep(self, _: Request) -> Response:
        return JSONResponse(self.health[1], self.health[0])

    async def _openapi(self, _: Request) -> Response:
        return JSONResponse(document(self.names))

    async def _batch(self, request: Request) -> Response:
        self.posts += 1
        body = await request.body()
        if self.answers:
            status, headers = self.answers.popleft()
            return JSONResponse({"detail": "not now"}, status, headers)
        records = json.loads(body)
        assert 0 < len(records) <= 1000
        assert len(body) <= 1024 * 1024
        faults = [
            {"pointer": f"#/{index}/{name}", "detail": "must not be empty"}
            for index, record in enumerate(records)
            for name in ("parcelId", "city")
            if not record.get(name)
        ]
        faults += [
            {"pointer": f"#/{index}/size", "detail": "Invalid enum value"}
            for index, record in enumerate(records)
            if record.get("size") not in {None, *SIZE["enum"]}
        ]
        if faults:
            return JSONResponse({"detail": "The batch breaks rules.", "errors": faults[: self.most_faults]}, 422)
        key = request.headers["idempotency-key"]
        known = next((each for each in self.deliveries.values() if each.key == key), None)
        if known is None:
            id_ = f"parcel-{len(self.deliveries)}"
            known = self.deliveries[id_] = FakeDelivery(id_, key, records, self.rejected)
        assert known.records == records
        return JSONResponse(known.body(), 202, {"retry-after": "10"})

    async def _one(self, request: Request) -> Response:
        delivery = self.deliveries.get(request.path_params["id"])
        if delivery is None:
            return JSONResponse({"detail": "There is no delivery with this id."}, 404)
        if not self.hold:
            delivery.advance(self.step)
        body = delivery.body()
        if request.query_params.get("records") == "true":
            body["records"] = [
                {"index": index, "recordId": record["parcelId"], "state": state}
                | ({"status": 422, "reason": "the partner knows no such city"} if state == "rejected" else {})
                for index, (record, state) in enumerate(zip(delivery.records, delivery.outcomes(), strict=True))
            ]
        return JSONResponse(body, 202 if delivery.state == "delivering" else 200)

    async def _list(self, request: Request) -> Response:
        self.queries.append(request.url.query)
        page = int(request.query_params.get("page", "0"))
        found = list(self.deliveries.values())[page : page + 1]
        body: dict[str, Any] = {"deliveries": [delivery.body() for delivery in found]}
        if page + 1 < len(self.deliveries):
            # Another host: the app may not know the name under which it is reached.
            body["nextLink"] = f"http://10.0.0.1/api/deliveries?{request.url.query.split('&page')[0]}&page={page + 1}"
        return JSONResponse(body)

    async def _act(self, request: Request) -> Response:
        delivery = self.deliveries[request.path_params["id"]]
        if request.path_params["action"] == "cancel":
            delivery.state = "cancelled"
            return JSONResponse(delivery.body(), 202)
        return JSONResponse(delivery.body() | {"id": f"{delivery.id}-again", "state": "accepted"}, 202)

    async def _record(self, request: Request) -> Response:
        if request.path_params["id"] not in self.stored:
            return JSONResponse({"detail": "The partner has no such parcel."}, 404)
        return Response(f'{{"parcelId":"{request.path_params["id"]}","grams":1.10}}', media_type="application/json")
