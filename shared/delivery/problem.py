"""Problem responses (RFC 9457): every error of the HTTP interface is one."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from shared.delivery.exchange import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.errors import Fault


# RFC 3986 section 3.5: what a fragment has as it is, beside letters and digits.
_FRAGMENT = "/?:@!$&'()*+,;=-._~"


class ProblemError(Exception):
    """Ends the handling of a request with a problem response, `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def problem(
    status: int,
    detail: str,
    *,
    errors: Sequence[Fault] = (),
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Give a problem response; its title is the status's phrase.

    `errors` becomes the member `errors`, a list of `{"pointer", "detail"}` with a JSON Pointer as a URI fragment
    ("#/name"), as RFC 9457 section 3 does it. `retry_after` is in seconds.
    """
    content: dict[str, Any] = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if errors:
        content["errors"] = [
            {"pointer": "#" + quote(fault.pointer, _FRAGMENT), "detail": fault.detail} for fault in errors
        ]
    sent = {"content-type": "application/problem+json", **(headers or {})}
    if retry_after is not None:
        sent["retry-after"] = str(math.ceil(retry_after))
    return Reply(status, msgspec.json.encode(content), sent)
