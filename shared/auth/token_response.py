"""What a token endpoint answered, as an AccessToken or an error: rules only, no I/O."""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

from shared.auth.access_token import AccessToken
from shared.errors import TokenRejectedError, TokenUnavailableError
from shared.retry_after import retry_after
from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

OK = 200
"""The one status of a token response with a token in it (RFC 6749 section 5.1)."""

_MAX_WORDS = 300  # characters of the server's own words that an error repeats
_REFUSALS = frozenset({400, 401})
# RFC 6749 section 5.2 has these in an authorization response only; servers that send them here mean "later".
_PASSING = frozenset({"temporarily_unavailable", "server_error"})
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")
_ERROR_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749 section 5.2
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def access_token_from_response(
    status: int, headers: Mapping[str, str], body: bytes, *, now: datetime, secrets: Iterable[str] = ()
) -> AccessToken:
    """Give the access token in a token response (RFC 6749 section 5.1).

    Lenient where servers are: a missing `token_type` counts as Bearer, `expires_in` may be a string or a fraction or
    missing. `headers` are looked up by lower-case name; `now` is aware; `secrets` never appear in an error.

    Raises:
        TokenRejectedError: 400 or 401 with an error of RFC 6749 section 5.2.
        TokenUnavailableError: every other status, and a body that is not what section 5.1 says.
    """
    document = json_object(body)
    trouble = None
    if status == OK:
        try:
            return access_token_from_json(document)
        except ValueError as exc:
            trouble = str(exc)
    raise token_error(status, headers, document, now=now, secrets=secrets, trouble=trouble)


def token_error(  # noqa: PLR0913 - the parts of a response, each by its own name
    status: int,
    headers: Mapping[str, str],
    document: Mapping[str, Any],
    *,
    now: datetime,
    secrets: Iterable[str] = (),
    trouble: str | None = None,
) -> TokenRejectedError | TokenUnavailableError:
    """Give the error that a token response without a usable token is; `trouble` says what is wrong with a 200."""
    # An answer that is not taken may hold a token all the same, and its own words may repeat it.
    secrets = [
        *secrets,
        *(value for name, value in document.items() if name.endswith("_token") and isinstance(value, str)),
    ]
    code = document.get("error")
    error = safe_words(code, secrets) if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None
    description = safe_words(document.get("error_description"), secrets)
    if status in _REFUSALS and error and error not in _PASSING:
        return TokenRejectedError(error, description, status=status)
    reason = "; ".join(filter(None, [trouble or f"it answered {status}", error and f"error {error}", description]))
    return TokenUnavailableError(
        f"the token endpoint is in trouble: {reason}",
        status=status,
        retry_after=retry_after(headers.get("retry-after"), now),
    )


def access_token_from_json(document: Mapping[str, Any]) -> AccessToken:
    """Give the access token that a JSON token response holds.

    Raises:
        ValueError: a member is missing or is not what RFC 6749 section 5.1 says; the text names it, not its value.
    """
    value = document.get("access_token")
    if not isinstance(value, str) or not _VISIBLE_ASCII.fullmatch(value):
        raise ValueError("its response has no access_token of visible ASCII characters")
    token_type = document.get("token_type", "Bearer")
    if not isinstance(token_type, str) or token_type.lower() != "bearer":
        raise ValueError("its response has a token_type other than Bearer")
    expires_in = document.get("expires_in")
    lifetime = None if expires_in is None else _seconds(expires_in)
    if expires_in is not None and lifetime is None:
        raise ValueError("its response has an expires_in that is no positive number of seconds")
    return AccessToken(value, lifetime, _seconds(document.get("refresh_in")))


def json_object(body: bytes) -> dict[str, Any]:
    """Give the JSON object that `body` is, an empty one where it is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):  # UnicodeDecodeError is a ValueError; RecursionError: nested without end
        return {}
    return document if isinstance(document, dict) else {}


def safe_words(words: object, secrets: Iterable[str] = ()) -> str | None:
    """Give a server's words fit for an error text, None where there are none.

    Every one of `secrets` in them is redacted, also where it is escaped (for a URL, a form, JSON, HTML, as Python shows
    it); control characters become spaces, and they end after 300 characters.
    """
    if not isinstance(words, str):
        return None
    forms = sorted({form for secret in secrets if secret for form in _forms(secret)}, key=len, reverse=True)
    # The longest first: one may hold another. Without case, because percent escapes have either.
    known = re.compile("|".join(map(re.escape, forms)) or "(?!)", re.IGNORECASE)
    safe = known.sub("[redacted]", words)
    safe = " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in safe).split())
    safe = known.sub("[redacted]", safe)
    return shortened(safe, _MAX_WORDS) or None


def _forms(secret: str) -> set[str]:
    """Give a secret in every form in which a server may have it in its words."""
    octets = secret.encode("utf-8", "surrogatepass")
    quoted = {quote(octets, safe=""), quote(octets, safe="/"), quote_plus(octets)}
    escaped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1]}
    return {secret, secret.rstrip("=") or secret, html.escape(secret)} | quoted | escaped


def _seconds(value: object) -> float | None:
    """Give a positive, finite number of seconds out of a JSON number or a decimal string, None where it is none."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        seconds = float(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:  # a JSON integer of more than 308 digits
            return None
    else:
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
