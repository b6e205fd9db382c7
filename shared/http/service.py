"""The app's own routes: its health, the OpenAPI document, two pages that hold no data, and the answer to all else."""

from __future__ import annotations

import asyncio
import functools
import html
import re
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shared.errors import ApiUnavailableError, SettingsError, TokenError, TokenRejectedError
from shared.http.messages import TYPES, Reply, Request, problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from shared.resource import Resource

_NO_STORE = {"cache-control": "no-store"}
# The pages run their own script only. The sandbox's console also asks the partner on this machine.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self' http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def get_health(check_settings: Callable[[], None]) -> Reply:
    """Say whether the settings are valid, and nothing else: anybody may ask."""
    try:
        check_settings()
    except SettingsError:
        return Reply.json(503, {"status": "unavailable"}, _NO_STORE)
    return Reply.json(200, {"status": "ok"}, _NO_STORE)


async def get_deep_health(
    request: Request,
    probes: Mapping[str, Callable[..., Awaitable[None]]],
    figures: Callable[[str], dict[str, Any]],
) -> Reply:
    """Say of each partner whether its settings are valid, a token can be had, and it answers.

    Each of `probes` checks one partner: it raises SettingsError, TokenError or ApiUnavailableError. With `?probe=false`
    it gets `asks=False`, and checks only the settings. `figures` returns the partner's flow and tokens as they are now.
    """
    asks = request.flag("probe", default=True)
    found = await asyncio.gather(*(_outcome_of(probe, asks=asks) for probe in probes.values()))
    partners = {name: health | figures(name) for name, health in zip(probes, found, strict=True)}
    is_well = all("detail" not in health for health in found)
    content = {"status": "ok" if is_well else "unavailable", "partners": partners}
    return Reply.json(200 if is_well else 503, content, _NO_STORE)


async def _outcome_of(probe: Callable[..., Awaitable[None]], *, asks: bool) -> dict[str, Any]:
    """Return what one probe found; the server's own words stay in the log."""
    try:
        await probe(asks=asks)
    except SettingsError as exc:
        return {"settings": "unavailable", "detail": "; ".join(exc.problems)}
    except TokenRejectedError as exc:
        detail = f"The token endpoint refuses this app ({exc.error}): check its client id and credentials."
        return {"settings": "ok", "token": "unavailable", "detail": detail}
    except TokenError as exc:
        return {"settings": "ok", "token": "unavailable", "detail": str(exc)}
    except ApiUnavailableError as exc:
        return {"settings": "ok", "token": "ok", "partner": "unavailable", "detail": str(exc)}
    return {"settings": "ok", "token": "ok", "partner": "ok"} if asks else {"settings": "ok"}


def get_openapi(resources: Sequence[Resource]) -> Reply:
    """Return the OpenAPI document."""
    # Few ever ask for it: it is not part of a cold start.
    from shared.http.openapi import document  # noqa: PLC0415

    return Reply(200, document(resources), {"content-type": "application/json"})


@functools.cache
def get_page(name: Literal["console", "docs"]) -> Reply:
    """Return the page that shows deliveries as they run, or the one that renders the OpenAPI document."""
    text = (Path(__file__).parent / f"{name}.html").read_text(encoding="utf-8")
    sections = (
        f'<section class="card" id="{slug}"><h3>{html.escape(title)}</h3>'
        f"<p>{slug}, status {status}. {html.escape(advice)}</p></section>"
        for slug, (status, title, advice) in TYPES.items()
    )
    body = text.replace("<!-- problems -->", "\n".join(sections)).encode()
    return Reply(200, body, {"content-type": "text/html; charset=utf-8", "content-security-policy": _POLICY})


def unknown_route(request: Request, resources: Sequence[Resource]) -> Reply:
    """Say that there is no such route, or that it does not have this method."""
    from shared.http.openapi import operations  # noqa: PLC0415, the same

    path = request.params.get("path", "").strip("/")
    calls = [call.split() for call in chain.from_iterable(operations(resources).values())]
    patterns = [(method, re.escape(route).replace(r"\{id\}", "[^/]+")) for method, route in calls]
    methods = {method for method, pattern in patterns if re.fullmatch(pattern, f"/{path}", re.IGNORECASE)}
    if methods:
        allow = ", ".join(sorted(methods))
        detail = f"/api/{path[:200]} has the methods {allow}, not {request.method}."
        return problem("method-not-allowed", detail, headers={"allow": allow})
    return problem("no-route", f"There is no route {request.method} /api/{path[:200]}.")
