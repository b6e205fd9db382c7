"""One request to an authorization server, bounded in time and size."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import httpx

from shared.errors import TokenUnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BODY = 64 * 1024
"""Bytes: more than any token response or discovery document needs."""

_CONNECT_TIMEOUT = 5.0  # seconds
_HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",  # a body that unpacks to gigabytes would get around MAX_BODY
    # Token requests are minutes apart: a pooled connection would often be dead by then, and dead is found out too late.
    "Connection": "close",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What an authorization server answered; `body` is empty where it was of more than MAX_BODY bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


async def exchange(  # noqa: PLR0913 - the members of an HTTP request, each by its own name
    client: httpx.AsyncClient,
    method: str,
    url: str,
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
    except TimeoutError as exc:
        raise TokenUnavailableError(f"{what} did not answer within {timeout:g} s") from exc
    except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
        raise TokenUnavailableError(f"{what} cannot be reached: {exc or type(exc).__name__}") from exc
    except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError) as exc:
        # The text of these may repeat what was sent or came. httpx-aiohttp lets aiohttp's errors through.
        raise TokenUnavailableError(f"{what} does not answer: {type(exc).__name__}") from exc


async def _bounded_body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            return b""
    return bytes(body)
