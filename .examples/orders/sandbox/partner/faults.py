"""The faults that can be set on the partner, as data: the one table of them.

Fault                what all have: which requests, how often, when
├── Latency          the request waits
├── Hold             the request waits at a named gate until that is opened
├── Status           this status is answered
├── Drop             the connection is broken without an answer
├── Limit            more than so many requests a second are refused
├── Concurrency      more than so many requests at once are refused
├── Revoke           the request's access token is revoked just before it is looked at
├── Garble           a successful answer arrives spoilt
├── Alter            a successful JSON answer has other members or another status
├── Normalise        a successful answer has the record in the partner's own form
├── Duplicate        a successful answer is sent a second time
├── Late             a look-up does not show records that were stored just now
├── Challenge        an access token that is not good is refused in another way
├── InUse            a key whose first request is under way is refused with a Retry-After
└── Cached           the token endpoint issues its newest token again
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

Route: TypeAlias = Literal["token", "discovery", "post", "get"]
Stage: TypeAlias = Literal["before", "inside", "after"]
Seconds: TypeAlias = Annotated[float, Meta(ge=0)]
ErrorStatus: TypeAlias = Annotated[int, Meta(ge=400, le=599)]

_ROUTES: dict[str, frozenset[str]] = {
    "api": frozenset({"post", "get"}),
    "any": frozenset({"token", "discovery", "post", "get"}),
}
_KNOWS_RECORD = frozenset({"post", "get", "api"})
# RFC 9110 section 5.6.2 and 5.5, without obs-text.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]*")
_FRAMING = frozenset({"connection", "content-length", "content-type", "transfer-encoding"})


class Fault(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, tag_field="fault", tag=str.lower):
    """What all faults have in common.

    `route`, `partner` (its name), `resource` (its name) and `record` (a glob over the id, `fnmatch`) say which requests
    are meant. Of these the first `skip` are spared, each other is hit with `probability`, `times` of them at most, and
    only within `window`: from and to so many seconds after the fault was set. `stage` is "before" (nothing is done yet)
    or "after" (it is done, its answer is not yet sent); a fault "after" hits only requests that succeeded.
    """

    route: Literal["token", "discovery", "post", "get", "api", "any"]
    stage: Stage = "before"
    partner: str | None = None
    resource: str | None = None
    record: str | None = None
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    times: Annotated[int, Meta(ge=1)] | None = None
    skip: Annotated[int, Meta(ge=0)] = 0
    window: tuple[Seconds, Seconds] | None = None

    def __post_init__(self) -> None:
        """Refuse what could never hit.

        Raises:
            ValueError: the window ends before it starts, or requests of the route have no record.
        """
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError("`window` must start before it ends")
        if (self.record is not None or self.resource is not None) and self.route not in _KNOWS_RECORD:
            raise ValueError(f"`record` and `resource` must not be set: the route {self.route!r} has none")

    @property
    def routes(self) -> frozenset[str]:
        """The routes that `route` stands for."""
        return _ROUTES.get(self.route) or frozenset({self.route})


class Latency(Fault, kw_only=True, frozen=True):
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
        """Return the seconds to wait, at `fraction` (0 to 1) of the way from the least to the most."""
        if isinstance(self.seconds, tuple):
            least, most = self.seconds
            return least + fraction * (most - least)
        return self.seconds


class Hold(Fault, kw_only=True, frozen=True):
    """The request waits at the gate `gate` until that is opened."""

    gate: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,64}$")]


class Status(Fault, kw_only=True, frozen=True):
    """`status` is answered, by default with problem details.

    `retry_after` is in seconds, sent as such or as an HTTP date. `body` is any JSON, a string is sent as it is.
    `headers` can be any but those that frame the message.
    """

    status: Annotated[int, Meta(ge=200, le=599)]
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


class Drop(Fault, kw_only=True, frozen=True):
    """The connection is broken without an answer: reset (RST), or closed in good order (FIN)."""

    how: Literal["reset", "close"] = "reset"


class Limit(Fault, kw_only=True, frozen=True):
    """Each partner takes `rate` requests a second, after a `burst` (default: one second's); the rest get `status`.

    `retry_after` says whether a refusal names the seconds until the next request is taken. `headers` says how every
    answer tells what is left: "draft" (RateLimit and RateLimit-Policy of the IETF draft), "x" (X-RateLimit-Limit,
    -Remaining and -Reset) or "none".
    """

    rate: Annotated[float, Meta(gt=0)]
    burst: Annotated[float, Meta(ge=1)] | None = None
    status: ErrorStatus = 429
    retry_after: bool = True
    headers: Literal["none", "draft", "x"] = "none"
    route: Literal["token", "discovery", "post", "get", "api", "any"] = "api"


class Concurrency(Fault, kw_only=True, frozen=True):
    """Each partner works on `most` API requests at once; the rest get `status`, with `retry_after` seconds if set."""

    most: Annotated[int, Meta(ge=1)]
    status: ErrorStatus = 503
    retry_after: Seconds | None = None
    route: Literal["post", "get", "api"] = "api"


class Revoke(Fault, kw_only=True, frozen=True):
    """The access token that the request carries is revoked just before it is looked at."""

    route: Literal["post", "get", "api"] = "api"
    stage: Literal["before"] = "before"


class Garble(Fault, kw_only=True, frozen=True):
    """A successful answer is spoilt.

    `kind`: "half" promises all of the body, sends half and closes; "cut" is half of the JSON with its true length;
    "html" is a page in place of it; "text" is the JSON as text/plain; "empty" has no body at all.
    """

    kind: Literal["half", "cut", "html", "text", "empty"]
    stage: Literal["after"] = "after"


class Alter(Fault, kw_only=True, frozen=True):
    """A successful JSON answer is sent with the members of `put`, without those of `omit`, with another `status`."""

    put: dict[str, Any] = {}
    omit: tuple[str, ...] = ()
    status: Annotated[int, Meta(ge=200, le=599)] | None = None
    stage: Literal["after"] = "after"


class Normalise(Fault, kw_only=True, frozen=True):
    """A successful answer has the record in another form.

    `rules`: "nulls" leaves members out that are null, "trim" strips texts, "zone" writes timestamps in another time
    zone, "number" writes a number for a text that is one. The id keeps its form.
    """

    rules: tuple[Literal["nulls", "trim", "zone", "number"], ...] = ("nulls", "trim", "zone", "number")
    route: Literal["post", "get", "api"] = "api"
    stage: Literal["after"] = "after"


class Duplicate(Fault, kw_only=True, frozen=True):
    """A successful answer is sent a second time on the same connection, `seconds` after the first."""

    seconds: Seconds = 0.05
    route: Literal["post", "get", "api"] = "post"
    stage: Literal["after"] = "after"


class Late(Fault, kw_only=True, frozen=True):
    """A look-up does not show records that were stored less than `seconds` ago."""

    seconds: Seconds
    route: Literal["get"] = "get"
    stage: Literal["inside"] = "inside"


class Challenge(Fault, kw_only=True, frozen=True):
    """An access token that is not good is refused with this `status` and this `error` of the challenge, or none."""

    status: ErrorStatus = 401
    error: str | None = "invalid_token"
    route: Literal["post", "get", "api"] = "api"
    stage: Literal["inside"] = "inside"


class InUse(Fault, kw_only=True, frozen=True, tag="in_use"):
    """The 409 for a key whose first request is under way has a Retry-After."""

    retry_after: Seconds
    route: Literal["post"] = "post"
    stage: Literal["inside"] = "inside"


class Cached(Fault, kw_only=True, frozen=True):
    """The token endpoint issues its newest token again until that expires, revoked or not."""

    route: Literal["token"] = "token"
    stage: Literal["inside"] = "inside"


AnyFault: TypeAlias = (
    Latency
    | Hold
    | Status
    | Drop
    | Limit
    | Concurrency
    | Revoke
    | Garble
    | Alter
    | Normalise
    | Duplicate
    | Late
    | Challenge
    | InUse
    | Cached
)


def faults_from_json(body: bytes) -> tuple[AnyFault, ...]:
    """Return the faults of a JSON array, or of one JSON object.

    Raises:
        msgspec.DecodeError: it is not JSON, or an unknown fault, field or value stands in it; the message names it.
    """
    if body.lstrip(b" \t\r\n").startswith(b"["):
        return msgspec.json.decode(body, type=tuple[AnyFault, ...])
    return (msgspec.json.decode(body, type=AnyFault),)
