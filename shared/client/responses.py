"""The rules of the partner's responses: status, headers and body become an `ApiResponse`. Pure."""

from __future__ import annotations

import codecs
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from shared.errors import JsonError
from shared.resource import ApiResponse
from shared.rules import strict_json
from shared.rules.outcome import one_line
from shared.rules.retry import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shared.auth.redaction import Redactor

MAX_TEXT = 1_000
"""Characters of each text of a problem: it goes into statuses and logs."""

MAX_MEMBERS = 16
"""Extension members of a problem."""

MAX_ERROR = 16 * 1024
"""Bytes of an error's body. The rest is dropped."""

# Levels of a problem's member: Newtonsoft.Json reads 64.
_MAX_DEPTH = 8
_utc_now = partial(datetime.now, UTC)
_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_STARTS = (b"<!doctype html", b"<html")


def read_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    redactor: Redactor | None = None,
    clock: Callable[[], datetime] = _utc_now,
) -> ApiResponse:
    """Read a response. `headers` is case-insensitive, `body` is decompressed.

    `redactor` knows the access token of the request: an error's body is kept without it.
    """
    wait = headers.get("retry-after")
    seconds = retry_after(wait, clock()) if wait is not None else None
    is_success = 200 <= status < 300  # noqa: PLR2004, RFC 9110 section 15.3
    if not is_success:
        body = body[:MAX_ERROR]
        if redactor is not None and body:
            body = redactor.redact(body.decode(errors="replace")).encode()
    text = body.removeprefix(codecs.BOM_UTF8).strip(b" \t\r\n")
    content, is_readable, is_html = None, True, False
    try:
        content = strict_json.decode_exactly(text) if text else None
    except JsonError:
        is_readable, is_html = _look_at(text, headers.get("content-type", ""))
    problem = {} if is_success else _problem(text)
    return ApiResponse(status, headers, body, content, problem, is_readable, is_html, seconds)


def _look_at(text: bytes, content_type: str) -> tuple[bool, bool]:
    """Return whether a body that is not JSON need not be JSON, and whether it is a page of HTML.

    Servers send JSON as HTML, and pages as JSON. So only the body tells the first, and either the second.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _HTML_TYPES or text[:14].lower().startswith(_HTML_STARTS):
        return False, True
    if media_type:
        return "json" not in media_type, False
    # Without a type, "OK" is text, and what looks like broken JSON or broken encoding is not.
    is_text = text.decode(errors="replace").replace("\ufffd", "\0").isprintable()
    return is_text and not text.startswith((b"{", b"[", b'"', b"<")), False


def _problem(text: bytes) -> dict[str, Any]:
    """Read an error: problem details (RFC 9457), any other JSON object, or text."""
    try:
        # Not exactly: a problem travels on as JSON, which has no Decimal.
        content = msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        content = text
    if not isinstance(content, dict):
        words = "" if content is None else one_line(text.decode(errors="replace"), MAX_TEXT)
        return {"detail": words} if words else {}
    texts = [name for name in ("type", "title", "detail") if isinstance(content.get(name), str)]
    problem = {name: one_line(content.pop(name), MAX_TEXT) for name in texts}
    # The status and the instance are known from the response itself.
    extensions = [pair for pair in content.items() if pair[0] not in {"status", "instance"}]
    return problem | {one_line(name, MAX_TEXT): _short(value) for name, value in extensions[:MAX_MEMBERS]}


def _short(value: Any) -> Any:  # noqa: ANN401, it is any JSON
    """Return a value that is short and flat, else the beginning of its JSON text."""
    text = msgspec.json.encode(value)
    is_short = len(text) <= MAX_TEXT and _is_plain(value, _MAX_DEPTH)
    return value if is_short else one_line(text.decode(), MAX_TEXT)


def _is_plain(value: object, levels: int) -> bool:
    """Return whether .NET reads the value: Durable Functions fails an orchestration whose status it cannot read."""
    if isinstance(value, dict | list):
        members = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_plain(member, levels - 1) for member in members)
    return not isinstance(value, int) or -(2**63) <= value < 2**64
