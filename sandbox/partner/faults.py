"""The faults that can be set on the partner, as data.

Fault                what all have: which requests, how often, when
├── Latency          the request waits
├── Hold             the request waits at a named gate until that is opened
├── Status           this status is answered
├── Drop             the connection is broken, without an answer
├── Garble           the successful answer arrives, but spoilt
├── Alter            the successful answer is JSON with other members
└── Revoke           the request's access token is revoked just before it is looked at
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

Route: TypeAlias = Literal["token", "discovery", "post", "get"]
Stage: TypeAlias = Literal["before", "after"]
Seconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0)]

_ROUTES: dict[str, frozenset[str]] = {
    "api": frozenset({"post", "get"}),
    "any": frozenset({"token", "discovery", "post", "get"}),
}
_KNOWS_EXTERNAL_ID = frozenset({"post", "get", "api"})
# RFC 9110 section 5.6.2 and 5.5, without obs-text.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_FRAMING = frozenset({"connection", "content-length", "content-type", "transfer-encoding"})


class Fault(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, tag_field="fault"):
    """What all faults have in common.

    `route` and `external_id` (a glob, `fnmatch`) say which requests are meant. Of these the first `skip` are spared,
    each other is hit with `probability`, `times` of them at most, and only within `window`: from and to so many seconds
    after the fault was set. `stage` is "before" (nothing is done yet) or "after" (it is done, its answer is not yet
    sent); a fault "after" only hits requests that succeeded.
    """

    route: Literal["token", "discovery", "post", "get", "api", "any"]
    stage: Stage = "before"
    external_id: str | None = None
    probability: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    times: Annotated[int, msgspec.Meta(ge=1)] | None = None
    skip: Annotated[int, msgspec.Meta(ge=0)] = 0
    window: tuple[Seconds, Seconds] | None = None

    def __post_init__(self) -> None:
        """Refuse what could never hit.

        Raises:
            ValueError: the window ends before it starts, or the route's requests have no external id.
        """
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError("`window` must start before it ends")
        if self.external_id is not None and self.route not in _KNOWS_EXTERNAL_ID:
            raise ValueError(f"`external_id` must not be set: requests of the route {self.route!r} have none")

    @property
    def routes(self) -> frozenset[str]:
        """The routes that `route` stands for."""
        return _ROUTES.get(self.route) or frozenset({self.route})


class Latency(Fault, kw_only=True, frozen=True, tag="latency"):
    """The request waits `seconds`, or between the two numbers of them."""

    # Not `Seconds | tuple[...]`: msgspec 0.22 crashes in a garbage collection while it holds a type that is either a
    # number with a bound or a tuple of fixed length.
    seconds: float | tuple[Seconds, Seconds]

    def __post_init__(self) -> None:
        """Refuse also a time below 0.

        Raises:
            ValueError: `seconds` is one.
        """
        super().__post_init__()
        if isinstance(self.seconds, float) and self.seconds < 0:
            raise ValueError("`seconds` must not be below 0")

    def duration(self, fraction: float) -> float:
        """Give the seconds to wait, at `fraction` (0 to 1) of the way from the least to the most."""
        if isinstance(self.seconds, tuple):
            least, most = self.seconds
            return least + fraction * (most - least)
        return self.seconds


class Hold(Fault, kw_only=True, frozen=True, tag="hold"):
    """The request waits at the gate `gate` until that is opened."""

    gate: Annotated[str, msgspec.Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]


class Status(Fault, kw_only=True, frozen=True, tag="status"):
    """`status` is answered, by default with problem details.

    `retry_after` is in seconds, sent as such or as an HTTP date. `body` is any JSON, a string is sent as it is.
    `headers` can be any but those that frame the message.
    """

    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    retry_after: Seconds | None = None
    retry_after_as: Literal["seconds", "date"] = "seconds"
    body: Any = None
    content_type: str | None = None
    headers: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse also headers that HTTP does not know.

        Raises:
            ValueError: a header's name or value, or the content type, is none.
        """
        super().__post_init__()
        if self.content_type is not None and not _HEADER_VALUE.fullmatch(self.content_type):
            raise ValueError("`content_type` is no HTTP header's value")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ValueError(f"{name!r}: {value!r} is no HTTP header")
            if name.lower() in _FRAMING:
                raise ValueError(f"`headers` must not set {name!r}: the server does")


class Drop(Fault, kw_only=True, frozen=True, tag="drop"):
    """The connection is broken without an answer: reset (RST), or closed in good order (FIN)."""

    how: Literal["reset", "close"] = "reset"


class Garble(Fault, kw_only=True, frozen=True, tag="garble"):
    """The successful answer is spoilt.

    `kind`: "half" promises all of the body, sends half and closes; "cut" is half of the JSON with its true length;
    "html" is a page in place of it; "text" is the JSON as text/plain; "empty" has no body at all.
    """

    kind: Literal["half", "cut", "html", "text", "empty"]
    stage: Literal["after"] = "after"


class Alter(Fault, kw_only=True, frozen=True, tag="alter"):
    """The successful JSON answer is sent with the members of `put` in place and those of `omit` left out."""

    put: dict[str, Any] = {}
    omit: tuple[str, ...] = ()
    stage: Literal["after"] = "after"


class Revoke(Fault, kw_only=True, frozen=True, tag="revoke"):
    """The access token that the request carries is revoked just before it is looked at."""

    route: Literal["post", "get", "api"]
    stage: Literal["before"] = "before"


AnyFault: TypeAlias = Latency | Hold | Status | Drop | Garble | Alter | Revoke


def faults_from_json(body: bytes) -> tuple[AnyFault, ...]:
    """Give the faults of a JSON array, or of one JSON object.

    Raises:
        msgspec.DecodeError: it is not JSON, or an unknown fault, field or value stands in it; the message names it.
    """
    if body.lstrip(b" \t\r\n").startswith(b"["):
        return msgspec.json.decode(body, type=tuple[AnyFault, ...])
    return (msgspec.json.decode(body, type=AnyFault),)
