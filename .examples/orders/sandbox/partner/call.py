"""A request as the partner's endpoints see it, and which endpoint it is for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from sandbox.partner.fault_plan import Target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import Scope

    from sandbox.partner.faults import Route
    from sandbox.partner.state import Site, State
    from shared.resource import Resource


class Call:
    """One request to an endpoint of a partner: its headers and, once it is read, its body.

    `path_id` is the id in its path or query. `reserved_key` is the idempotency key whose first request this is.
    """

    __slots__ = ("_scope", "body", "path_id", "reserved_key", "resource", "route", "site")

    def __init__(
        self, site: Site, route: Route, scope: Scope, resource: Resource | None = None, path_id: str | None = None
    ) -> None:
        self.site = site
        self.route: Route = route
        self.resource = resource
        self.path_id = path_id
        self.body = b""
        self.reserved_key: str | None = None
        self._scope = scope

    @property
    def state(self) -> State:
        """What its partner knows together with the others."""
        return self.site.state

    def header(self, name: str) -> str | None:
        """Return the first header of this name; None where there is none."""
        wanted = name.lower().encode()
        for known, value in self._scope["headers"]:
            if known == wanted:
                text: str = value.decode("latin-1")
                return text
        return None

    @property
    def media_type(self) -> str:
        """The media type of the body, without parameters, in lower case."""
        return (self.header("content-type") or "").partition(";")[0].strip().lower()

    @property
    def base_url(self) -> str:
        """The URL under which the client knows this partner, without a final slash."""
        host, port = self._scope["server"]
        return f"http://{self.header('host') or f'{host}:{port}'}{self.site.base_path}"

    @property
    def bearer_token(self) -> str | None:
        """The access token of the Authorization header (RFC 6750 section 2.1); None where there is none."""
        scheme, _, token = (self.header("authorization") or "").partition(" ")
        return (token.strip() or None) if scheme.lower() == "bearer" else None

    @property
    def idempotency_key(self) -> str | None:
        """The idempotency key, in the header that the resource names; None where there is none."""
        name = self.resource.idempotency_header if self.resource else None
        return self.header(name) if name else None

    @property
    def target(self) -> Target:
        """What the faults see of the request."""
        if self.resource is None:
            return Target(self.route, self.site.partner.name)
        return Target(self.route, self.site.partner.name, self.resource.name, self.record_id)

    @property
    def record_id(self) -> str | None:
        """The id of the record that the request is about; None where it names none."""
        if self.resource is None or self.path_id is not None:
            return self.path_id
        try:
            content: Any = msgspec.json.decode(self.body)
            id_ = content[self.resource.id_member]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            return None
        return str(id_) if isinstance(id_, str | int) else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A request that a resource describes: method, path and query, with `{id}` in either."""

    method: str
    route: Literal["post", "get"]
    resource: Resource
    path: re.Pattern[bytes]
    query: Mapping[str, str]

    @classmethod
    def of(cls, resource: Resource, base_path: str) -> list[Endpoint]:
        """Return the endpoints of a resource whose partner is served below `base_path`."""
        post, look_up = resource.post, resource.look_up
        endpoints = [cls(post.method, "post", resource, _pattern(base_path + post.path), post.query)]
        if look_up is not None:
            endpoints.append(cls("GET", "get", resource, _pattern(base_path + look_up.path), look_up.query))
        return endpoints

    def matched_id(self, scope: Scope) -> tuple[bool, str | None]:
        """Return whether the path and the query of a request are this endpoint's, and the id in them."""
        # The raw path, because the decoded one does not tell "a%2Fb", an id, from "a/b", another path.
        match = self.path.fullmatch(scope["raw_path"])
        if match is None:
            return False, None
        sent = dict(parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True))
        found = {unquote_to_bytes(each).decode(errors="replace") for each in match.groups()}
        for name, template in self.query.items():
            before, is_id, after = template.partition("{id}")
            value = sent.get(name)
            if value is None or not (value.startswith(before) and value.endswith(after)):
                return False, None
            if is_id:
                found.add(value[len(before) : len(value) - len(after)])
            elif value != template:
                return False, None
        return (False, None) if len(found) > 1 else (True, next(iter(found), None))


def _pattern(path: str) -> re.Pattern[bytes]:
    return re.compile(b"([^/]+)".join(re.escape(part.encode()) for part in path.split("{id}")), re.DOTALL)
