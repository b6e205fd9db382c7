"""The values that describe record types and partners: what `shared/partner.py` is made of.

Everything else is derived from them: routes, functions, OpenAPI, the sandbox's partner and sample records. Each value
checks itself when it is made, and raises a ResourceError that lists every problem.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, urlencode

import msgspec

from shared.answer import ApiResponse, Verdict
from shared.errors import ResourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# What shared/partner.py imports.
__all__ = ["ApiResponse", "LookUp", "Partner", "Post", "Put", "Record", "Resource", "Verdict"]

RESERVED_ROUTES = ("deliveries", "health", "openapi.json", "docs", "console")
"""First path segments of the app's own routes."""
RESERVED_NAMES = ("Delivery", "DeliveryHistory", "Health", "HealthDeep", "OpenApi", "Docs", "Console")
"""Names of record types with which two functions would be called, say, GetDelivery."""

_PARTNER_NAME = re.compile(r"[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)*")
# Prefixes of settings that are not a partner's.
_TAKEN_PREFIXES = ("AZURE_", "DELIVERY_", "FUNCTIONS_", "OTEL_", "PYTHON_", "TOKEN_STORE_", "WEBSITE_")
_ROUTE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9][A-Za-z0-9._~-]*)*")
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}|\{id\})*")
_FUNCTION_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,99}")
# RFC 9110 sections 5.6.2, 5.6.4, 5.6.6 and 8.3.1.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~]|\\[\t -~])*"'
_HEADER_NAME = re.compile(_WORD)
_MEDIA_TYPE = re.compile(rf"{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|{_QUOTED}))*")
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
    """

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = {
            "the name must be in upper case, such as CRM_API": not _PARTNER_NAME.fullmatch(self.name),
            "settings with this prefix have another meaning": f"{self.name}_".startswith(_TAKEN_PREFIXES),
            "headers must be a dict": not isinstance(self.headers, Mapping),
        }
        for name, value in self.headers.items() if isinstance(self.headers, Mapping) else ():
            is_text = isinstance(value, str) and value.isascii() and value.isprintable()
            problems[f"{name!r} is not the name of a header that can be set"] = not _is_settable(name)
            problems[f"the header {name} must be text of printable ASCII"] = not is_text
        _refuse(f"Partner({self.name!r})", problems)


@dataclass(frozen=True, slots=True)
class Post:
    """How a record is sent. `{id}` in `path` or `query` stands for its id, which is percent-encoded."""

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    media_type: str = "application/json"
    method: Literal["POST", "PUT"] = "POST"

    def __post_init__(self) -> None:
        problems = {f"media_type={self.media_type!r} is not a media type": not _MEDIA_TYPE.fullmatch(self.media_type)}
        _refuse(f"{self.method.capitalize()}({self.path!r})", problems | _target_problems(self.path, self.query))

    def target(self, id_: str) -> str:
        """Return the path and query of the request for this id."""
        return _target(self.path, self.query, id_)


Put = functools.partial(Post, method="PUT")


@dataclass(frozen=True, slots=True)
class LookUp:
    """How a record is found again by its id. `{id}` stands for the id in `path` and `query`.

    `items` is the JSON Pointer (RFC 6901) of the record, or of the list of records, in the answer: "" is the whole
    answer. `id` is the JSON Pointer of the id in the partner's record; None: the member that holds it in the record
    that was sent. Of a list, only records with that id count. `absent(response)` says of other answers than the usual
    ones (404, an empty list) whether they mean that there is no such record; a plain function that raises nothing.
    """

    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    items: str = ""
    id: str | None = None
    absent: Callable[[ApiResponse], bool] | None = None

    def __post_init__(self) -> None:
        problems = _target_problems(self.path, self.query)
        values = [*self.query.values()] if isinstance(self.query, Mapping) else []
        problems["{id} must stand in the path or the query"] = "{id}" not in f"{self.path}{values}"
        for name, pointer in (("items", self.items), ("id", self.id or "")):
            problems[f"{name} must be a JSON Pointer, such as /items"] = not pointer.startswith("/") and pointer != ""
        problems["absent= must be a plain function of one argument, the response"] = not _takes(self.absent, 1)
        _refuse(f"LookUp({self.path!r})", problems)

    def target(self, id_: str) -> str:
        """Return the path and query of the request for this id."""
        return _target(self.path, self.query, id_)


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

    `name` is the middle part of function names ("DeliverBusiness"); None: the name of the model's class. `id_member` is
    the name of the id's member in JSON.
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
    id_member: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or getattr(self.model, "__name__", ""))
        _refuse(f"Resource {self.name or repr(self.model)}", _resource_problems(self))
        member = next(each for each in msgspec.structs.fields(self.model) if each.name == self.id)
        object.__setattr__(self, "id_member", member.encode_name)

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
    """Raise a ResourceError if there is none, two share a route or a name, or two partners differ under one name."""
    if not isinstance(resources, list | tuple) or not all(isinstance(each, Resource) for each in resources):
        raise ResourceError(["RESOURCES must be a list of Resource(…)"])
    # The Functions host compares routes and names without case.
    routes = [f"{resource.route}{end}".lower() for resource in resources for end in ("", "/batch")]
    names = [name.lower() for each in resources for name in (each.deliver, each.deliver_batch)]
    partners = {resource.partner.name: resource.partner for resource in resources}
    differing = {each.partner.name for each in resources if each.partner != partners[each.partner.name]}
    problems = [] if resources else ["RESOURCES is empty"]
    problems += [f"the route {route} is taken twice" for route in _twice(routes)]
    problems += [f"the name {name} is taken twice: give one Resource another name=" for name in _twice(names)]
    problems += [f"Partner({name!r}) is described twice: define it once, use it twice" for name in sorted(differing)]
    if problems:
        raise ResourceError(problems)


def _twice(values: Sequence[str]) -> list[str]:
    return [value for value, count in Counter(values).items() if count > 1]


def _refuse(what: str, problems: Mapping[str, bool]) -> None:
    """Raise a ResourceError with the problems that are there."""
    if found := [f"{what}: {problem}" for problem, is_there in problems.items() if is_there]:
        raise ResourceError(found)


def _resource_problems(resource: Resource) -> dict[str, bool]:
    if not (isinstance(resource.model, type) and issubclass(resource.model, Record)):
        return {"the model must be a class that inherits from Record": True}
    try:
        msgspec.json.Decoder(resource.model)
        msgspec.json.schema(resource.model)
    except (TypeError, ValueError, NameError, re.error) as exc:
        words = str(exc).splitlines()[-1]
        words += "; __post_init__ can check what they cannot" if words.startswith("Can only set") else ""
        words += ": a class of your own must inherit from Record" if words.startswith("type <class") else ""
        return {f"the model's annotations make no check: {words}": True}
    members = {each.name: each for each in msgspec.structs.fields(resource.model)}
    types = (("partner", Partner), ("post", Post), ("look_up", LookUp | None))
    wrong = {
        f"{name}={value!r} must be made with {name.title().replace('_', '')}(…)": not isinstance(value, type_)
        for name, type_, value in ((*each, getattr(resource, each[0])) for each in types)
    }
    if any(wrong.values()):
        return wrong
    id_, member = f"id={resource.id!r}", members.get(resource.id)
    header, honours_key = resource.idempotency_header, resource.honours_idempotency_key
    is_own = resource.route.split("/")[0].lower() in RESERVED_ROUTES
    return {
        f"{id_} is not a member of the model; its members are {', '.join(members)}": member is None,
        f"{id_} has a default: a record without an id cannot be delivered once": bool(member and not member.required),
        f"{id_} must be text or a whole number, and not null": bool(member and not _can_be_id(member.type)),
        f"route={resource.route!r} must be a path such as orders or v1/orders": not _ROUTE.fullmatch(resource.route),
        f"route={resource.route!r} is one of the app's own routes: {', '.join(RESERVED_ROUTES)}": is_own,
        f"name={resource.name!r} must begin with a capital and have letters, digits and _ only": (
            not _FUNCTION_NAME.fullmatch(resource.name)
        ),
        f"the app has a function Get{resource.name} of its own: give the Resource another name=": (
            resource.name.lower() in map(str.lower, RESERVED_NAMES)
        ),
        f"idempotency_header={header!r} is not the name of a header that can be set": (
            header is not None and not _is_settable(header)
        ),
        f"idempotency_header={header!r} is also one of the partner's headers, which are the same for all records": (
            str(header).lower() in map(str.lower, resource.partner.headers)
        ),
        "same= must be a plain function of two arguments, sent and found": not _takes(resource.same, 2),
        "judge= must be a plain function of one argument, the response": not _takes(resource.judge, 1),
        "look_up=None needs honours_idempotency_key=True: without either, nobody can tell a lost answer from a lost "
        "record": resource.look_up is None and not honours_key and resource.post.method == "POST",
        "honours_idempotency_key=True needs an idempotency_header": honours_key and header is None,
    }


def _can_be_id(type_: object) -> bool:
    """Return whether a value of this type is text in JSON, or a whole number."""
    schema = msgspec.json.schema(type_)
    while "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    if "enum" in schema:
        return all(isinstance(value, str | int) for value in schema["enum"])
    return all(each.get("type") in {"string", "integer"} for each in schema.get("anyOf", [schema]))


def _takes(function: Any, count: int) -> bool:  # noqa: ANN401, whatever is there instead of a function
    """Return whether a function takes so many arguments and is not `async`; None does."""
    try:
        is_plain = function is None or inspect.signature(function).bind(*range(count)) is not None
    except TypeError:  # or it is no function
        return False
    except ValueError:  # some that are written in C do not tell
        is_plain = True
    return is_plain and not any(map(inspect.iscoroutinefunction, (function, type(function).__call__)))


def _is_settable(header: str) -> bool:
    return _HEADER_NAME.fullmatch(header) is not None and header.lower() not in _OWN_HEADERS


def _target_problems(path: str, query: Mapping[str, str]) -> dict[str, bool]:
    of_path = "the path must begin with /, without host (a setting) and query (query=), and be percent-encoded; {id}"
    return {
        f"{of_path} stands for the id": not _PATH.fullmatch(path) or path.startswith("//"),
        f"query={query!r} must be a dict": not isinstance(query, Mapping),
    } | {
        f"{name!r} of the query must be text; {{id}} stands for the id": (
            not isinstance(value, str) or "{" in value.replace("{id}", "")
        )
        for name, value in (query.items() if isinstance(query, Mapping) else ())
    }


def _target(path: str, query: Mapping[str, str], id_: str) -> str:
    target = path.replace("{id}", quote(id_, safe=""))
    filled = {name: value.replace("{id}", id_) for name, value in query.items()}
    return f"{target}?{urlencode(filled, quote_via=quote, safe='')}" if query else target
