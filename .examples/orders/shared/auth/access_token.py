"""The access token: as a value with its times, what can request one, and what a token endpoint's answer means.

Pure, but for one warning. Times are seconds of whatever clock the caller reads.
"""

from __future__ import annotations

import json
import logging
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from shared.auth.redaction import Redactor, safe_words
from shared.errors import TokenRejectedError, TokenUnavailableError
from shared.rules.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

logger = logging.getLogger(__name__)

# Nothing lives longer here, whatever the server says: a token for years is a slip, or a time of day for a duration.
_LONGEST_LIFETIME = 30 * 86_400.0
# A short life is not all leeway: at most this part of it. More than a third, so that nobody notices a token server
# that is down for the last third of a short life.
_LEEWAY_FRACTION = 0.4
# Renewal comes earlier by up to this part of the leeway, never later: the processes of an app do not renew in step.
_JITTER_FRACTION = 0.25
# A wish to renew at once would be a token request per call: nothing makes a token old in this first part of its life.
_FRESH_FRACTION = 0.1

# The codes of RFC 6749 section 5.2 that only a change of the client's configuration can mend.
_CONFIGURATION_ERRORS = frozenset({"invalid_client", "unauthorized_client", "invalid_scope", "invalid_grant"})
_REFUSALS = frozenset({400, 401, 403})
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_ERROR_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749 section 5.2
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token as the token endpoint issued it (RFC 6749 section 5.1).

    `expires_in` is its lifetime in seconds from the request, None if the server named none; `refresh_in` the seconds
    after which the server wants it renewed (Microsoft Entra says so), None if it has no such wish. `is_shared` says
    that another process requested it. `authorization` is the header's value (RFC 6750 section 2.1).

    Raises:
        ValueError: the value cannot stand in a header: it is empty or has more than visible ASCII (RFC 6750 section
            2.1). HTTP libraries refuse such a header as well, but with the token in the text of the error.
    """

    value: str = field(repr=False)
    expires_in: float | None = None
    refresh_in: float | None = None
    is_shared: bool = field(default=False, compare=False)
    authorization: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _VISIBLE_ASCII.fullmatch(self.value):
            raise ValueError("an access token is one or more characters of visible ASCII")
        object.__setattr__(self, "authorization", f"Bearer {self.value}")

    def lifetime(self, default: float) -> float:
        """Return the seconds it lives from its request, `default` if the server named none; 30 days at most."""
        return min(default if self.expires_in is None else self.expires_in, _LONGEST_LIFETIME)


class TokenGrant(Protocol):
    """A way to request an access token: one token request per call."""

    @property
    def cache_key(self) -> str:
        """Names the whole request (endpoint, client, scope, audience, resource), with no secret in it."""

    async def request_token(self, refused: AccessToken | None = None) -> AccessToken:
        """Request one access token.

        `refused` is the token that the API has refused, if that is the reason for the request: a grant in front of a
        second cache (a shared store) must not answer with it. A grant without a cache ignores it.

        Raises:
            TokenRejectedError: the server blames the client's configuration.
            TokenUnavailableError: the server cannot be reached, is in trouble or makes no sense.
        """


@dataclass(frozen=True, slots=True)
class HeldToken:
    """A token with its times: requested, old (to be renewed, still served) and expired (never served)."""

    token: AccessToken
    requested_at: float
    old_at: float
    expires_at: float


def hold(
    token: AccessToken, requested_at: float, *, leeway: float, default_lifetime: float, jitter: float
) -> HeldToken:
    """Return the token with its times, counted from before its request was sent.

    It is old `leeway` seconds before it expires, or 0.4 of its lifetime before if that is less, or `refresh_in` seconds
    after the request if that is sooner; earlier by up to a quarter of the leeway, by `jitter` in [0, 1), and never in
    the first tenth of its lifetime. `default_lifetime` (s) counts if the server named none.
    """
    lifetime = token.lifetime(default_lifetime)
    leeway = min(leeway, lifetime * _LEEWAY_FRACTION)
    fresh_for = lifetime - leeway
    if token.refresh_in is not None:
        fresh_for = min(fresh_for, token.refresh_in)
    fresh_for = max(fresh_for - leeway * _JITTER_FRACTION * jitter, lifetime * _FRESH_FRACTION)
    return HeldToken(token, requested_at, requested_at + fresh_for, requested_at + lifetime)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authorization server answered.

    `body` is decoded; `problem` says why it is empty although there was one. `hint` says what the status suggests to
    whoever set the app up.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    problem: str | None = None
    hint: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx: RFC 6749 section 5.1 has 200 alone, some servers send 201."""
        return 200 <= self.status < 300  # noqa: PLR2004, RFC 9110 section 15.3

    def document(self) -> dict[str, Any]:
        """Return the JSON object in the body, an empty one if there is none. A null member counts as missing."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError; RecursionError: nested without end
            return {}
        if not isinstance(document, dict):
            return {}
        return {name: value for name, value in document.items() if value is not None}


def access_token_from(answer: Answer, *, now: datetime, secrets: Iterable[str] = ()) -> AccessToken:
    """Return the access token in a token response (RFC 6749 section 5.1).

    `now` is aware; `secrets` never appear in an error.

    Raises:
        TokenRejectedError: 400, 401 or 403 with an error that blames the client.
        TokenUnavailableError: every other status, and a body that is not what section 5.1 says.
    """
    document = answer.document()
    problem = None
    if answer.is_success:
        try:
            return access_token_from_json(document)
        except ValueError as exc:
            problem = str(exc)
    raise token_error(answer, document, now=now, secrets=secrets, problem=problem)


def token_error(
    answer: Answer,
    document: Mapping[str, Any],
    *,
    now: datetime,
    secrets: Iterable[str] = (),
    problem: str | None = None,
) -> TokenRejectedError | TokenUnavailableError:
    """Return the error that an answer without a usable token is; `problem` says what is wrong with a success."""
    # An answer that is of no use may hold a token all the same, and its own words may repeat it.
    tokens = [value for name, value in document.items() if name.endswith("_token") and isinstance(value, str)]
    redactor = Redactor([*secrets, *tokens])
    code = document.get("error")
    error = safe_words(code, redactor) if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None
    description = safe_words(document.get("error_description"), redactor)
    description = "; ".join(filter(None, [description, safe_words(answer.hint, redactor)])) or None
    wait = retry_after(answer.headers.get("retry-after"), now)
    if answer.status in _REFUSALS and error in _CONFIGURATION_ERRORS:
        return TokenRejectedError(error, description, status=answer.status, retry_after=wait)
    reasons = [answer.problem or problem or f"it answered {answer.status}", error and f"error {error}", description]
    return TokenUnavailableError(
        f"the token endpoint is in trouble: {'; '.join(filter(None, reasons))}", status=answer.status, retry_after=wait
    )


def access_token_from_json(document: Mapping[str, Any]) -> AccessToken:
    """Return the access token that a JSON token response holds.

    Lenient where servers are: a missing `token_type` counts as Bearer, `expires_in` may be a string or missing. One
    that makes no sense counts as missing, with a warning.

    Raises:
        ValueError: a member is missing or is not what RFC 6749 section 5.1 says; the text names it, not its value.
    """
    value = document.get("access_token")
    if not isinstance(value, str) or not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("its response has no access_token of visible ASCII characters")
    token_type = document.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.strip().lower() != "bearer":
        raise ValueError("its response has a token_type other than Bearer")
    expires_in = document.get("expires_in")
    lifetime = _seconds(expires_in)
    if expires_in is not None and lifetime is None:
        shown = safe_words(str(expires_in)[:100], Redactor([value]))
        logger.warning("token response has no usable expires_in", extra={"expires_in": shown})
    return AccessToken(value, lifetime, _seconds(document.get("refresh_in")))


def _seconds(value: object) -> float | None:
    """Return a positive, finite number of seconds from a JSON number or a decimal string, None if it is none."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        seconds = float(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:  # a JSON integer of more than 308 digits
            return None
    else:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
