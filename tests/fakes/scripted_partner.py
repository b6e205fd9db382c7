"""A partner behind `ResourceApi`'s methods that answers by a script, and the access to it that activities get."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from shared.durable.attempt import PartnerAccess
from shared.resource import ApiResponse
from shared.rules.strict_json import decode_exactly

if TYPE_CHECKING:
    from collections.abc import Callable

    from shared.resource import Resource
    from shared.rules.flow import CallResult
    from shared.rules.record import CheckedRecord

    # A step is an answer, a fault that is raised instead of one, or an event to wait for before the next step.
    Step = ApiResponse | BaseException | asyncio.Event


def answer(status: int, content: object = None, *, after: float | None = None, **headers: str) -> ApiResponse:
    """JSON; `after` is Retry-After, underscores in a header's name stand for hyphens."""
    body = b"" if content is None else json.dumps(content).encode()
    problem = content if status >= 400 and isinstance(content, dict) else {}
    named_headers = {name.replace("_", "-"): value for name, value in headers.items()}
    decoded = decode_exactly(body) if body else None
    return ApiResponse(status, named_headers, body, decoded, problem, retry_after=after)


def html(status: int) -> ApiResponse:
    return ApiResponse(status, {}, b"<html>", None, {"detail": "<html>"}, is_readable=False, is_html=True)


class FreeTurns:
    """Flow control that lets every call through, or makes it wait as often as `waits` says."""

    def __init__(self, *waits: float) -> None:
        self.waits = deque(waits)
        self.patience: list[float] = []
        self.results: list[CallResult] = []
        self.in_flight = 0

    async def enter(self, delivery: str, *, patience: float, after: CallResult | None = None) -> float:
        assert delivery
        if after is not None:
            self.leave(after)
        self.patience.append(patience)
        wait = self.waits.popleft() if self.waits else 0.0
        self.in_flight += not wait
        return wait

    def leave(self, result: CallResult) -> None:
        self.in_flight -= 1
        self.results.append(result)

    def snapshot(self) -> dict[str, None]:
        return {"limit": None}


class ScriptedPartner:
    """Answers call by call what the script says; anything else is an error of the test."""

    telemetry = None

    def __init__(self, *script: Step, respond: Callable[[str, str, str], Step] | None = None) -> None:
        self.script = deque(script)
        self.calls: list[str] = []
        self.keys: list[str] = []
        self.bodies: list[bytes] = []
        self._respond = respond

    def access(self, turns: FreeTurns | None = None, timeout: float = 30.0) -> PartnerAccess:
        async def api() -> Any:  # noqa: ANN401 - stands for a ResourceApi
            return self

        return PartnerAccess(api, cast("Any", turns or FreeTurns()), timeout)

    async def post(self, _: Resource, record: CheckedRecord, *, idempotency_key: str) -> ApiResponse:
        self.keys.append(idempotency_key)
        self.bodies.append(record.text)
        return await self._answer("post", record.id, idempotency_key)

    async def look_up(self, _: Resource, id_: str) -> ApiResponse:
        return await self._answer("look up", id_)

    async def _answer(self, call: str, id_: str, key: str = "") -> ApiResponse:
        self.calls.append(f"{call} {id_}")
        if self._respond is not None:
            await asyncio.sleep(0)
            step = self._respond(call, id_, key)
        else:
            assert self.script, f"nothing is scripted for {self.calls[-1]}"
            step = self.script.popleft()
        if isinstance(step, asyncio.Event):
            await step.wait()
            return await self._scripted()
        if isinstance(step, BaseException):
            raise step
        return step

    async def _scripted(self) -> ApiResponse:
        return cast("ApiResponse", self.script.popleft())
