"""The routes under /sandbox/ by which a test or the console sets the partners up and asks what they saw.

They need no token. Pages of this machine may use them (CORS).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec
from starlette.responses import Response
from starlette.routing import Route

from sandbox.partner.answers import JSON, PROBLEM, problem
from sandbox.partner.faults import faults_from_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request

    from sandbox.partner.faults import AnyFault
    from sandbox.partner.state import PartnerSandbox, Site


class _BadRequestError(Exception):
    """The request makes no sense; the text says why."""


class _Revocation(msgspec.Struct, forbid_unknown_fields=True):
    tokens: Literal["all", "newest"] = "all"
    partner: str | None = None


# What the console's buttons set, unless the body says otherwise.
_BUTTONS: dict[str, dict[str, object]] = {
    "limit": {"fault": "limit", "rate": 20},
    "down": {"fault": "status", "route": "any", "status": 503},
    "slow": {"fault": "latency", "route": "api", "seconds": 1.0},
}


class Control:
    """The control routes of the partners of one process."""

    def __init__(self, sandbox: PartnerSandbox) -> None:
        self._sandbox = sandbox

    def routes(self) -> list[Route]:
        """Return the routes for Starlette."""
        table: list[tuple[str, str, Callable[[Request], Awaitable[object]]]] = [
            ("GET", "counters", self._counters),
            ("GET", "records", self._records),
            ("GET", "tokens", self._tokens),
            ("GET", "state", self._state),
            ("POST", "revoke", self._revoke),
            *(("POST", name, self._button) for name in _BUTTONS),
            ("POST", "recover", self._recover),
            ("GET", "faults", self._shown_faults),
            ("PUT", "faults", self._replace_faults),
            ("POST", "faults", self._add_faults),
            ("DELETE", "faults", self._recover),
            ("GET", "gates", self._gates),
            ("POST", "gates/{name}/open", self._open_gate),
            ("POST", "gates/{name}/close", self._close_gate),
            ("POST", "reset", self._reset),
        ]
        return [Route(f"/sandbox/{path}", _answering(handle), methods=[method]) for method, path, handle in table]

    def _sites(self, name: str | None) -> list[Site]:
        """Return the site of the partner of this name, all sites for None."""
        sites = self._sandbox.state.sites
        named = [site for site in sites if name in {None, site.partner.name}]
        if not named:
            raise _BadRequestError(f"There is no partner {name!r}, only {', '.join(s.partner.name for s in sites)}")
        return named

    async def _counters(self, request: Request) -> object:
        if (name := request.query_params.get("partner")) is not None:
            return self._sites(name)[0].counters
        return self._sandbox.state.counters()

    async def _records(self, request: Request) -> object:
        sites = self._sites(request.query_params.get("partner"))
        records = [record for site in sites for record in site.records.all]
        shown: dict[str, Any] = {"count": len(records), "ids": {}}
        for site in sites:
            shown["ids"] |= site.records.count_by_id()
        shown["keys"] = [key for site in sites for key in site.keys.to_json()]
        if request.query_params.get("records") != "false":
            shown["records"] = [record.to_json() for record in records]
        return shown

    async def _tokens(self, request: Request) -> object:
        sites = self._sites(request.query_params.get("partner"))
        return [{"partner": site.partner.name, **token} for site in sites for token in site.tokens.to_json()]

    async def _state(self, _request: Request) -> object:
        return self._sandbox.state.to_json()

    async def _revoke(self, request: Request) -> object:
        wanted = msgspec.json.decode(await request.body() or b"{}", type=_Revocation)
        return {"revoked": sum(site.tokens.revoke_issued(wanted.tokens) for site in self._sites(wanted.partner))}

    async def _button(self, request: Request) -> object:
        """Set the fault of a button in the place of all faults of its kind."""
        button = _BUTTONS[request.url.path.rpartition("/")[2]]
        members = msgspec.json.decode(await request.body() or b"{}", type=dict[str, Any])
        self._sandbox.state.plan.replace_kinds(self._faults(msgspec.json.encode(button | members)))
        return self._sandbox.state.plan.to_json()

    async def _recover(self, _request: Request) -> object:
        self._sandbox.state.plan.replace(())
        return self._sandbox.state.plan.to_json()

    async def _shown_faults(self, _request: Request) -> object:
        return self._sandbox.state.plan.to_json()

    async def _replace_faults(self, request: Request) -> object:
        self._sandbox.state.plan.replace(self._faults(await request.body()))
        return self._sandbox.state.plan.to_json()

    async def _add_faults(self, request: Request) -> object:
        self._sandbox.state.plan.add(self._faults(await request.body()))
        return self._sandbox.state.plan.to_json()

    def _faults(self, body: bytes) -> tuple[AnyFault, ...]:
        faults = faults_from_json(body)
        names = {resource.name for resource in self._sandbox.config.resources}
        for fault in faults:
            self._sites(fault.partner)
            if fault.resource is not None and fault.resource not in names:
                raise _BadRequestError(f"There is no resource {fault.resource!r}, only {', '.join(sorted(names))}")
        return faults

    async def _gates(self, _request: Request) -> object:
        return self._sandbox.state.waits.to_json()

    async def _open_gate(self, request: Request) -> object:
        return {"released": self._sandbox.state.waits.open(request.path_params["name"])}

    async def _close_gate(self, request: Request) -> object:
        self._sandbox.state.waits.close(request.path_params["name"])
        return self._sandbox.state.waits.to_json()

    async def _reset(self, _request: Request) -> object:
        self._sandbox.reset()
        return self._sandbox.state.to_json()


def _answering(handle: Callable[[Request], Awaitable[object]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return Response(msgspec.json.encode(await handle(request)), media_type=JSON)
        except (_BadRequestError, msgspec.DecodeError, UnicodeDecodeError) as exc:
            return Response(problem(400, "Bad request", str(exc)).body, status_code=400, media_type=PROBLEM)

    return answer
