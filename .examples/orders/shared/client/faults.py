"""Transport faults: every error of aiohttp as the error of httpx that tells whether the request was sent."""

from __future__ import annotations

from http import HTTPStatus

import aiohttp
import httpx
from aiohttp.http_exceptions import HttpProcessingError

CAUSES = (aiohttp.ClientError, HttpProcessingError, OSError)
"""What aiohttp raises while it sends a request or reads its response."""

NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.UnsupportedProtocol,
    httpx.LocalProtocolError,
)
"""The errors of httpx that are raised before anything of the request has left: the server cannot have acted on it."""

# The first that fits counts. None: the operating system's text is shown. No text repeats what the server sent.
_FAULTS: tuple[tuple[type[BaseException], type[httpx.TransportError], str | None], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError, None),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError, "the proxy refuses to connect"),
    (aiohttp.ClientConnectorError, httpx.ConnectError, None),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, "no connection in time"),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol, "the URL is not usable"),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol, "the URL is not http or https"),
    (TimeoutError, httpx.ReadTimeout, "no response in time"),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError, "the server closed the connection without a response"),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (HttpProcessingError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (OSError, httpx.ReadError, None),
)


def request_fault(cause: BaseException, proxy: str | None = None) -> httpx.TransportError:
    """Return the fault of a request that got no response; `proxy` is the host and port of the proxy on the way."""
    kind, words = next(
        ((kind, words) for error, kind, words in _FAULTS if isinstance(cause, error)),
        (httpx.ReadError, "the connection broke"),
    )
    text = words or _system_text(cause)
    if proxy and isinstance(cause, aiohttp.ClientHttpProxyError):
        return kind(f"the proxy {proxy} answered {_status(cause.status)} to CONNECT")
    if proxy and isinstance(cause, aiohttp.ClientProxyConnectionError):
        return kind(f"the proxy {proxy} cannot be reached: {text}")
    return kind(f"{text} (through the proxy {proxy})" if proxy else text)


def body_fault(cause: BaseException) -> httpx.TransportError:
    """Return the fault of a response's body: the request was sent."""
    if isinstance(cause, TimeoutError):
        return httpx.ReadTimeout("the response's body stopped arriving")
    return httpx.ReadError("the response's body is broken or ends too soon")


def _system_text(cause: BaseException) -> str:
    """Return what the operating system or the TLS library says."""
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        return f"{cause.host}:{cause.port}: {cause.certificate_error}"
    if isinstance(cause, aiohttp.ClientConnectorError):
        return f"{cause.host}:{cause.port}: {cause.os_error.strerror or cause.os_error}"
    return (cause.strerror if isinstance(cause, OSError) else None) or type(cause).__name__


def _status(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
