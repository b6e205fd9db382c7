"""ResourceApi: the API of one partner as Python methods."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.auth.redaction import Redactor
from shared.client.responses import read_response
from shared.client.transport import NOT_SENT
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    BodyTooLargeError,
    ContentEncodingError,
    TokenUnavailableError,
)
from shared.rules.content_encoding import body_of
from shared.rules.record import IDEMPOTENCY_KEY, at_pointer, named_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.resource import ApiResponse, LookUp, Post, Resource
    from shared.rules.record import CheckedRecord
    from shared.telemetry import Telemetry

MAX_BODY = 1024 * 1024
"""Bytes of a response's body after decompression: 16 times the largest record. A hundred may arrive at a time."""

POOL_SHARE = 0.8
"""The part of a call's timeout in which a connection must be free: who waits longer learns that nothing was sent."""

# Seconds for a new connection, with TLS and the proxy's answer.
_CONNECT_TIMEOUT = 5.0
_HEADERS = {
    "accept": "application/json, application/problem+json",
    "accept-encoding": "gzip",  # some servers send "deflate" without the zlib format around it
    "user-agent": "business-relay",
}
# `traceparent` and `tracestate` alone: the baggage is the app's own.
_PROPAGATOR = TraceContextTextMapPropagator()


class ResourceApi:
    """The API of one partner; one instance serves any number of concurrent calls on one event loop.

    `auth` attaches the access token. `timeout` is the seconds for a whole call, the wait for a token and a second
    attempt with another token included. `headers` are sent with every request. With `telemetry` (None: nobody takes
    spans) each call is a span, and the partner gets its trace context.

    No method raises for a status. All raise `TokenError` if no access token can be had, `ApiConnectError` if the
    request was not sent, and `ApiInterruptedError` if it may have been sent and there is no whole response.
    """

    def __init__(  # noqa: PLR0913, each is one thing
        self,
        transport: httpx.AsyncBaseTransport,
        auth: httpx.Auth,
        base_url: str,
        *,
        timeout: float,
        headers: Mapping[str, str] | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self.telemetry = telemetry
        self._transport = transport
        self._auth = auth
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._extensions = {"timeout": {"pool": POOL_SHARE * timeout, "connect": min(_CONNECT_TIMEOUT, timeout)}}
        self._headers = headers or {}
        # By the id of a description, which its entry keeps alive: the headers, and the URL unless the id is part of it.
        self._endpoints: dict[int, tuple[Post | LookUp, list[tuple[bytes, bytes]], httpx.URL | None]] = {}
        url = httpx.URL(base_url)
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        self._server: dict[str, str | int] = {"server.address": url.host, "server.port": port}
        self._redactor: tuple[tuple[str, ...], Redactor] = ((), Redactor([]))

    async def post(self, resource: Resource, record: CheckedRecord, *, idempotency_key: str) -> ApiResponse:
        """Send a record with POST or PUT. All attempts at one delivery carry the same `idempotency_key`.

        If a success names another record's id, the connection is closed: the response belongs to another request.
        """
        headers, url = self._endpoint(resource, resource.post)
        headers = [*headers, (b"content-length", b"%d" % len(record.text))]
        if resource.idempotency_header is not None:
            key = idempotency_key if IDEMPOTENCY_KEY.fullmatch(idempotency_key) else quote(idempotency_key, safe="")
            headers.append((resource.idempotency_header.encode(), key.encode()))
        url = url or httpx.URL(self._base_url + resource.post.target(record.id))
        response, answer = await self._call(resource.post.method, resource.post.path, url, headers, record.text)
        if answer.is_success and answer.content is not None:
            _close_if_other(response, named_id(resource, answer.content), record.id)
        return answer

    async def look_up(self, resource: Resource, id_: str) -> ApiResponse:
        """Look a record up by its id. If the answer is one record with another id, the connection is closed."""
        look_up = resource.look_up
        if look_up is None:
            raise ValueError(f"Resource {resource.name} has no look-up")
        headers, url = self._endpoint(resource, look_up)
        url = url or httpx.URL(self._base_url + look_up.target(id_))
        response, answer = await self._call("GET", look_up.path, url, headers)
        if answer.is_success and answer.content is not None:
            _close_if_other(response, named_id(resource, at_pointer(answer.content, look_up.items)), id_)
        return answer

    async def probe(self) -> ApiResponse:
        """Ask for the base URL itself: any response shows that the partner answers."""
        headers = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        return (await self._call("GET", "/", httpx.URL(f"{self._base_url}/"), headers))[1]

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _endpoint(
        self, resource: Resource, description: Post | LookUp
    ) -> tuple[list[tuple[bytes, bytes]], httpx.URL | None]:
        endpoint = self._endpoints.get(id(description))
        if endpoint is None:
            named = {**_HEADERS}
            if description is resource.post:
                named["content-type"] = resource.post.media_type
            for headers in (self._headers, resource.partner.headers):
                named |= {name.lower(): value for name, value in headers.items()}
            encoded = [(name.encode(), value.encode()) for name, value in named.items()]
            is_fixed = description.target("a") == description.target("b")
            url = httpx.URL(self._base_url + description.target("")) if is_fixed else None
            endpoint = self._endpoints[id(description)] = description, encoded, url
        return endpoint[1:]

    async def _call(
        self, method: str, path: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> tuple[httpx.Response, ApiResponse]:
        # With `stream` httpx adds no headers, which takes a third of the time.
        request = httpx.Request(
            method, url, headers=headers, stream=httpx.ByteStream(body), extensions=self._extensions
        )
        if self.telemetry is None:
            return await self._send(request)
        with self.telemetry.span(f"{method} {path}", {"http.request.method": method, **self._server}) as span:
            context: dict[str, str] = {}
            _PROPAGATOR.inject(context)
            request.headers.update(context)
            response, answer = await self._send(request)
            span.set_attribute("http.response.status_code", answer.status)
            # That a record is not there yet is what a look-up before the first post is to find.
            is_absent = answer.status == 404 and method == "GET"  # noqa: PLR2004, not found
            if answer.status >= 400 and not is_absent:  # noqa: PLR2004, errors begin here
                span.set_attribute("error.type", str(answer.status))
                span.set_status(StatusCode.ERROR)
            return response, answer

    async def _send(self, request: httpx.Request) -> tuple[httpx.Response, ApiResponse]:
        """Send a request, and others that the auth flow asks for, and read the last response."""
        is_sent = False
        refused: tuple[str, ...] = ()
        flow = self._auth.async_auth_flow(request)
        try:
            async with asyncio.timeout(self._timeout):
                request = await anext(flow)
                while True:
                    is_sent = True
                    response = await self._transport.handle_async_request(request)
                    body = await body_of(response, MAX_BODY)
                    is_sent = False
                    seen = response
                    if response.status_code in {401, 403}:  # the auth flow looks into these
                        refused += (request.headers.get("authorization", ""),)
                        seen = _read_already(response, body, request)
                    try:
                        request = await flow.asend(seen)
                    except StopAsyncIteration:
                        break
        except NOT_SENT as exc:
            raise ApiConnectError(f"The API cannot be reached: {_reason(exc)}") from exc
        except (httpx.HTTPError, httpx.StreamError) as exc:
            raise ApiInterruptedError(f"The API gave no whole response: {_reason(exc)}") from exc
        except ContentEncodingError as exc:
            is_long = isinstance(exc, BodyTooLargeError)
            what = f"has more than {MAX_BODY} bytes" if is_long else "is not encoded as it was asked for"
            # Without the cause, which repeats the header of the response.
            raise ApiInterruptedError(f"The API gave no usable response: its body {what}") from None
        except TimeoutError:
            if not is_sent:
                raise TokenUnavailableError(f"none came within the {self._timeout:g} s of a call") from None
            raise ApiInterruptedError(f"The API gave no whole response within {self._timeout:g} s") from None
        finally:
            await flow.aclose()
        sent = (*refused, request.headers.get("authorization", ""))
        redactor = None if response.is_success else self._redactor_for(sent)
        return response, read_response(response.status_code, response.headers, body, redactor=redactor)

    def _redactor_for(self, authorizations: tuple[str, ...]) -> Redactor:
        """Return what removes the tokens of these headers; many calls have the same one."""
        if authorizations != self._redactor[0]:
            self._redactor = authorizations, Redactor(header.partition(" ")[2] for header in authorizations)
        return self._redactor[1]


def _close_if_other(response: httpx.Response, named: str | None, id_: str) -> None:
    """Close the connection of an answer that names another record: each answer on it may be that to another request."""
    close = response.extensions.get("close_connection")
    if named is not None and named != id_ and close is not None:
        close()


def _read_already(response: httpx.Response, body: bytes, request: httpx.Request) -> httpx.Response:
    """Return a response whose body an auth flow can read again; httpx would decode it a second time."""
    headers = [pair for pair in response.headers.raw if pair[0].lower() not in {b"content-encoding", b"content-length"}]
    return httpx.Response(response.status_code, headers=headers, content=body, request=request)


def _reason(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
