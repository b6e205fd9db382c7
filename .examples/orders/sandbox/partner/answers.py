"""The partner's HTTP answers as values, and what faults make of them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from shared.errors import JsonError
from shared.rules.strict_json import decode_exactly

if TYPE_CHECKING:
    from collections.abc import Collection

    from sandbox.partner.faults import Alter, Garble, Status

JSON = "application/json"
PROBLEM = "application/problem+json"
# Types of problems (RFC 9457) that a client has to tell apart; all others are "about:blank".
DUPLICATE_ID = "urn:sandbox:duplicate-id"
KEY_IN_USE = "urn:sandbox:idempotency-key-in-use"
KEY_REUSED = "urn:sandbox:idempotency-key-reused"
_HTML = b"<!doctype html><title>Maintenance</title><h1>We will be back soon</h1>"
# RFC 9110 sections 15.3.5 and 15.4.5.
_WITHOUT_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,18})?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d.*(?:Z|[+-]\d\d:\d\d)")

encode = msgspec.json.Encoder(decimal_format="number").encode
"""Writes JSON; a `Decimal` is a number with all its digits."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer.

    `outcome` is the name under which it is counted, "" for its status. With `is_half`, the headers promise the whole
    body, half of it is sent, and the connection is closed. With `again_after`, the same bytes are sent a second time so
    many seconds later.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    outcome: str = ""
    is_half: bool = False
    again_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004, RFC 9110 section 15.3


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    kind: str = "about:blank",
    headers: tuple[tuple[str, str], ...] = (),
    **members: object,
) -> Answer:
    """Return a problem details answer (RFC 9457); `members` are its extension members."""
    body = {"type": kind, "title": title, "status": status, "detail": detail, **members}
    return Answer(status=status, content_type=PROBLEM, headers=headers, body=msgspec.json.encode(body))


def retry_after(seconds: float | None) -> tuple[tuple[str, str], ...]:
    """Return the Retry-After header for so many seconds, no header for None."""
    return () if seconds is None else (("retry-after", f"{seconds:.15g}"),)


def status_answer(fault: Status, now: float) -> Answer:
    """Return the answer that the fault asks for; `now` is in seconds since 1970, for a Retry-After date."""
    headers = retry_after(fault.retry_after)
    if fault.retry_after is not None and fault.retry_after_as == "date":
        headers = (("retry-after", formatdate(now + fault.retry_after, usegmt=True)),)
    headers = tuple((dict(headers) | fault.headers).items())
    if fault.status in _WITHOUT_BODY:
        answer = Answer(status=fault.status)
    elif fault.body is None:
        answer = problem(fault.status, "Fault on demand", f"The sandbox was told to answer {fault.status}")
    else:
        body = fault.body.encode() if isinstance(fault.body, str) else msgspec.json.encode(fault.body)
        answer = Answer(status=fault.status, body=body)
    return replace(answer, content_type=fault.content_type or answer.content_type, headers=headers)


def garbled(fault: Garble, answer: Answer) -> Answer:
    """Return the answer, spoilt."""
    if fault.kind == "half":
        return replace(answer, is_half=True)
    if fault.kind == "cut":
        return replace(answer, body=answer.body[: len(answer.body) // 2])
    if fault.kind == "html":
        return replace(answer, body=_HTML, content_type="text/html; charset=utf-8")
    if fault.kind == "text":
        return replace(answer, content_type="text/plain; charset=utf-8")
    return replace(answer, body=b"")


def altered(fault: Alter, answer: Answer) -> Answer:
    """Return the answer with other members or another status; spoilt JSON stays as it is."""
    answer = replace(answer, status=fault.status or answer.status)
    try:
        members = msgspec.json.decode(answer.body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        return answer
    kept: dict[str, object] = {name: value for name, value in members.items() if name not in fault.omit}
    return replace(answer, body=msgspec.json.encode(kept | fault.put))


def normalised(answer: Answer, rules: Collection[str], spared: str) -> Answer:
    """Return the answer with records as a partner stores them that keeps the meaning and not the form.

    `rules` are those of the fault `normalise`. The member named `spared`, the id, stays as it is.
    """
    try:
        content = decode_exactly(answer.body)
    except JsonError:
        return answer
    return replace(answer, body=encode(_normalised(content, rules, spared)))


def _normalised(value: Any, rules: Collection[str], spared: str) -> Any:  # noqa: ANN401, any JSON
    if isinstance(value, dict):
        return {
            name: member if name == spared else _normalised(member, rules, spared)
            for name, member in value.items()
            if member is not None or "nulls" not in rules
        }
    if isinstance(value, list):
        return [_normalised(item, rules, spared) for item in value]
    return _normalised_text(value, rules) if isinstance(value, str) else value


def _normalised_text(text: str, rules: Collection[str]) -> str | Decimal:
    text = text.strip() if "trim" in rules else text
    if "number" in rules and _NUMBER.fullmatch(text):
        try:
            return Decimal(format(Decimal(text).normalize(), "f"))
        except InvalidOperation:  # more digits than the context keeps
            return text
    if "zone" in rules and _INSTANT.fullmatch(text):
        try:
            instant = datetime.fromisoformat(text)
            zone = timezone(timedelta(hours=5, minutes=30)) if instant.utcoffset() == timedelta() else UTC
            return instant.astimezone(zone).isoformat()
        except (ValueError, OverflowError):
            return text
    return text
