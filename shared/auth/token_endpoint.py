"""A token endpoint: where secrets may be sent, how an issuer names it, one bounded request, and its answer."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import logging
import math
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urljoin, urlsplit

from shared.auth.access_token import VISIBLE_ASCII, AccessToken
from shared.auth.redaction import Redactor, safe_words
from shared.errors import ContentEncodingError, TokenRejectedError, TokenUnavailableError
from shared.rules.content_encoding import BodyDecoder
from shared.rules.retry import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    import httpx

logger = logging.getLogger(__name__)

MAX_BODY = 64 * 1024
"""Bytes after decompression: more than any token response or discovery document needs."""

CONFIGURATION = "/.well-known/openid-configuration"
GONE = frozenset({404, 405, 410})
"""The statuses of a URL that is not, or no longer, a token endpoint."""

_CONNECT_TIMEOUT = 5.0  # seconds
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
_ERROR_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")  # RFC 6749 section 5.2
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def endpoint_problem(url: str) -> str | None:
    """Say what keeps `url` from being sent a secret, None if nothing does.

    It must be ASCII (RFC 3986) and https (RFC 6749 section 3.2), plain http only to a loopback address, with no user
    name, password or fragment in it, and no zone (RFC 6874). The words never repeat the URL, which may hold a password.
    """
    try:
        parts = urlsplit(url)
        host, _port = parts.hostname, parts.port  # reading the port checks it
    except ValueError:
        return "it is not a URL"
    if not host or any(c.isspace() or not c.isprintable() for c in url):
        return "it is not an absolute URL"
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    faults = {
        "it is not ASCII: write the host in Punycode (xn--…), and the path percent-encoded": not url.isascii(),
        "its host has a % in it: write a host in Punycode (xn--…), and an address without a zone": "%" in host,
        "it has a user name or a password in it": parts.username is not None or parts.password is not None,
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


def discovered_problem(endpoint: object, issuer: str) -> str | None:
    """Say what is wrong with the token endpoint that the issuer at a URL names, None if nothing is."""
    if not isinstance(endpoint, str):
        return "its configuration has no token_endpoint"
    problem = endpoint_problem(endpoint)
    if problem is None and urlsplit(endpoint).scheme != urlsplit(issuer).scheme:
        problem = "it has another scheme than the issuer"
    return problem and f"its token_endpoint is not usable: {problem}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authorization server answered.

    `body` is decoded. `problem` says why it cannot be used, `hint` what the status suggests to whoever set the app up.
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
        except (ValueError, RecursionError):  # not JSON, not Unicode, or nested without end
            document = None
        return {k: v for k, v in document.items() if v is not None} if isinstance(document, dict) else {}


async def exchange(  # noqa: PLR0913, the members of an HTTP request, each by its own name
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    what: str = "the token endpoint",
    setting: str | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    timeout: float,  # noqa: ASYNC109, it bounds connect and each read as well as their sum
) -> Answer:
    """Send one request and read the answer, without the client's own authentication and without redirects.

    `content` is a form. `timeout` is seconds from connect to the last byte. `what` names the endpoint in errors,
    `setting` the app setting that holds its URL.

    Raises:
        TokenUnavailableError: there is no whole answer.
    """
    # The settings need this module and neither of these; whoever has a client has imported both.
    import aiohttp  # noqa: PLC0415, see above
    import httpx  # noqa: PLC0415, see above

    try:
        async with (
            asyncio.timeout(timeout),  # httpx bounds each read, not their sum
            client.stream(
                method,
                url,
                content=content,
                headers={**_HEADERS, **(headers or {}), **(_FORM if content is not None else {})},
                timeout=httpx.Timeout(timeout, connect=min(_CONNECT_TIMEOUT, timeout)),
                auth=None,
                follow_redirects=False,
            ) as response,
        ):
            body, problem = await _read(response)
            hint = _hint(response.status_code, response.headers.get("location"), url, setting)
            return Answer(response.status_code, response.headers, body, problem, hint)
    except TimeoutError:
        fault = f"{what} did not answer within {timeout:g} s"
    except httpx.ProxyError as exc:  # the transport's own words: they name the proxy and what it answered
        fault = _CREDENTIALS.sub("//", str(exc))
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        fault = f"{what} cannot be reached: {_CREDENTIALS.sub('//', str(exc)) or type(exc).__name__}"
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as exc:
        # The text of these may repeat what was sent or received.
        fault = f"{what} does not answer: {type(exc).__name__}"
    # Raised out here, it has no context: a traceback would show the text that was left out above.
    raise TokenUnavailableError(fault)


async def _read(response: httpx.Response) -> tuple[bytes, str | None]:
    """Return the decoded body, or no body and what is wrong with it."""
    body = bytearray()
    try:
        decoder = BodyDecoder(response.headers.get("content-encoding"), MAX_BODY)
        # Not `aiter_bytes`: httpx would decompress whatever comes, without a limit.
        async for piece in cast("httpx.AsyncByteStream", response.stream):
            body += decoder.feed(piece)
        decoder.end()
    except ContentEncodingError as exc:
        return b"", f"it answered {response.status_code}, and {exc}"
    return bytes(body), None


def _hint(status: int, location: str | None, url: str, setting: str | None) -> str | None:
    """Say what a status suggests: the URL in the setting is wrong, or lacks what the redirect adds to it."""
    hint = None
    if 300 <= status < 400 and location is not None:  # noqa: PLR2004, RFC 9110 section 15.4
        try:
            target = urlsplit(urljoin(url, location))
            # Without user name and query, which may hold a secret.
            hint = f"it redirects to {target.scheme}://{target.netloc.rpartition('@')[2]}{target.path}"
        except ValueError:
            hint = "it redirects"
    elif status not in GONE:
        return None
    return "; ".join(filter(None, [hint, setting and f"check {setting}"])) or None


async def discover(
    client: httpx.AsyncClient,
    issuer: str,
    setting: str,
    timeout: float,  # noqa: ASYNC109, see exchange
    now: Callable[[], datetime],
) -> tuple[str, str]:
    """Ask an issuer for its token endpoint (OpenID Connect Discovery 1.0 section 4); return that and its own name.

    Either name of the issuer may end in a slash. `setting` is the app setting that holds it.

    Raises:
        TokenUnavailableError: the document cannot be had, is another issuer's, or names no usable endpoint.
    """
    url = issuer.removesuffix("/") + CONFIGURATION
    answer = await exchange(client, "GET", url, what="the issuer", setting=setting, timeout=timeout)
    document = answer.document()
    named, endpoint = document.get("issuer"), document.get("token_endpoint")
    if answer.problem is not None:
        problem: str | None = answer.problem
    elif not answer.is_success:
        problem = "; ".join(filter(None, [f"it answered {answer.status}", answer.hint]))
    elif not isinstance(named, str):
        problem = "its configuration has no issuer"
    elif named.removesuffix("/") != issuer.removesuffix("/"):
        problem = f"its configuration is that of another one, {safe_words(named, Redactor([]))}"
    else:
        problem = discovered_problem(endpoint, issuer)
    if problem is None:
        return str(endpoint), str(named)
    wait = retry_after(answer.headers.get("retry-after"), now())
    raise TokenUnavailableError(f"the issuer is in trouble: {problem}", status=answer.status, retry_after=wait)


def access_token_from(answer: Answer, *, now: datetime, secrets: Iterable[str]) -> AccessToken:
    """Return the access token in a token response (RFC 6749 section 5.1).

    `now` is aware; `secrets` never appear in an error.

    Raises:
        TokenRejectedError: 400, 401 or 403 with an error that blames the client.
        TokenUnavailableError: every other status, and a body that is not what section 5.1 says.
    """
    if answer.is_success and answer.problem is None:
        try:
            return _access_token(answer.document())
        except ValueError as exc:
            answer = replace(answer, problem=str(exc))
    raise token_error(answer, now=now, secrets=secrets)


def token_error(answer: Answer, *, now: datetime, secrets: Iterable[str]) -> TokenRejectedError | TokenUnavailableError:
    """Return the error that an answer without a usable token is; arguments as for `access_token_from`."""
    document = answer.document()
    # An answer that is of no use may hold a token all the same, and its own words may repeat it.
    tokens = [value for name, value in document.items() if name.endswith("_token") and isinstance(value, str)]
    redactor = Redactor([*secrets, *tokens])
    code = document.get("error")
    error = safe_words(code, redactor) if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None
    words = (safe_words(text, redactor) for text in (document.get("error_description"), answer.hint))
    description = "; ".join(filter(None, words)) or None
    wait = retry_after(answer.headers.get("retry-after"), now)
    if answer.status in _REFUSALS and error in _CONFIGURATION_ERRORS:
        return TokenRejectedError(error, description, status=answer.status, retry_after=wait)
    reasons = [answer.problem or f"it answered {answer.status}", error and f"error {error}", description]
    return TokenUnavailableError(
        f"the token endpoint is in trouble: {'; '.join(filter(None, reasons))}", status=answer.status, retry_after=wait
    )


def _access_token(document: Mapping[str, Any]) -> AccessToken:
    """Return the access token that a JSON token response holds; a ValueError names what is wrong, not its value.

    Lenient where servers are: a missing `token_type` counts as Bearer, `expires_in` may be a string or missing. One
    that makes no sense counts as missing, with a warning.
    """
    value, token_type = document.get("access_token"), document.get("token_type", "Bearer")
    if not isinstance(value, str) or not VISIBLE_ASCII.fullmatch(value):
        raise ValueError("its response has no access_token of visible ASCII characters")
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
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        seconds = float(value)
    except OverflowError:  # a JSON integer of more than 308 digits
        return None
    return seconds if math.isfinite(seconds) and seconds > 0 else None
