"""The keys of the host, which it asks for when it is started with `--keys`: who may call what.

A function of level "function" takes the function key, the management webhooks of Durable Functions take the system key,
and the master key opens everything. A key stands in the header `x-functions-key`, or else in the query as `code`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.requests import Request

HEADER, QUERY = "x-functions-key", "code"
FUNCTION, MASTER, SYSTEM = "function", "master", "system"


def _new_key() -> str:
    return secrets.token_urlsafe(40)


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one host."""

    function: str = field(default_factory=_new_key, repr=False)
    master: str = field(default_factory=_new_key, repr=False)
    system: str = field(default_factory=_new_key, repr=False)

    def lines(self) -> str:
        """Return the keys as lines of `key: KIND KEY`, for the person who started the host."""
        return f"key: {FUNCTION} {self.function}\nkey: {MASTER} {self.master}\nkey: {SYSTEM} {self.system}\n"

    def kind_of(self, request: Request) -> str | None:
        """Return which key a request carries, None if it carries none or a wrong one; the header wins."""
        given = request.headers.get(HEADER, request.query_params.get(QUERY, ""))
        known = ((MASTER, self.master), (SYSTEM, self.system), (FUNCTION, self.function))
        return next((kind for kind, key in known if secrets.compare_digest(key.encode(), given.encode())), None)

    def opens_function(self, request: Request, level: str) -> bool:
        """Tell whether a request may call a function of an `authLevel`."""
        allowed = {"anonymous": None, "function": (FUNCTION, MASTER)}.get(level.lower(), (MASTER,))
        return allowed is None or self.kind_of(request) in allowed

    def refusal(self, request: Request, *allowed: str) -> Response | None:
        """Return the answer to a request for one of the host's own routes without an allowed key, None with one."""
        kind = self.kind_of(request)
        if kind is None:
            return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
        return None if kind in allowed else Response(status_code=403)
