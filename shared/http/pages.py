"""The OpenAPI document, and the two pages of the app, which hold no data: the console and the rendered document."""

from __future__ import annotations

import functools
import html
from pathlib import Path
from typing import TYPE_CHECKING

from shared.http.problem import TYPES
from shared.http.request import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.resource import Resource

# The pages run their own script only. The sandbox's console also asks the partner on this machine.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self' http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def openapi(resources: Sequence[Resource]) -> Reply:
    """Return the OpenAPI document."""
    # Few ever ask for it: it is not part of a cold start.
    from shared.http.openapi import document  # noqa: PLC0415

    return Reply(200, document(resources), {"content-type": "application/json"})


def console() -> Reply:
    """Return the page that shows deliveries as they run."""
    return _page("console.html")


def docs() -> Reply:
    """Return the page that renders the OpenAPI document and explains each problem type."""
    return _page("docs.html")


@functools.cache
def _page(name: str) -> Reply:
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    sections = (
        f'<section class="card" id="{slug}"><h3>{html.escape(type_.title)}</h3>'
        f"<p>{slug}, status {type_.status}. {html.escape(type_.advice)}</p></section>"
        for slug, type_ in TYPES.items()
    )
    body = text.replace("<!-- problems -->", "\n".join(sections)).encode()
    headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": _POLICY}
    return Reply(200, body, headers)
