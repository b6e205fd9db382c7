"""The faults of the transport: every error of aiohttp as the error of httpx that tells what was sent."""

from __future__ import annotations

from typing import NoReturn

import aiohttp
import httpx
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

# What aiohttp raises before a response's body, and in it.
CAUSES = (aiohttp.ClientError, HttpProcessingError, OSError)

# In the order of the tests: a subclass comes before its superclass. Whatever is not here may have been sent.
_FAULTS: tuple[tuple[type[BaseException], type[httpx.TransportError], str | None], ...] = (
    (aiohttp.ClientProxyConnectionError, httpx.ProxyError, None),
    (aiohttp.ClientHttpProxyError, httpx.ProxyError, "the proxy refuses to connect"),
    (aiohttp.ClientConnectorError, httpx.ConnectError, None),
    (aiohttp.ConnectionTimeoutError, httpx.ConnectTimeout, None),
    (aiohttp.InvalidURL, httpx.UnsupportedProtocol, None),
    (aiohttp.NonHttpUrlClientError, httpx.UnsupportedProtocol, None),
    (TimeoutError, httpx.ReadTimeout, None),
    (aiohttp.ServerDisconnectedError, httpx.RemoteProtocolError, "the server closed the connection without a response"),
    (aiohttp.ClientResponseError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (HttpProcessingError, httpx.RemoteProtocolError, "the response is not HTTP"),
    (OSError, httpx.ReadError, None),
)


def transport_fault(cause: BaseException) -> tuple[type[httpx.TransportError], str | None]:
    """Name a fault by what is known of the request; with it words of ours, None where the text of `cause` is safe."""
    for kind, fault, words in _FAULTS:
        if isinstance(cause, kind):
            return fault, words
    return httpx.ReadError, "the connection broke"


def raise_fault(cause: Exception) -> NoReturn:
    """Raise the fault that `cause` is, where there is no response yet."""
    fault, words = transport_fault(cause)
    if encoding := _unasked_encoding(cause):
        words = f"the response is encoded in {encoding!r}, which was not asked for"
    # Without words of ours the text is the operating system's; else the cause must not stand in a traceback either.
    raise fault(words or str(cause) or type(cause).__name__) from None if words else cause


def _unasked_encoding(cause: Exception) -> str | None:
    """Give the one encoding that aiohttp knows and cannot decode here: of the header nothing else is repeated."""
    reason: BaseException | None = cause
    while reason is not None and not isinstance(reason, ContentEncodingError):
        reason = reason.__cause__
    if reason is None:
        return None
    # Its words are aiohttp's own, "… content-encoding: brotli (br). …".
    return next((name for name in ("br", "zstd") if name in reason.message), None)


def body_fault(cause: Exception) -> httpx.TransportError:
    """Give the fault that `cause` is in a body: the request was sent."""
    if isinstance(cause, TimeoutError):
        return httpx.ReadTimeout("the response's body stopped coming")
    return httpx.ReadError("the response's body is broken, or broken off")
