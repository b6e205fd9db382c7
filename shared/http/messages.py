"""The messages of the HTTP interface as plain values: a request, a reply, and the problem responses (RFC 9457).

Every error of the interface is a problem of one of `TYPES`: `answered` makes one of a RefusedError.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import msgspec

from shared.errors import Fault, RefusedError, ResourceError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

MAX_WAIT = 200.0
"""Seconds. Azure's load balancer gives a request up after 230 s; the margin is for the answer."""
TYPE_ROOT = "/api/docs#"
"""A problem's type is this and its slug: the page has a section for each, and so has docs/problems.md."""

# RFC 7240 section 2: of a repeated preference, the first counts.
_WAIT = re.compile(r'(?:^|,)\s*wait\s*=\s*("?)([0-9]+)\1\s*(?:[;,]|$)', re.IGNORECASE)
# App Service and reverse proxies send the URL along as it was before they decoded it.
_ORIGINAL_URLS = ("x-waws-unencoded-url", "x-original-url")
# RFC 3986 section 3.5: the characters of a fragment that are not encoded, beside letters and digits.
_FRAGMENT = "/?:@!$&'()*+,;=-._~"


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
        wish = _WAIT.search(self.headers.get("prefer", ""))
        return min(float(wish[2]), MAX_WAIT) if wish else 0.0

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

    def flag(self, name: str, *, default: bool) -> bool:
        """Return a flag of the query; raises RefusedError (400) if it is neither true nor false."""
        told = self.query.get(name, "").lower() or str(default).lower()
        if told not in {"true", "false"}:
            raise RefusedError("malformed", f"{name} must be true or false.")
        return told == "true"


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
        return {name: value.encode("ascii", "backslashreplace").decode() for name, value in self.headers.items()}


# The slugs of problem types, with status, title, and what the caller can do about it.
TYPES = {
    "malformed": (400, "The request is malformed", "Mend what the detail names, and send it again."),
    "not-found": (404, "There is nothing with this id", "Check the id, and whether it was purged."),
    "no-route": (404, "There is no such route", "GET /api/openapi.json lists the routes."),
    "method-not-allowed": (405, "The route does not have this method", "Use one of those in Allow."),
    "key-reused": (409, "The Idempotency-Key was used for another payload", "Send the new payload with another key."),
    "wrong-state": (409, "The delivery is not in a state for this", "Look at its state first."),
    # Azure/azure-functions-host issues 4926 and 7930
    "length-required": (411, "The request has no Content-Length", "Send one: the Functions host loses chunked bodies."),
    "too-large": (413, "The request is too large", "Split it: 64 KiB a record, 1,000 records and 1 MiB."),
    "media-type": (415, "The media type is not accepted", "Use one of those in Accept."),
    "content-encoding": (415, "The content encoding is not accepted", "Use one of those in Accept-Encoding, or none."),
    "invalid-record": (422, "A record breaks a rule", "Mend the members that `errors` names. Nothing was started."),
    "rejected": (422, "The partner rejected the record", "Mend the record, and redeliver it."),
    "busy": (429, "The app has accepted as much as it can hold", "Send it again after Retry-After."),
    "failed": (500, "The delivery failed", "Redeliver it; the log says what happened."),
    "partner": (502, "The partner gave no usable answer", "Try again; `health/deep` says more."),
    "configuration": (503, "The app is not configured", "An operator has to mend what `errors` names."),
    "unavailable": (503, "Not now", "Send it again after Retry-After, with the same Idempotency-Key."),
    "expired": (504, "The delivery reached its deadline", "Redeliver it. `uncertain` says if it may have arrived."),
    "timeout": (504, "The partner did not answer in time", "Try again."),
}


def problem(
    kind: str,
    detail: str,
    *,
    errors: Sequence[Fault] = (),
    retry_after: float | None = None,
    headers: Mapping[str, str] | None = None,
    **members: Any,  # noqa: ANN401, extension members are any JSON
) -> Reply:
    """Return a problem response of one of `TYPES`; `retry_after` is in seconds, `members` are extension members."""
    status, title, _ = TYPES[kind]
    content = {"type": TYPE_ROOT + kind, "title": title, "status": status, "detail": detail, **members}
    if errors:
        content["errors"] = [
            {"pointer": "#" + quote(fault.pointer, _FRAGMENT), "detail": fault.detail} for fault in errors
        ]
    sent = {"content-type": "application/problem+json", **(headers or {})}
    if retry_after is not None:
        sent["retry-after"] = str(math.ceil(retry_after))
    return Reply(status, msgspec.json.encode(content), sent)


async def answered(work: Awaitable[Reply]) -> Reply:
    """Return the reply that a handler makes, or the problem response for what it raises on purpose."""
    try:
        return await work
    except RefusedError as exc:
        return problem(exc.kind, exc.detail, **exc.options)
    except (SettingsError, ResourceError) as exc:
        what = "shared/partner.py is" if isinstance(exc, ResourceError) else "The app settings are"
        faults = [Fault("", sentence) for sentence in exc.problems]
        return problem("configuration", f"{what} not usable.", errors=faults)
