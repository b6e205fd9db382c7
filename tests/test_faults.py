from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from shared.client.transport import NOT_SENT, body_fault, request_fault

if TYPE_CHECKING:
    from collections.abc import Iterator


def subclasses(root: type[BaseException]) -> Iterator[type[BaseException]]:
    yield root
    for child in root.__subclasses__():
        yield from subclasses(child)


AIOHTTP_ERRORS = sorted(
    {error for error in subclasses(aiohttp.ClientError) if error.__module__.startswith("aiohttp")},
    key=lambda error: error.__qualname__,
)
# Of these and their subclasses alone it is certain that no byte of the request has left.
BEFORE_SENDING = (
    aiohttp.ClientConnectorError,
    aiohttp.ClientHttpProxyError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
)


def made(error: Any) -> Any:  # noqa: ANN401, each has arguments of its own
    key = ConnectionKey(
        "partner.example", 443, is_ssl=True, ssl=True, proxy=None, proxy_auth=None, proxy_headers_hash=0
    )
    if issubclass(error, aiohttp.ClientConnectorCertificateError):
        return error(key, ssl.CertificateError("bad"))
    if error.__name__ == "UnixClientConnectorError":
        return error("path", key, OSError(5, "why"))
    if issubclass(error, aiohttp.ClientConnectorError):
        return error(key, OSError(5, "why"))
    if issubclass(error, aiohttp.ClientResponseError):
        url = URL("https://partner.example")
        request = aiohttp.RequestInfo(url, "POST", CIMultiDictProxy(CIMultiDict()), url)
        return error(request, (), status=407, message="s3cret")
    return error.__new__(error)


@pytest.mark.parametrize(
    "error",
    [*AIOHTTP_ERRORS, HttpProcessingError, OSError, TimeoutError, ConnectionResetError, ssl.SSLError, EOFError],
)
@pytest.mark.parametrize("proxy", [None, "proxy.example:3128"])
def test_every_error_becomes_a_fault_that_tells_whether_the_request_was_sent(
    error: type[BaseException], proxy: str | None
) -> None:
    assert len(AIOHTTP_ERRORS) >= 25
    fault = request_fault(made(error), proxy)
    assert isinstance(fault, httpx.TransportError)
    assert isinstance(fault, NOT_SENT) is issubclass(error, BEFORE_SENDING)
    assert not isinstance(body_fault(made(error)), NOT_SENT)
    assert str(fault)
    assert "s3cret" not in str(fault)
    assert proxy is None or proxy in str(fault)
