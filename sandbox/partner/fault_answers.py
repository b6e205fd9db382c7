"""What faults make of an answer."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from sandbox.partner.answers import JSON, Answer, problem

if TYPE_CHECKING:
    from sandbox.partner.faults import Alter, Garble, Status

_HTML = b"<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"
# RFC 9110 sections 15.3.5 and 15.4.5.
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def status_answer(fault: Status, now: float) -> Answer:
    """Give the answer that the fault asks for; `now` is in seconds since 1970, for a Retry-After date."""
    headers = dict(fault.headers)
    if fault.retry_after is not None:
        headers = {"retry-after": _retry_after(fault, now), **headers}
    if fault.status in _WITHOUT_BODY:
        answer = Answer(status=fault.status)
    elif fault.body is None:
        answer = problem(fault.status, "Fault on demand", f"The sandbox was told to answer {fault.status}")
    else:
        body = fault.body.encode() if isinstance(fault.body, str) else msgspec.json.encode(fault.body)
        answer = Answer(status=fault.status, body=body, content_type=JSON)
    return replace(answer, content_type=fault.content_type or answer.content_type, headers=tuple(headers.items()))


def garbled(fault: Garble, answer: Answer) -> Answer:
    """Give the answer, spoilt."""
    if fault.kind == "half":
        return replace(answer, half=True)
    if fault.kind == "cut":
        return replace(answer, body=answer.body[: len(answer.body) // 2])
    if fault.kind == "html":
        return replace(answer, body=_HTML, content_type="text/html; charset=utf-8")
    if fault.kind == "text":
        return replace(answer, content_type="text/plain; charset=utf-8")
    return replace(answer, body=b"")


def altered(fault: Alter, answer: Answer) -> Answer:
    """Give the answer with other members; one that another fault has spoilt stays as it is."""
    try:
        members = msgspec.json.decode(answer.body, type=dict[str, object]) | fault.put
    except msgspec.DecodeError:
        return answer
    kept = {name: value for name, value in members.items() if name not in fault.omit}
    return replace(answer, body=msgspec.json.encode(kept))


def _retry_after(fault: Status, now: float) -> str:
    seconds = fault.retry_after or 0.0
    if fault.retry_after_as == "date":
        return formatdate(now + seconds, usegmt=True)
    return str(int(seconds)) if float(seconds).is_integer() else str(seconds)
