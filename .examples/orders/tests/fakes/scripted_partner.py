"""A partner that answers by a script: it numbers its answers, keeps every request, and answers nothing unscripted."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import httpx

from shared.client.resource_api import ResourceApi

if TYPE_CHECKING:
    from collections.abc import Callable

    # A step is an answer, a fault that is raised instead of one, or a function of the request that gives an answer.
    Step = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]

ORIGIN = "https://partner.example/v1"


def created() -> httpx.Response:
    """The record is stored."""
    return httpx.Response(201, json={"stored": True})


def found(record: object) -> httpx.Response:
    """A look-up shows this record."""
    return httpx.Response(200, json=record)


def missing() -> httpx.Response:
    """A look-up shows nothing."""
    return httpx.Response(404, json={"title": "Not Found"})


def refused(status: int, detail: str = "no", **headers: str) -> httpx.Response:
    """Problem details; underscores in a header's name stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    document = {"title": "Refused", "status": status, "detail": detail}
    return httpx.Response(status, json=document, headers={"content-type": "application/problem+json"} | named)


class ScriptedPartner:
    """Answers request by request what the script says; each answer has its number in the header `answer`."""

    def __init__(self, *script: Step) -> None:
        self.script = deque(script)
        self.requests: list[httpx.Request] = []
        self._api = ResourceApi(httpx.MockTransport(self._answer), httpx.Auth(), ORIGIN, timeout=30)

    async def api(self) -> ResourceApi:
        """Return the client of this partner, as the container does."""
        return self._api

    @property
    def calls(self) -> list[str]:
        """The requests as "GET /v1/…", in their order."""
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.requests]

    @property
    def posted_keys(self) -> list[str]:
        return [request.headers["idempotency-key"] for request in self.requests if request.method == "POST"]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        assert self.script, f"nothing is scripted for request {len(self.requests)}: {request.method} {request.url}"
        step: Any = self.script.popleft()
        if isinstance(step, Exception):
            raise step
        answer: httpx.Response = step if isinstance(step, httpx.Response) else step(request)
        answer.headers["answer"] = str(len(self.requests))
        return answer
