"""A token endpoint: where secrets may be sent, how an issuer names it, one request, and the token in its answer."""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from shared.auth.redaction import Redactor, safe_words
from shared.errors import ContentEncodingError, TokenRejectedError, TokenUnavailableError
from shared.rules.content_encoding import body_of
from shared.rules.retry import retry_after

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import httpx

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Bytes after decompression: more than any token response or discovery document needs."""

_CONNECT_TIMEOUT = 5.0  # seconds
_GONE = {404, 405, 410}  # the statuses of a URL that is not, or no longer, a token endpoint
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    # Token requests are minutes apart: a pooled connection would often be dead by then, and dead is found out too late.
    "Connection": "close",
}
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_CREDENTIALS = re.compile(r"//[^/\s]*@")
# The codes of RFC 6749 section 5.2 that only a change of the client's configuration can mend.
_CONFIGURATION_ERRORS = frozenset({"invalid_client", "unauthorized_client", "invalid_scope", "invalid_grant"})
_REFUSALS = frozenset({400, 401, 403})
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token as the token endpoint issued it (RFC 6749 section 5.1); its value is visible ASCII.

    `expires_in` is its lifetime in seconds from the request, None if the server named none; `refresh_in` the seconds
    after which the server wants it renewed (Microsoft Entra says so). `is_shared`: another process requested it.
    """

    value: str = field(repr=False)
    expires_in: float | None = None
    refresh_in: float | None = None
    is_shared: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authorization server, in errors `what`, answered. `body` is decoded, `retry_after` is in seconds.

    `hint` says what the status suggests to whoever set the app up.
    """

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    what: str = "the token endpoint"
    retry_after: float | None = None
    hint: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether the status is 2xx: RFC 6749 section 5.1 has 200 alone, some servers send 201."""
        return 200 <= self.status < 300  # noqa: PLR2004, RFC 9110 section 15.3

    def document(self) -> dict[str, Any]:
        """Return the JSON object in the body, an empty one if there is none. A null member counts as missing."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):  # not JSON, not Unicode, or nested without end
            document = None
        return {k: v for k, v in document.items() if v is not None} if isinstance(document, dict) else {}


def endpoint_problem(url: str) -> str | None:
    """Say what keeps `url` from being sent a secret, None if nothing does.

    It must be ASCII (RFC 3986) and https (RFC 6749 section 3.2), plain http only to a loopback address, with no user
    name, password or fragment in it. The words never repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname or "", parts.port  # reading the port checks it
    except ValueError:
        return "it is not a URL"
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    faults = {
        "it is not an absolute URL": not host or any(c.isspace() or not c.isprintable() for c in url),
        "write its host in Punycode (xn--…), and its path percent-encoded": not url.isascii() or "%" in host,
        "it has a user name or a password in it": "@" in parts.netloc,
        "it has a fragment": "#" in url,
        "it must be https, or plain http to a loopback address": not is_safe,
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name `localhost` or its address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def exchange(  # noqa: PLR0913, the members of an HTTP request, each by its own name
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    what: str = "the token endpoint",
    setting: str | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> Answer:
    """Send one request and read the answer, without the client's own authentication and without redirects.

    `content` is a form, `what` names the endpoint in errors, `setting` is the app setting with its URL. TokenProvider
    bounds the time.

    Raises:
        TokenUnavailableError: there is no whole answer.
    """
    import httpx  # noqa: PLC0415, the settings need this module without it; whoever has a client has imported it

    try:
        async with client.stream(
            method,
            url,
            content=content,
            headers={**_HEADERS, **(headers or {}), **(_FORM if content is not None else {})},
            timeout=httpx.Timeout(None, connect=_CONNECT_TIMEOUT),
            auth=None,
            follow_redirects=False,
        ) as response:
            body = await body_of(response, MAX_BODY)
    except (httpx.ProxyError, httpx.ConnectError, httpx.ConnectTimeout) as exc:
        # The transport's own words: they name the host or the proxy.
        fault = f"{what} cannot be reached: {_CREDENTIALS.sub('//', str(exc)) or type(exc).__name__}"
    except ContentEncodingError as exc:
        fault = f"{what} is in trouble: {exc}"
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
        # The text of these may repeat what was sent or received.
        fault = f"{what} does not answer: {type(exc).__name__}"
    else:
        wait = retry_after(response.headers.get("retry-after"), datetime.now(UTC))
        is_elsewhere = response.is_redirect or response.status_code in _GONE
        hint = f"check {setting}" if setting and is_elsewhere else None
        return Answer(response.status_code, body, response.headers, what, wait, hint)
    # Raised out here, it has no context: a traceback would show the text that was left out above.
    raise TokenUnavailableError(fault)


async def discover(client: httpx.AsyncClient, issuer: str, setting: str) -> tuple[str, str]:
    """Ask an issuer for its token endpoint (OpenID Connect Discovery 1.0 section 4); return that and its own name.

    Raises:
        TokenUnavailableError: the document cannot be had, is another issuer's, or names no usable endpoint.
    """
    url = issuer.removesuffix("/") + "/.well-known/openid-configuration"
    answer = await exchange(client, "GET", url, what="the issuer", setting=setting)
    if not answer.is_success:
        raise token_error(answer)
    document = answer.document()
    named, endpoint = str(document.get("issuer")), str(document.get("token_endpoint"))
    if named.removesuffix("/") != issuer.removesuffix("/"):
        raise token_error(answer, f"its configuration is that of another one, {safe_words(named, Redactor([]))}")
    if problem := endpoint_problem(endpoint):
        raise token_error(answer, f"its token_endpoint is not usable: {problem}")
    return endpoint, named


def access_token_from(answer: Answer, *, secrets: Iterable[str] = ()) -> AccessToken:
    """Return the access token in a token response (RFC 6749 section 5.1); `secrets` never appear in an error.

    Lenient where servers are: a missing `token_type` counts as Bearer, `expires_in` may be a string or missing. One
    that makes no sense counts as missing, with a warning.

    Raises:
        TokenRejectedError: 400, 401 or 403 with an error that blames the client.
        TokenUnavailableError: every other status, and a body that is not what section 5.1 says.
    """
    if not answer.is_success:
        raise token_error(answer, secrets=secrets)
    document = answer.document()
    value, expires_in = document.get("access_token"), document.get("expires_in")
    if not isinstance(value, str) or not _VISIBLE_ASCII.fullmatch(value):
        raise token_error(answer, "its response has no access_token of visible ASCII characters", secrets)
    if str(document.get("token_type", "Bearer")).strip().lower() != "bearer":
        raise token_error(answer, "its response has a token_type other than Bearer", secrets)
    lifetime = _seconds(expires_in)
    if expires_in is not None and lifetime is None:
        shown = safe_words(str(expires_in)[:100], Redactor([value]))
        logger.warning("token response has no usable expires_in", extra={"expires_in": shown})
    return AccessToken(value, lifetime, _seconds(document.get("refresh_in")))


def token_error(
    answer: Answer, problem: str | None = None, secrets: Iterable[str] = ()
) -> TokenRejectedError | TokenUnavailableError:
    """Return the error that an answer without a usable token is; `problem` says why, if not its status."""
    document = answer.document()
    # An answer that is of no use may hold a token all the same, and its own words may repeat it.
    tokens = [value for name, value in document.items() if name.endswith("_token") and isinstance(value, str)]
    redactor = Redactor([*secrets, *tokens])
    error = safe_words(document.get("error"), redactor)
    words = (safe_words(text, redactor) for text in (document.get("error_description"), answer.hint))
    description = "; ".join(filter(None, words)) or None
    if answer.status in _REFUSALS and error in _CONFIGURATION_ERRORS:
        return TokenRejectedError(error, description, status=answer.status, retry_after=answer.retry_after)
    reasons = [problem or f"it answered {answer.status}", error and f"error {error}", description]
    reason = f"{answer.what} is in trouble: {'; '.join(filter(None, reasons))}"
    return TokenUnavailableError(reason, status=answer.status, retry_after=answer.retry_after)


def _seconds(value: object) -> float | None:
    """Return a positive, finite number of seconds from a JSON number or a string, None if it is none."""
    try:
        seconds = float(cast("Any", value))
    except (TypeError, ValueError, OverflowError):  # OverflowError: a JSON integer of more than 308 digits
        return None
    return seconds if 0 < seconds < math.inf else None
