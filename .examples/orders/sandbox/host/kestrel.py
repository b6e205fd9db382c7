"""The HTTP protocol of the server, with the limits and habits of Kestrel, the web server of the Functions host."""

from __future__ import annotations

import re

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# https://learn.microsoft.com/aspnet/core/fundamentals/servers/kestrel/options, in bytes.
REQUEST_LINE_LIMIT = 8192
HEADERS_LIMIT = 32768
HEADER_COUNT_LIMIT = 100

# The parser ends at a request to upgrade, and drops its body. Under this name it does not see one.
_UPGRADE = re.compile(rb"\r\nUpgrade:", re.IGNORECASE)
_HIDDEN_UPGRADE = b"x-sandbox-upgrade"


def refused_status(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> int | None:
    """Return the status with which Kestrel refuses a request before any application sees it, None if it does not."""
    if len(method) + len(url) + len(b"  HTTP/1.1\r\n") > REQUEST_LINE_LIMIT:
        return 414
    if len(headers) > HEADER_COUNT_LIMIT or sum(len(name) + len(value) + 4 for name, value in headers) > HEADERS_LIMIT:
        return 431
    hosts = 0
    for name, value in headers:
        hosts += name == b"host"
        if not value.isascii():
            try:
                value.decode()
            except UnicodeDecodeError:
                return 400
    return 400 if hosts > 1 else None


class _RefusedError(Exception):
    """Ends the parsing of a request that is refused."""


class KestrelProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol: requests beyond Kestrel's limits get an empty 400, 414 or 431."""

    def connection_made(self, transport) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - uvicorn's signature
        """Accept a chunked body beside a Content-Length, as RFC 9112 section 6.3 allows."""
        super().connection_made(transport)
        self.refusal = 400
        self.parser.set_dangerous_leniencies(lenient_chunked_length=True, lenient_data_after_close=True)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived; a request to upgrade is hidden from the parser."""
        if self.cycle is None or self.cycle.response_complete:
            head, end, rest = data.partition(b"\r\n\r\n")
            if _UPGRADE.search(head):
                data = _UPGRADE.sub(b"\r\n" + _HIDDEN_UPGRADE + b":", head) + end + rest
        super().data_received(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        super().on_header(b"upgrade" if name == _HIDDEN_UPGRADE else name, value)

    def on_headers_complete(self) -> None:
        """Refuse the request, or hand it to the application with its headers as Kestrel rewrites them."""
        refusal = refused_status(self.parser.get_method(), self.url, self.headers)
        if refusal is not None:
            self.refusal = refusal
            raise _RefusedError
        names = {name for name, _ in self.headers}
        if b"transfer-encoding" in names and b"content-length" in names:
            self.headers[:] = [
                (b"x-" + name if name == b"content-length" else name, value) for name, value in self.headers
            ]
        if b"upgrade" in names:
            self.headers[:] = [(name, b"Upgrade" if name == b"connection" else value) for name, value in self.headers]
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuse a request that cannot be parsed, or that is refused, and close the connection."""
        phrase = {400: b"Bad Request", 414: b"URI Too Long", 431: b"Request Header Fields Too Large"}[self.refusal]
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (self.refusal, phrase)
        )
        self.transport.close()
