"""A request as the partner's endpoints see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

import msgspec

if TYPE_CHECKING:
    from starlette.types import Scope

    from sandbox.partner.faults import Route

LOOKUP_PATH = "/business/by-external/"
_RAW_LOOKUP_PATH = LOOKUP_PATH.encode()


class Call:
    """One request: its route, headers and, once it is read, its body.

    `reserved_key` is the Idempotency-Key whose first request this is, as long as it is under way.
    """

    __slots__ = ("_payload", "_scope", "body", "reserved_key", "route")

    def __init__(self, route: Route, scope: Scope) -> None:
        self.route: Route = route
        self.body = b""
        self.reserved_key: str | None = None
        self._scope = scope
        self._payload: Any = msgspec.UNSET

    def header(self, name: bytes) -> str | None:
        """Give the first header of this (lower case) name; None where there is none."""
        for known, value in self._scope["headers"]:
            if known == name:
                text: str = value.decode("latin-1")
                return text
        return None

    @property
    def media_type(self) -> str:
        """The media type of the body, without parameters, in lower case."""
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    @property
    def base_url(self) -> str:
        """The URL under which the client knows the partner, without a final slash."""
        host, port = self._scope["server"]
        return f"http://{self.header(b'host') or f'{host}:{port}'}"

    @property
    def bearer_token(self) -> str | None:
        """The access token of the Authorization header (RFC 6750 section 2.1); None where there is none."""
        scheme, _, token = (self.header(b"authorization") or "").partition(" ")
        return (token.strip() or None) if scheme.lower() == "bearer" else None

    @property
    def payload(self) -> Any:  # noqa: ANN401 - any JSON
        """The body's JSON.

        Raises:
            ValueError: it is none.
        """
        if self._payload is msgspec.UNSET:
            try:
                self._payload = msgspec.json.decode(self.body)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
                raise ValueError(str(exc)) from exc
        return self._payload

    @property
    def external_id(self) -> str | None:
        """The external id that the request is about; None where it names none."""
        if self.route == "get":
            return self._external_id_of_path()
        if self.route == "post":
            try:
                external_id = self.payload.get("externalId")
            except (ValueError, AttributeError):
                return None
            return external_id if isinstance(external_id, str) else None
        return None

    def _external_id_of_path(self) -> str | None:
        # The raw path, because the decoded one does not tell "a%2Fb", an external id, from "a/b", which is no route.
        segment: bytes = self._scope["raw_path"].removeprefix(_RAW_LOOKUP_PATH)
        if b"/" in segment:
            return None
        try:
            return unquote_to_bytes(segment).decode()
        except UnicodeDecodeError:
            return None
