"""A request to the app and its reply as plain values: the handlers are written against these."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_WAIT = 200.0
"""Seconds. Azure's load balancer gives a request up after 230 s; the margin is for the answer."""

# Preferences are separated by commas, but not by one in a quoted string. A quote that nobody closes takes the rest:
# else each quote after it would be looked at as a beginning, in quadratic time.
_PREFERENCE = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.?)*+(?:"|$))++', re.DOTALL)
_WAIT = re.compile(r'\s*wait\s*=\s*("?)([0-9]+)\1\s*(?:;.*)?', re.IGNORECASE)
# App Service and reverse proxies send the URL along as it was before they decoded it.
_ORIGINAL_URLS = ("x-waws-unencoded-url", "x-original-url")


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `headers` is case-insensitive; `params` are the route's, `query` the query's, both decoded."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)

    @property
    def preferred_wait(self) -> float:
        """The seconds that the caller would wait for the result (RFC 7240 section 4.3), at most `MAX_WAIT`."""
        for preference in _PREFERENCE.findall(self.headers.get("prefer", "")):
            # RFC 7240 section 2: of a repeated preference, the first counts.
            if wish := _WAIT.fullmatch(preference):
                return min(float(wish[2]), MAX_WAIT)
        return 0.0

    @property
    def last_segment(self) -> str:
        """The last segment of the path, decoded once.

        The host decodes a path except `%2F`, so its route parameter cannot tell a slash from a literal `%2F`.
        """
        original = next((self.headers[name] for name in _ORIGINAL_URLS if self.headers.get(name)), self.url)
        # Not `urlsplit`, which raises for what a caller can write there.
        path = original.partition("?")[0].partition("#")[0]
        return unquote(path.rstrip("/").rpartition("/")[2])

    @property
    def api_root(self) -> str:
        """The absolute URL under which the app's routes are, such as "https://relay.example/api"."""
        parts = urlsplit(self.url)
        # host.json's routePrefix is "api".
        return f"{parts.scheme}://{parts.netloc}/api"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: `body` has the media type that `headers` names."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @classmethod
    def json(cls, status: int, content: Any, headers: Mapping[str, str] | None = None) -> Reply:  # noqa: ANN401, it is any JSON
        """Return a reply with a JSON body."""
        return cls(status, msgspec.json.encode(content), {"content-type": "application/json", **(headers or {})})

    def ascii_headers(self) -> dict[str, str]:
        """Return the headers with every other character escaped: the host answers 500 to one outside ASCII."""
        return {
            name: value if value.isascii() else value.encode("ascii", "backslashreplace").decode()
            for name, value in self.headers.items()
        }
