"""A token endpoint: where secrets may be sent, how an issuer names it, and one request, bounded in time and size."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import urljoin, urlsplit

from shared.auth.access_token import Answer
from shared.auth.redaction import Redactor, safe_words
from shared.errors import ContentEncodingError, TokenUnavailableError
from shared.rules.content_encoding import BodyDecoder
from shared.rules.retry_after import retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    import httpx

MAX_BODY = 64 * 1024
"""Bytes after decompression: more than any token response or discovery document needs."""

_CONNECT_TIMEOUT = 5.0  # seconds
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    # Token requests are minutes apart: a pooled connection would often be dead by then, and dead is found out too late.
    "Connection": "close",
}
_CREDENTIALS = re.compile(r"//[^/\s]*@")
# The statuses of a URL that is not, or no longer, a token endpoint.
GONE = frozenset({404, 405, 410})


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
    faults = {
        "it is not ASCII: write the host in Punycode (xn--…), and the path percent-encoded": not url.isascii(),
        "its host has a % in it: write a host in Punycode (xn--…), and an address without a zone": "%" in host,
        "it has a user name or a password in it": parts.username is not None or parts.password is not None,
        "it has a fragment": "#" in url,
        "it must be https, or plain http to a loopback address": not (
            parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
        ),
    }
    return next((fault for fault, is_there in faults.items() if is_there), None)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine, by its name `localhost` or its address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
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


async def exchange(  # noqa: PLR0913, the members of an HTTP request, each by its own name
    client: httpx.AsyncClient,
    method: str,
    url: str | httpx.URL,
    *,
    what: str = "the token endpoint",
    setting: str | None = None,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    timeout: float,  # noqa: ASYNC109, it bounds connect and each read as well as their sum
) -> Answer:
    """Send one request and read the answer, without the client's own authentication and without redirects.

    `timeout` is seconds from connect to the last byte. `what` names the endpoint in errors, `setting` the app setting
    that holds its URL, if one does.

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
                headers=_HEADERS | dict(headers or {}),
                timeout=httpx.Timeout(timeout, connect=min(_CONNECT_TIMEOUT, timeout)),
                auth=None,
                follow_redirects=False,
            ) as response,
        ):
            body, problem = await _read(response)
            hint = _hint(response.status_code, response.headers.get("location"), str(url), setting)
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


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A token endpoint, and the issuer it belongs to as that names itself, None if no issuer was asked."""

    url: str
    issuer: str | None = None


async def discover(
    client: httpx.AsyncClient,
    issuer: str,
    setting: str,
    timeout: float,  # noqa: ASYNC109, see exchange
    now: Callable[[], datetime],
) -> Endpoint:
    """Ask an issuer for its token endpoint (OpenID Connect Discovery 1.0 section 4).

    `issuer` may end in a slash or not, whatever the server calls itself; `setting` is the app setting that holds it.

    Raises:
        TokenUnavailableError: the document cannot be had, is another issuer's, or names no usable endpoint.
    """
    url = issuer.removesuffix("/") + "/.well-known/openid-configuration"
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
        return Endpoint(str(endpoint), str(named))
    wait = retry_after(answer.headers.get("retry-after"), now())
    raise TokenUnavailableError(f"the issuer is in trouble: {problem}", status=answer.status, retry_after=wait)
