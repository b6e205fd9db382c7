"""An HTTP request to the app and its reply, as plain values: what the routes are written against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `headers` is case-insensitive; `params` are the route's, percent-encoded where the host left it."""

    url: str
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: `body` is JSON text of the media type in `headers`."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def json(cls, status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:  # noqa: ANN401, it is any JSON
        """Give a reply with a JSON body."""
        return cls(status, msgspec.json.encode(content), {"content-type": "application/json", **(headers or {})})
