"""An HTTP request on its way to a function, and what the function answers on its way back."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from starlette.responses import Response

from sandbox.host.errors import BodyTooLargeError
from sandbox.host.messages import RpcHttp, RpcHttpCookie, TypedData

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from starlette.requests import Request

# The platform's limit: https://learn.microsoft.com/azure/azure-functions/functions-bindings-http-webhook-trigger#limits
BODY_LIMIT = 100 * 1024 * 1024
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# A character outside ASCII makes the platform answer 500.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*")
FINAL_STATUSES = range(200, 600)
# RFC 9110 section 6.4.1.
BODILESS_STATUSES = frozenset({204, 205, 304})
# What the server adds by itself: a second value of these would break the message.
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding", "connection", "date", "server"})


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Join values of the same name (ignoring case) by commas, and drop empty ones, as the platform does."""
    names: dict[str, str] = {}
    joined: dict[str, str] = {}
    for name, value in pairs:
        first = names.setdefault(name.lower(), name)
        joined[first] = f"{joined[first]},{value}" if first in joined else value
    return {name: value for name, value in joined.items() if value}


def _as_utf8(value: str) -> str:
    """Decode a header as Kestrel does; Starlette takes it for Latin-1."""
    return value if value.isascii() else value.encode("latin-1").decode()


async def read_body(request: Request, limit: int = BODY_LIMIT) -> bytes:
    """Read a request's body.

    Raises:
        BodyTooLargeError: it has more than `limit` bytes.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > limit:
        raise BodyTooLargeError(f"the body has more than {limit} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLargeError(f"the body has more than {limit} bytes")
    return bytes(body)


async def request_data(request: Request, params: Mapping[str, str]) -> TypedData:
    """Return the trigger value of an HTTP function: header names in lower case, the body as bytes.

    `params` has the values of the route's parameters.

    Raises:
        BodyTooLargeError: the body exceeds the platform's limit.
    """
    body = await read_body(request)
    if "transfer-encoding" in request.headers:
        # The platform hands a chunked request over without its body (Azure/azure-functions-host#7930).
        body = b""
    query, raw_path = request.url.query, request.scope["raw_path"].decode("latin-1")
    url = f"{request.url.scheme}://{request.url.netloc}{raw_path}{f'?{query}' if query else ''}"
    return TypedData(
        http=RpcHttp(
            method=request.method,
            url=url,
            headers=_joined((name.lower(), _as_utf8(value)) for name, value in request.headers.items()),
            params={name: value for name, value in params.items() if value},
            query=_joined(parse_qsl(query, keep_blank_values=True)),
            body=TypedData(bytes=body) if body else TypedData(),
        )
    )


def _cookie_header(cookie: RpcHttpCookie) -> str:
    """Write a `Set-Cookie` value (RFC 6265 section 4.1.1) as ASP.NET does."""
    attributes = {
        "expires": None if cookie.expires is None else formatdate(cookie.expires, usegmt=True),
        "max-age": None if cookie.max_age is None else str(int(cookie.max_age)),
        "domain": cookie.domain,
        "path": cookie.path,
    }
    parts = [
        f"{cookie.name}={cookie.value}",
        *(f"{name}={value}" for name, value in attributes.items() if value is not None),
    ]
    if cookie.secure:
        parts.append("secure")
    if cookie.same_site:
        parts.append(f"samesite={cookie.same_site}")
    if cookie.http_only:
        parts.append("httponly")
    return "; ".join(parts)


def _content(data: TypedData | None) -> tuple[bytes, str | None]:
    """Return the bytes of a value, and the content type that the platform names for it.

    Raises:
        ValueError: the platform makes no response of it (a number).
    """
    if data is None or data.WhichOneof("data") is None:
        return b"", None
    if data.bytes is not None:
        return data.bytes, None
    if data.json is not None:
        return data.json.encode(), "application/json; charset=utf-8"
    if data.string is None:
        raise ValueError("a number is not an HTTP response")
    return data.string.encode(), "text/plain; charset=utf-8"


def _set_header(response: Response, name: str, value: str) -> None:
    """Add a header; raises ValueError for one that would break the message (RFC 9110 sections 5.1 and 5.5)."""
    if _TOKEN.fullmatch(name) is None or _FIELD_VALUE.fullmatch(value) is None:
        raise ValueError(f"the header {name!r} has a name or value that HTTP cannot carry")
    response.headers.append(name, value)


def response_from_data(data: TypedData | None) -> Response:
    """Turn what an HTTP function returned into its response.

    Raises:
        ValueError: it returned nothing, or something that HTTP cannot carry.
    """
    if data is None or data.WhichOneof("data") is None:
        raise ValueError("the function returned no response")
    http = data.http or RpcHttp(status_code="200", body=data)
    status = int(http.status_code)
    if status not in FINAL_STATUSES:
        raise ValueError(f"{status} is not the status of an HTTP response")
    content, content_type = _content(http.body)
    response = Response(b"" if status in BODILESS_STATUSES else content, status_code=status)
    if content_type is not None and data.http is None:
        response.headers["Content-Type"] = content_type
    for name, value in http.headers.items():
        if name.lower() not in _FRAMING_HEADERS:
            _set_header(response, name, value)
    for cookie in http.cookies or ():
        _set_header(response, "Set-Cookie", _cookie_header(cookie))
    return response
