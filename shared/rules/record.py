"""Reads a record: strict JSON, the rules of its model, and its id. The text itself travels on unchanged."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from shared.errors import Fault, InvalidRecordError
from shared.rules import strict_json

if TYPE_CHECKING:
    from shared.resource import Resource

# Bytes of a record as JSON in UTF-8, and characters of its id, at most.
MAX_BYTES, MAX_ID = 64 * 1024, 256
# An Idempotency-Key, from callers and to the partner. The IETF draft leaves the length to the server.
IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # Unicode's categories Cc and Cs


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """A record that keeps every rule: its id, and the JSON text (UTF-8) as its caller sent it."""

    id: str
    text: bytes = field(repr=False)

    def content(self) -> dict[str, Any]:
        """Return the decoded record; numbers with a fraction are `Decimal`."""
        content: dict[str, Any] = strict_json.decode_exactly(self.text)
        return content


def read_record(resource: Resource, text: bytes) -> CheckedRecord:
    """Check a record's JSON text. A byte order mark and white space around it are dropped.

    Raises:
        JsonError: the text is not JSON as this app accepts it.
        InvalidRecordError: the text is too long, or the record breaks rules of its model; every fault is listed.
    """
    text = text.removeprefix(codecs.BOM_UTF8).strip(b" \t\r\n")
    if len(text) > MAX_BYTES:
        raise InvalidRecordError([Fault("", f"has {len(text)} bytes, more than the {MAX_BYTES} allowed")])
    content = strict_json.decode(text)
    if not isinstance(content, dict):
        raise InvalidRecordError([Fault("", "must be a JSON object")])
    try:
        msgspec.json.decode(text, type=resource.model)
    except msgspec.ValidationError as exc:
        raise InvalidRecordError(_faults(resource, text, str(exc))) from None
    # As it was sent: the model may have made a UUID or an enumeration of it.
    id_ = content[resource.id_member]
    if problem := id_problem(id_):
        raise InvalidRecordError([Fault(_pointer(resource.id_member), problem)])
    return CheckedRecord(str(id_), text)


def id_problem(id_: object) -> str | None:
    """Say what keeps a record's id from standing in a URL's path or a log line, None if nothing does."""
    if not _is_id(id_):
        return "must be text or a whole number"
    text = str(id_)
    if not 1 <= len(text) <= MAX_ID:
        return f"must have 1 to {MAX_ID} characters"
    if text in {".", ".."}:
        return 'must not be "." or "..": a URL resolves them as path segments'
    return "must not have control characters" if _CONTROL.search(text) else None


def shown_id(resource: Resource, text: str | bytes) -> str:
    """Return the id of a record that nobody has checked, as a short printable text for results and log lines."""
    try:
        content = msgspec.json.decode(text)
        id_ = str(content[resource.id_member])[:128]
    except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return id_ if id_problem(id_) is None else ascii(id_)[1:-1]


def named_id(resource: Resource, content: object) -> str | None:
    """Return the id that a partner's record, or its answer to a post, names. None: it names none.

    It is the member that `look_up.id` points to, else the one that holds the id in the record that was sent.
    """
    id_ = at_pointer(content, id_pointer(resource))
    return str(id_) if _is_id(id_) else None


def id_pointer(resource: Resource) -> str:
    """Return the JSON Pointer of the id in a partner's record."""
    pointer = resource.look_up.id if resource.look_up is not None else None
    return _pointer(resource.id_member) if pointer is None else pointer


def at_pointer(content: object, pointer: str) -> object:
    """Return what a JSON Pointer (RFC 6901) points to, None if there is nothing."""
    for step in pointer.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(content, dict):
            content = content.get(name)
        elif isinstance(content, list) and name.isascii() and name.isdecimal() and int(name) < len(content):
            content = content[int(name)]
        else:
            return None
    return content


def _is_id(value: object) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _faults(resource: Resource, text: bytes, first: str) -> list[Fault]:
    """Check member by member: msgspec stops at the first fault, and a caller wants them all."""
    members = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    faults = []
    for each in msgspec.structs.fields(resource.model):
        pointer, member = _pointer(each.encode_name), members.get(each.encode_name)
        if member is None:
            faults += [Fault(pointer, "is missing")] if each.required else []
            continue
        try:
            msgspec.json.decode(member, type=each.type)
        except msgspec.ValidationError as exc:
            faults.append(_fault(pointer, str(exc)))
        else:
            if each.name == resource.id and (problem := id_problem(msgspec.json.decode(member))):
                faults.append(Fault(pointer, problem))
    # A rule over several members, or a member that the model forbids.
    return faults or [_fault("", first)]


def _pointer(member: str) -> str:
    return "/" + member.replace("~", "~0").replace("/", "~1")


def _fault(pointer: str, message: str) -> Fault:
    """Turn msgspec's "Expected `str`, got `int` - at `$.a[0]`" into a JSON Pointer and the end of a sentence."""
    expected, _, place = message.partition(" - at ")
    detail = expected.replace("`", "").replace("Expected", "must be", 1)
    # "[...]" stands for a member of an object whose name msgspec does not say.
    path = place.rpartition("$")[2].partition("[...]")[0].rstrip("`")
    return Fault(pointer + path.replace("[", "/").replace("]", "").replace(".", "/"), detail)
