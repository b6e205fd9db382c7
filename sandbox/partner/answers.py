"""The partner's HTTP answers as values."""

from __future__ import annotations

import msgspec

JSON = "application/json"
PROBLEM = "application/problem+json"
# The types of the problems (RFC 9457) that a client has to tell apart; all others are "about:blank".
DUPLICATE_EXTERNAL_ID = "urn:sandbox:duplicate-external-id"
KEY_IN_PROGRESS = "urn:sandbox:idempotency-key-in-progress"
KEY_REUSED = "urn:sandbox:idempotency-key-reused"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer.

    `outcome` is the name under which it is counted, "" for its status. With `half`, the headers promise the whole
    body, half of it is sent, and the connection is closed.
    """

    status: int
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    outcome: str = ""
    half: bool = False

    @property
    def succeeded(self) -> bool:
        """Whether the status is one of 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004 - the bounds of the class "successful", RFC 9110 section 15.3


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    kind: str = "about:blank",
    headers: tuple[tuple[str, str], ...] = (),
    **members: object,
) -> Answer:
    """Give a problem details answer (RFC 9457); `members` are its extension members."""
    body = {"type": kind, "title": title, "status": status, "detail": detail, **members}
    return Answer(status=status, content_type=PROBLEM, headers=headers, body=msgspec.json.encode(body))
