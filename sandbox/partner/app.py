"""The partner as an ASGI application."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from sandbox.partner.answers import PROBLEM, problem
from sandbox.partner.business import get_business, post_business
from sandbox.partner.call import LOOKUP_PATH
from sandbox.partner.control import Control
from sandbox.partner.exchange import Exchange
from sandbox.partner.state import Partner
from sandbox.partner.token_endpoint import TOKEN_PATH, get_discovery, post_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from sandbox.partner.config import PartnerConfig


def create_app(config: PartnerConfig, clock: Callable[[], float] = time.monotonic) -> Starlette:
    """Give the partner's application; its `state.partner` is the `Partner`. `clock` gives seconds.

    It is to be served by `sandbox.partner.server`, whose connections can be broken on demand.
    """
    partner = Partner(config, clock)
    lookup = Route(LOOKUP_PATH + "{external_id:path}", Exchange(partner, "get", get_business), methods=["GET"])
    # Starlette's own pattern stops at a line break, and an external id may hold anything.
    lookup.path_regex = re.compile(re.escape(LOOKUP_PATH) + r"(?P<external_id>.+)\Z", re.DOTALL)

    async def no_route(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)  # noqa: S101 - it is registered for that class alone
        partner.state.counters.other_requests += 1
        answer = problem(exc.status_code, exc.detail, f"There is no {request.method} {request.url.path}")
        return Response(answer.body, status_code=exc.status_code, headers=exc.headers, media_type=PROBLEM)

    app = Starlette(
        routes=[
            Route("/business/", Exchange(partner, "post", post_business), methods=["POST"]),
            lookup,
            Route(TOKEN_PATH, Exchange(partner, "token", post_token), methods=["POST"]),
            Route("/.well-known/openid-configuration", Exchange(partner, "discovery", get_discovery), methods=["GET"]),
            *Control(partner).routes(),
        ],
        exception_handlers={HTTPException: no_route},
    )
    app.router.redirect_slashes = False
    app.state.partner = partner
    return app
