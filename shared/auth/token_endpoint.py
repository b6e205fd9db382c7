"""A token endpoint: where secrets may be sent, and one request to it, bounded in time and size."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

MAX_BODY = 64 * 1024
"""Bytes: more than any token response or discovery document needs."""

_CONNECT_TIMEOUT = 5.0  # seconds
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a body that unpacks to gigabytes would get around MAX_BODY
    # Token requests are minutes apart: a pooled connection would often be dead by then, and dead is found out too late.
    "Connection": "close",
}
_CREDENTIALS = re.compile(r"//[^/\s]*@")


def endpoint_problem(url: str) -> str | None:
    """Say what keeps `url` from being sent a secret, None where nothing does.

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
    """Tell whether a host is this machine, by its name `localhost` or its address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authorization server answered; `body` is empty where it was of more than MAX_BODY bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


async def exchange(  # noqa: PLR0913 - the members of an HTTP request, each by its own name
    client: httpx.AsyncClient,
    method: str,
    url: str | httpx.URL,
    *,
    what: str = "the token endpoint",
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    timeout: float,  # noqa: ASYNC109 - it bounds connect and each read as well as their sum
) -> Answer:
    """Send one request and read the answer, without the client's own authentication and without redirects.

    `timeout` is seconds from connect to the last byte. `what` names the endpoint in errors.

    Raises:
        TokenUnavailableError: there is no whole answer.
    """
    # Settings need this module, and neither of these; who has a client has imported both.
    import aiohttp  # noqa: PLC0415 - see above
    import httpx  # noqa: PLC0415 - see above

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
            return Answer(response.status_code, response.headers, await _bounded_body(response))
    except TimeoutError:
        problem = f"did not answer within {timeout:g} s"
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        problem = f"cannot be reached: {_CREDENTIALS.sub('//', str(exc)) or type(exc).__name__}"
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as exc:
        # The text of these may repeat what was sent or came. httpx-aiohttp lets aiohttp's errors through.
        problem = f"does not answer: {type(exc).__name__}"
    # Raised out here, it has no context: a traceback would show the text that was left out above.
    raise TokenUnavailableError(f"{what} {problem}")


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            return b""
    return bytes(body)
