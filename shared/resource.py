"""The values that describe record types and partners: what `shared/partner.py` is made of.

Everything else is derived from them: routes, functions, OpenAPI, the sandbox's partner and sample records.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RESERVED_ROUTES = ("deliveries", "health", "openapi.json", "docs", "console")
"""First path segments of the app's own routes."""

_PARTNER_NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
# Prefixes of settings that are not a partner's.
_TAKEN_PREFIXES = ("AZURE", "DELIVERY", "FUNCTIONS", "OTEL", "PYTHON", "TOKEN_STORE", "WEBSITE")
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9][A-Za-z0-9._~-]*)*")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}|\{id\})*")
_FUNCTION_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,99}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# Headers that the client or the transport sets.
_OWN_HEADERS = {"authorization", "content-length", "content-type", "host", "transfer-encoding"}


class Record(msgspec.Struct, kw_only=True, rename="camel"):
    """The base class of a record type. Its annotations are the checks of the intake.

    Members are named in camelCase in JSON; `class Order(Record, rename=None)` keeps the names of Python. Members that
    the class does not name are passed on unchanged. A check over several members is a `__post_init__` that raises
    ValueError.
    """


@dataclass(frozen=True, slots=True)
class Partner:
    """A partner's API. `name` is the prefix of its settings: "CRM_API" reads CRM_API_URL and so on.

    `headers` are sent with every request; they are not secret.

    Raises:
        ResourceError: the name or a header is not usable.
    """

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if not _PARTNER_NAME.fullmatch(self.name):
            problems.append(f"Partner({self.name!r}): the name must be in upper case, such as CRM_API")
        if any(self.name == prefix or self.name.startswith(f"{prefix}_") for prefix in _TAKEN_PREFIXES):
            problems.append(f"Partner({self.name!r}): settings with this prefix have another meaning")
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
                problems.append(f"Partner({self.name!r}): the header {name!r} cannot be set here")
            elif not value.isascii() or not value.isprintable():
                problems.append(f"Partner({self.name!r}): the header {name} must be printable ASCII")
        if problems:
            raise ResourceError(problems)

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Post:
    """How a record is sent. `{id}` in `path` or `query` stands for its id, which is percent-encoded.

    Raises:
        ResourceError: the path is not usable.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    method: Literal["POST", "PUT"] = "POST"

    def __post_init__(self) -> None:
        _check_path(self.method.capitalize(), self.path, self.query)

    def target(self, id_: str) -> str:
        """Return the path and query of the request for this id."""
        return _target(self.path, self.query, id_)


def Put(path: str, query: Mapping[str, str] | None = None, *, media_type: str = "application/json") -> Post:  # noqa: N802, reads as the value it returns
    """Describe a record that is sent with PUT.

    Raises:
        ResourceError: the path is not usable.
    """
    return Post(path, query or {}, media_type, method="PUT")


@dataclass(frozen=True, slots=True)
class LookUp:
    """How a record is found again by its id. `{id}` stands for the id in `path` and `query`.

    `items` is the JSON Pointer (RFC 6901) of the record, or of the list of records, in the answer: "" is the whole
    answer. `id` is the JSON Pointer of the id in the partner's record; None: the member that holds it in the record
    that was sent. Of a list, only records with that id count.

    Raises:
        ResourceError: the path or a pointer is not usable.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    items: str = ""
    id: str | None = None

    def __post_init__(self) -> None:
        _check_path("LookUp", self.path, self.query)
        if "{id}" not in self.path and not any("{id}" in value for value in self.query.values()):
            raise ResourceError([f"LookUp({self.path!r}): {{id}} must stand in the path or the query"])
        for name, pointer in (("items", self.items), ("id", self.id)):
            if pointer and not pointer.startswith("/"):
                raise ResourceError([f"LookUp({self.path!r}): {name} must be a JSON Pointer, such as /items"])

    def target(self, id_: str) -> str:
        """Return the path and query of the request for this id."""
        return _target(self.path, self.query, id_)


class ProblemDetails(msgspec.Struct, frozen=True):
    """What the partner says is wrong (RFC 9457). `members` are its extension members."""

    title: str | None = None
    detail: str | None = None
    type: str | None = None
    members: tuple[tuple[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a plain object, as RFC 9457 section 3 writes it."""
        named = {"type": self.type, "title": self.title, "detail": self.detail}
        return {name: text for name, text in named.items() if text is not None} | dict(self.members)


class ApiResponse(msgspec.Struct, frozen=True):
    """One whole response of a partner's API, whatever its status; `headers` is case-insensitive.

    `body` is decompressed. `content` is its JSON (numbers with a fraction are `Decimal`), None where there is none.
    `is_readable` is False where the body should be JSON and is not: such a success proves nothing. `is_html` marks a
    page, which a proxy or a login sends. `problem` is what an error says of itself; `retry_after` is in seconds from
    the response, None where the partner named no time.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    content: Any = None
    problem: ProblemDetails | None = None
    is_readable: bool = True
    is_html: bool = False
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004, RFC 9110 section 15.3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `judge=` makes of an answer to a post.

    `created`: the partner has stored the record. `exists`: it had the record before. `rejected`: it will never accept
    it. `deferred`: it has not acted on it; try again. `uncertain`: it may have stored it; look it up first.
    `retry_after` is in seconds.
    """

    kind: Literal["created", "exists", "rejected", "deferred", "uncertain"]
    reason: str | None = None
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Resource:
    """A record type: its model, its route below /api, the member that holds its id, and the partner that receives it.

    `look_up` is None where the partner cannot find a record by this id. `honours_idempotency_key` says that the partner
    answers a repeated key as it did the first time, so a look-up is needed only after an uncertain attempt. The key
    goes into `idempotency_header`, None for no header.

    `same(sent, found)` decides whether the partner's record has the content that was sent; both are decoded JSON with
    `Decimal` for fractions. None: every member that was sent is there with an equal value. `judge(response)` decides
    what an answer to a post means; None, or a result of None, leaves that to the status. Both are plain functions that
    raise nothing.

    `name` is the middle part of function names ("DeliverBusiness"); None: the name of the model's class.

    Raises:
        ResourceError: an argument is not usable; every problem is listed.
    """

    model: type[Record]
    route: str
    id: str
    partner: Partner
    post: Post
    look_up: LookUp | None = None
    honours_idempotency_key: bool = False
    idempotency_header: str | None = "Idempotency-Key"
    same: Callable[[Mapping[str, Any], Mapping[str, Any]], bool] | None = None
    judge: Callable[[ApiResponse], Verdict | None] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or getattr(self.model, "__name__", ""))
        if problems := list(_resource_problems(self)):
            raise ResourceError([f"Resource {self.name}: {problem}" for problem in problems])

    @property
    def id_member(self) -> str:
        """The name of the id's member in JSON."""
        return _encoded_name(self.model, self.id)

    @property
    def deliver(self) -> str:
        """The name of the orchestrator of one record."""
        return f"Deliver{self.name}"

    @property
    def deliver_batch(self) -> str:
        """The name of the orchestrator of a batch."""
        return f"Deliver{self.name}Batch"

    @property
    def post_one(self) -> str:
        """The name of the activity that delivers one record."""
        return f"Post{self.name}"

    @property
    def post_batch(self) -> str:
        """The name of the activity that delivers records of a batch."""
        return f"Post{self.name}Batch"


def check_resources(resources: Sequence[Resource]) -> None:
    """Check that resources can live in one app.

    Raises:
        ResourceError: there is none, two share a route or a name, or two partners differ under one name.
    """
    problems = [] if resources else ["RESOURCES is empty"]
    # The Functions host compares routes and names without case.
    for what, values in (
        ("route", [resource.route.lower() for resource in resources]),
        ("name", [f.lower() for r in resources for f in (r.deliver, r.deliver_batch, r.post_one, r.post_batch)]),
    ):
        problems += [
            f"the {what} {value} is taken twice" + ("" if what == "route" else ": give one Resource another name=")
            for value, count in Counter(values).items()
            if count > 1
        ]
    routes = {resource.route.lower() for resource in resources}
    problems += [
        f"the route {route} is also the batch route of {route.removesuffix('/batch')}"
        for route in routes
        if route.endswith("/batch") and route.removesuffix("/batch") in routes
    ]
    partners: dict[str, Partner] = {}
    for resource in resources:
        if partners.setdefault(resource.partner.name, resource.partner) != resource.partner:
            problems.append(f"Partner({resource.partner.name!r}) is described twice: define it once, use it twice")
    if problems:
        raise ResourceError(problems)


@functools.cache  # each call to the partner asks
def _encoded_name(model: type[Record], member: str) -> str:
    return next(each.encode_name for each in msgspec.structs.fields(model) if each.name == member)


def _id_problem(resource: Resource) -> str | None:
    """Say why the member named by `id` cannot be the id, None if it can: it is text in JSON, or a whole number."""
    members = {each.name: each for each in msgspec.structs.fields(resource.model)}
    member = members.get(resource.id)
    if member is None:
        return f"id={resource.id!r} is not a member of the model; its members are {', '.join(members)}"
    if not member.required:
        return f"id={resource.id!r} has a default: a record without an id cannot be delivered once"
    try:
        schema = msgspec.json.schema(member.type)
    except TypeError:  # a class that msgspec does not know
        schema = {}
    while "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    values = schema.get("enum", ())
    is_id = all(each.get("type") in {"string", "integer"} for each in schema.get("anyOf", [schema]))
    if is_id or (values and all(isinstance(value, str | int) for value in values)):
        return None
    return f"id={resource.id!r} must be text or a whole number, and not null"


def _resource_problems(resource: Resource) -> list[str]:
    problems: list[str] = []
    if not (isinstance(resource.model, type) and issubclass(resource.model, Record)):
        return ["the model must be a class that inherits from Record"]
    problems += filter(None, [_id_problem(resource)])
    if not _ROUTE.fullmatch(resource.route):
        problems.append(f"route={resource.route!r} must be a path such as orders or v1/orders")
    elif resource.route.split("/")[0].lower() in RESERVED_ROUTES:
        problems.append(f"route={resource.route!r} is one of the app's own routes: {', '.join(RESERVED_ROUTES)}")
    if not _FUNCTION_NAME.fullmatch(resource.name):
        problems.append(f"name={resource.name!r} must begin with a capital and have letters, digits and _ only")
    header = resource.idempotency_header
    if header is not None and (not _HEADER_NAME.fullmatch(header) or header.lower() in _OWN_HEADERS):
        problems.append(f"idempotency_header={header!r} is not the name of a header that can be set")
    if resource.look_up is None and not resource.honours_idempotency_key and resource.post.method == "POST":
        problems.append(
            "look_up=None needs honours_idempotency_key=True: without either, nobody can tell a lost answer from a "
            "lost record"
        )
    if resource.honours_idempotency_key and header is None:
        problems.append("honours_idempotency_key=True needs an idempotency_header")
    return problems


def _check_path(what: str, path: str, query: Mapping[str, str]) -> None:
    if not _PATH.fullmatch(path) or path.startswith("//"):
        raise ResourceError(
            [f"{what}({path!r}): the path must begin with / and be percent-encoded; {{id}} stands for the id"]
        )
    for name, value in query.items():
        if not isinstance(value, str) or "{" in value.replace("{id}", ""):
            raise ResourceError([f"{what}({path!r}): {name!r} of the query must be text; {{id}} stands for the id"])


def _target(path: str, query: Mapping[str, str], id_: str) -> str:
    encoded = quote(id_, safe="")
    target = path.replace("{id}", encoded)
    if not query:
        return target
    pairs = (f"{quote(name, safe='')}={quote(value.replace('{id}', id_), safe='')}" for name, value in query.items())
    return f"{target}?{'&'.join(pairs)}"
