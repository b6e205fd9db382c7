"""The rules of the partner's responses, with no I/O: status, headers and body become an `ApiResponse`."""

from __future__ import annotations

import codecs
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp.hdrs import RETRY_AFTER

from shared.retry_after import retry_after
from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

# The text of a problem goes into statuses and logs: so many characters of each part are kept.
MAX_TEXT = 1_000
# And so many of its extension members.
MAX_MEMBERS = 16
# What msgspec raises where a body is not JSON in UTF-8.
_NOT_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class ProblemDetails(msgspec.Struct, frozen=True):
    """What the partner says is wrong (RFC 9457). `members` are its extension members, text in them cut off."""

    title: str | None = None
    detail: str | None = None
    type: str | None = None
    members: tuple[tuple[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Give a plain object, as RFC 9457 section 3 writes it."""
        named = {"type": self.type, "title": self.title, "detail": self.detail}
        return {name: text for name, text in named.items() if text is not None} | dict(self.members)


class ApiResponse(msgspec.Struct, frozen=True):
    """One response of the partner's API, whatever its status.

    `content` is the decoded JSON body of a success (None where there is none), `problem` what an error says of itself.
    `is_readable` is false where a success has a body that ought to be JSON and is not: it is then no proof of anything.
    `retry_after` is in seconds from the response, None where the partner named none.
    """

    status: int
    headers: Mapping[str, str]
    content: Any = None
    problem: ProblemDetails | None = None
    is_readable: bool = True
    retry_after: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004, RFC 9110 section 15.3


def read_response(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: datetime | None = None,
    authorization: str | None = None,
) -> ApiResponse:
    """Read a response. `headers` is case-insensitive; an error must not repeat the token of `authorization`.

    That is the field that the request carried, if any: a scheme and the token (RFC 6750 section 2.1).
    """
    wait = headers.get(RETRY_AFTER)
    seconds = retry_after(wait, now or datetime.now(UTC)) if wait is not None else None
    if 200 <= status < 300:  # noqa: PLR2004, RFC 9110 section 15.3
        try:
            content = _decode(body) if body else None
        except _NOT_JSON:
            is_readable = not _may_be_spoilt(headers.get("content-type", ""))
            return ApiResponse(status, headers, is_readable=is_readable, retry_after=seconds)
        return ApiResponse(status, headers, content, retry_after=seconds)
    return ApiResponse(status, headers, problem=_problem(body, authorization), retry_after=seconds)


def _may_be_spoilt(content_type: str) -> bool:
    """Whether a success whose body is no JSON may be broken, or not the partner's: only plain text and the like is not.

    A page of HTML is what a proxy or a login in between answers with.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    return not media_type or "json" in media_type or "html" in media_type


def _decode(body: bytes) -> Any:  # noqa: ANN401, it is any JSON
    """Decode a body; a byte order mark before it is no reason to refuse it (RFC 8259 section 8.1)."""
    return msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))


def _problem(body: bytes, authorization: str | None) -> ProblemDetails:
    """Read an error's body: problem details, any other JSON object, or text."""
    token = authorization.partition(" ")[2] if authorization else ""
    secret = token.encode()
    if secret:
        body = body.replace(secret, b"[redacted]")
    try:
        content = _decode(body)
        if secret and b"\\" in body:  # JSON can write it with escapes, as in "\/": without them it is found
            body = msgspec.json.encode(content).replace(msgspec.json.encode(token)[1:-1], b"[redacted]")
            content = msgspec.json.decode(body)
    except _NOT_JSON:
        return ProblemDetails(detail=_text(body[: 4 * MAX_TEXT].decode(errors="replace")) or None)
    if not isinstance(content, dict):
        return ProblemDetails(detail=_text(body[: 4 * MAX_TEXT].decode(errors="replace")) if body != b"null" else None)
    standard = {name: content.pop(name) for name in ("title", "detail", "type") if isinstance(content.get(name), str)}
    # The status and the instance are known from the response itself.
    extensions = [pair for pair in content.items() if pair[0] not in {"status", "instance"}]
    return ProblemDetails(
        **{name: _text(text) for name, text in standard.items()},
        members=tuple((_text(name), _short(value)) for name, value in extensions[:MAX_MEMBERS]),
    )


def _short(value: object) -> object:
    """Keep a value that is small, else the beginning of its JSON text."""
    text = msgspec.json.encode(value)
    return value if len(text) <= MAX_TEXT else _text(text.decode(errors="replace"))


def _text(text: str) -> str:
    """Keep one line of printable text."""
    text = text[: 2 * MAX_TEXT]
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return shortened(" ".join(text.split()), MAX_TEXT)
