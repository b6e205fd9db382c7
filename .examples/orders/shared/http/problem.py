"""Problem responses (RFC 9457): every error of the HTTP interface is one, and has a type."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import msgspec

from shared.errors import ProblemError
from shared.http.request import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.errors import Fault

TYPE_ROOT = "/api/docs#"
"""A problem's type is this and its slug: the page has a section for each, and so has docs/problems.md."""

# RFC 3986 section 3.5: the characters of a fragment that are not encoded, beside letters and digits.
_FRAGMENT = "/?:@!$&'()*+,;=-._~"


class ProblemType(NamedTuple):
    """A kind of problem: its status, title, and what the caller can do about it."""

    status: int
    title: str
    advice: str


TYPES = {
    "malformed": ProblemType(400, "The request is malformed", "Mend what the detail names, and send it again."),
    "not-found": ProblemType(404, "There is nothing with this id", "Check the id, and whether it was purged."),
    "no-route": ProblemType(404, "There is no such route", "GET /api/openapi.json lists the routes."),
    "method-not-allowed": ProblemType(405, "The route does not have this method", "Use one of those in Allow."),
    "key-reused": ProblemType(
        409,
        "The Idempotency-Key was used for another payload",
        "Send the first payload with this key, or the new payload with another key.",
    ),
    "wrong-state": ProblemType(409, "The delivery is not in a state for this", "Look at its state first."),
    "length-required": ProblemType(
        411,
        "The request has no Content-Length",
        "Send the body with a Content-Length. The Functions host loses chunked bodies "
        "(Azure/azure-functions-host issues 4926 and 7930).",
    ),
    "too-large": ProblemType(413, "The request is too large", "Split it: 64 KiB a record, 1,000 records and 1 MiB."),
    "media-type": ProblemType(415, "The media type is not accepted", "Use one of those in Accept."),
    "content-encoding": ProblemType(
        415, "The content encoding is not accepted", "Use one of those in Accept-Encoding, or none."
    ),
    "invalid-record": ProblemType(
        422, "A record breaks a rule", "Mend the members that `errors` names. Nothing was started."
    ),
    "rejected": ProblemType(422, "The partner rejected the record", "Mend the record, and redeliver it."),
    "busy": ProblemType(429, "The app has accepted as much as it can hold", "Send it again after Retry-After."),
    "failed": ProblemType(500, "The delivery failed", "Redeliver it; the log says what happened."),
    "partner": ProblemType(502, "The partner gave no usable answer", "Try again; `health/deep` says more."),
    "configuration": ProblemType(503, "The app is not configured", "An operator has to mend what `errors` names."),
    "unavailable": ProblemType(503, "Not now", "Send it again after Retry-After, with the same Idempotency-Key."),
    "expired": ProblemType(
        504, "The delivery reached its deadline", "Redeliver it. `uncertain` says whether the record may have arrived."
    ),
    "timeout": ProblemType(504, "The partner did not answer in time", "Try again."),
}


def problem(
    kind: str,
    detail: str,
    *,
    errors: Sequence[Fault] = (),
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401, extension members are any JSON
) -> Reply:
    """Return a problem response of one of `TYPES`.

    `errors` becomes a list of `{"pointer", "detail"}` with a JSON Pointer as a URI fragment ("#/name"), as in RFC 9457
    section 3. `retry_after` is in seconds; `members` are extension members.
    """
    type_ = TYPES[kind]
    content: dict[str, Any] = {
        "type": TYPE_ROOT + kind,
        "title": type_.title,
        "status": type_.status,
        "detail": detail,
        **members,
    }
    if errors:
        content["errors"] = [
            {"pointer": "#" + quote(fault.pointer, _FRAGMENT), "detail": fault.detail} for fault in errors
        ]
    sent = {"content-type": "application/problem+json", **(headers or {})}
    if retry_after is not None:
        sent["retry-after"] = str(math.ceil(retry_after))
    return Reply(type_.status, msgspec.json.encode(content), sent)


def refuse(kind: str, detail: str, **options: Any) -> ProblemError:  # noqa: ANN401, they are those of `problem`
    """Return the error that ends the handling of a request with a problem response."""
    return ProblemError(problem(kind, detail, **options))


def phrase(status: int) -> str:
    """Return a status with its phrase, such as "404 Not Found"."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
