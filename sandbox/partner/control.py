"""The routes under /sandbox/ by which a test sets the partner up and asks what it saw. They need no token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from sandbox.partner.answers import JSON, PROBLEM, problem
from sandbox.partner.faults import faults_from_json

if TYPE_CHECKING:
    from starlette.requests import Request

    from sandbox.partner.state import Partner


class _Revocation(msgspec.Struct, forbid_unknown_fields=True):
    tokens: Literal["all", "newest"] = "all"


class Control:
    """The control routes of one partner."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner

    def routes(self) -> list[Route]:
        """Give the routes for Starlette."""
        return [
            Route("/sandbox/counters", self._counters, methods=["GET"]),
            Route("/sandbox/records", self._records, methods=["GET"]),
            Route("/sandbox/tokens", self._tokens, methods=["GET"]),
            Route("/sandbox/revoke", self._revoke, methods=["POST"]),
            Route("/sandbox/faults", self._faults, methods=["GET", "PUT", "POST", "DELETE"]),
            Route("/sandbox/gates", self._gates, methods=["GET"]),
            Route("/sandbox/gates/{name}/open", self._open_gate, methods=["POST"]),
            Route("/sandbox/gates/{name}/close", self._close_gate, methods=["POST"]),
            Route("/sandbox/reset", self._reset, methods=["POST"]),
        ]

    async def _counters(self, _request: Request) -> Response:
        return _json(self._partner.state.counters)

    async def _records(self, _request: Request) -> Response:
        state = self._partner.state
        return _json({**state.records.to_json(), "keys": state.keys.to_json()})

    async def _tokens(self, _request: Request) -> Response:
        return _json(self._partner.state.tokens.to_json())

    async def _revoke(self, request: Request) -> Response:
        try:
            revocation = msgspec.json.decode(await request.body() or b"{}", type=_Revocation)
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            return _bad_request(exc)
        return _json({"revoked": self._partner.state.tokens.revoke_issued(revocation.tokens)})

    async def _faults(self, request: Request) -> Response:
        plan = self._partner.state.plan
        if request.method == "DELETE":
            plan.replace(())
        elif request.method in {"PUT", "POST"}:
            try:
                faults = faults_from_json(await request.body())
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                return _bad_request(exc)
            if request.method == "PUT":
                plan.replace(faults)
            else:
                plan.add(faults)
        return _json(plan.to_json())

    async def _gates(self, _request: Request) -> Response:
        return _json(self._partner.state.waits.to_json())

    async def _open_gate(self, request: Request) -> Response:
        return _json({"released": self._partner.state.waits.open(request.path_params["name"])})

    async def _close_gate(self, request: Request) -> Response:
        self._partner.state.waits.close(request.path_params["name"])
        return Response(status_code=204)

    async def _reset(self, _request: Request) -> Response:
        self._partner.reset()
        return Response(status_code=204)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type=JSON)


def _bad_request(exc: Exception) -> Response:
    return Response(problem(400, "Bad request", str(exc)).body, status_code=400, media_type=PROBLEM)
