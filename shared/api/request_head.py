"""RequestHead: the bytes of a request up to its body (RFC 9112), most of them made once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from yarl import URL


class RequestHead:
    """The request line and headers of requests below one URL; `headers` are those that all of them have."""

    def __init__(self, url: URL, headers: Mapping[str, str]) -> None:
        self._path = _path(url.raw_path.rstrip("/"))
        lines = [f"{name}: {_checked(name, value)}\r\n" for name, value in headers.items()]
        host = _checked("host", url.host_port_subcomponent or "")
        self._common = f" HTTP/1.1\r\nhost: {host}\r\n{''.join(lines)}"
        self._authorization = ""

    def encode(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        length: int | None,
        authorization: str | None = None,
    ) -> bytes:
        """Give the head of one request; `path` comes after the URL's, percent-encoded, `length` is that of the body.

        Raises:
            ValueError: a header, or the path, has other characters than visible ASCII; the message does not repeat it.
        """
        head = f"{method} {self._path}{_path(path)}{self._common}"
        for name, value in headers.items():
            head += f"{name}: {_checked(name, value)}\r\n"
        if authorization is not None:
            # Long, and one and the same for many requests.
            if authorization is not self._authorization:
                self._authorization = _checked("authorization", authorization)
            head += f"authorization: {authorization}\r\n"
        if length is not None:
            head += f"content-length: {length}\r\n"
        return f"{head}\r\n".encode("ascii")


def _path(path: str) -> str:
    """Give what does not end the request line."""
    if " " in path:
        raise ValueError("the path of a request has a character that is not visible ASCII: a space")
    return _checked("the path", path)


def _checked(name: str, value: str) -> str:
    """Give what ends no line and begins no other header."""
    if value.isascii() and value.isprintable():
        return value
    raise ValueError(f"{name} of a request has a character that is not visible ASCII")
