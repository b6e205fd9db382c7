"""ResourceApi: the API of one partner as Python methods."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

import httpx
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.auth.redaction import Redactor
from shared.client.connection_guard import close_connection
from shared.client.responses import read_response
from shared.client.transport import CONNECT_TIMEOUT, NOT_SENT
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    BodyTooLargeError,
    ContentEncodingError,
    TokenUnavailableError,
)
from shared.rules.record import IDEMPOTENCY_KEY, at_pointer, named_id
from shared.telemetry import process_telemetry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.resource import ApiResponse, LookUp, Post, Resource
    from shared.rules.record import CheckedRecord
    from shared.telemetry import Telemetry

POOL_SHARE = 0.8
"""The part of a call's timeout in which a connection must be free: who waits longer learns that nothing was sent."""

_HEADERS = {
    "accept": "application/json, application/problem+json",
    "accept-encoding": "gzip",  # some servers send "deflate" without the zlib format around it
    "user-agent": "business-relay",
}
# `traceparent` and `tracestate` alone: the baggage is the app's own.
_PROPAGATOR = TraceContextTextMapPropagator()


class ResourceApi:
    """The API of one partner; one instance serves any number of concurrent calls on one event loop.

    `auth` attaches the access token, and sees no response's body. `timeout` is the seconds for a whole call, the wait
    for a token and a second attempt with another token included. `headers` are sent with every request. Each call is a
    span if anybody takes spans, and the partner gets its trace context.

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
        self._telemetry = telemetry or process_telemetry()
        self._is_traced = self._telemetry.has_listener
        self._transport = transport
        self._auth = auth
        self._base_url = base_url.rstrip("/")
        self._timeout = timeout
        self._extensions = {"timeout": {"pool": POOL_SHARE * timeout, "connect": min(CONNECT_TIMEOUT, timeout)}}
        self._headers = _HEADERS | {name.lower(): value for name, value in (headers or {}).items()}
        # By the id of a description, which its entry keeps alive: its headers, and its URL unless an id is part of it.
        self._endpoints: dict[int, tuple[Post | LookUp, list[tuple[bytes, bytes]], httpx.URL | None]] = {}
        url = httpx.URL(base_url)
        port = url.port or {"http": 80, "https": 443}.get(url.scheme, 0)
        self._server: dict[str, str | int] = {"server.address": url.host, "server.port": port}

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
        answer = await self._call(resource.post.method, resource.post.path, url, headers, record.text)
        _close_if_other(resource, answer, "", record.id)
        return answer

    async def look_up(self, resource: Resource, id_: str) -> ApiResponse:
        """Look a record up by its id. If the answer is one record with another id, the connection is closed."""
        look_up = resource.look_up
        if look_up is None:
            raise ValueError(f"Resource {resource.name} has no look-up")
        headers, url = self._endpoint(resource, look_up)
        url = url or httpx.URL(self._base_url + look_up.target(id_))
        answer = await self._call("GET", look_up.path, url, headers)
        _close_if_other(resource, answer, look_up.items, id_)
        return answer

    async def probe(self) -> None:
        """Ask for the base URL itself: any response shows that the partner answers, but for 5xx: an interruption."""
        response = await self._call("GET", "/", httpx.URL(f"{self._base_url}/"), _encoded(self._headers))
        if response.status >= 500:  # noqa: PLR2004, RFC 9110 section 15.6
            raise ApiInterruptedError(f"The API answered {response.status} to GET of its base URL")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _endpoint(
        self, resource: Resource, description: Post | LookUp
    ) -> tuple[list[tuple[bytes, bytes]], httpx.URL | None]:
        endpoint = self._endpoints.get(id(description))
        if endpoint is None:
            own = {"content-type": resource.post.media_type} if description is resource.post else {}
            is_fixed = description.target("a") == description.target("b")
            url = httpx.URL(self._base_url + description.target("")) if is_fixed else None
            endpoint = self._endpoints[id(description)] = description, _encoded(self._headers | own), url
        return endpoint[1:]

    async def _call(
        self, method: str, path: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], body: bytes = b""
    ) -> ApiResponse:
        # With `stream` httpx adds no headers, which takes a third of the time.
        request = httpx.Request(
            method, url, headers=headers, stream=httpx.ByteStream(body), extensions=self._extensions
        )
        if not self._is_traced:
            return await self._send(request)
        with self._telemetry.span(f"{method} {path}", {"http.request.method": method, **self._server}) as span:
            context: dict[str, str] = {}
            _PROPAGATOR.inject(context)
            request.headers.update(context)
            answer = await self._send(request)
            span.set_attribute("http.response.status_code", answer.status)
            # That a record is not there yet is what a look-up before the first post is to find.
            is_absent = answer.status == 404 and method == "GET"  # noqa: PLR2004, not found
            if answer.status >= 400 and not is_absent:  # noqa: PLR2004, errors begin here
                span.set_attribute("error.type", str(answer.status))
                span.set_status(StatusCode.ERROR)
            return answer

    async def _send(self, request: httpx.Request) -> ApiResponse:
        """Send a request, and others that the auth flow asks for, and read the last response."""
        is_sent = False
        sent: list[str] = []
        flow = self._auth.async_auth_flow(request)
        try:
            async with asyncio.timeout(self._timeout):
                request = await anext(flow)
                while True:
                    sent.append(request.headers.get("authorization", ""))
                    is_sent = True
                    response = await self._transport.handle_async_request(request)
                    body = b"".join(cast("httpx.ByteStream", response.stream))
                    is_sent = False
                    try:
                        request = await flow.asend(response)
                    except StopAsyncIteration:
                        break
        except NOT_SENT as exc:
            raise ApiConnectError(f"The API cannot be reached: {_reason(exc)}") from exc
        except httpx.HTTPError as exc:
            raise ApiInterruptedError(f"The API gave no whole response: {_reason(exc)}") from exc
        except BodyTooLargeError as exc:
            raise ApiInterruptedError(f"The API gave no usable response: {exc}") from None
        except ContentEncodingError:  # its text repeats a header of the response
            text = "The API gave no usable response: its body is not encoded as it was asked for"
            raise ApiInterruptedError(text) from None
        except TimeoutError:
            if not is_sent:
                raise TokenUnavailableError(f"none came within the {self._timeout:g} s of a call") from None
            raise ApiInterruptedError(f"The API gave no whole response within {self._timeout:g} s") from None
        finally:
            await flow.aclose()
        redactor = None if response.is_success else _redactor_of(*sent)
        return read_response(response.status_code, response.headers, body, redactor=redactor)


@functools.lru_cache(maxsize=8)
def _redactor_of(*authorizations: str) -> Redactor:
    """Return what removes the tokens of these headers; many calls have the same one."""
    return Redactor(header.partition(" ")[2] for header in authorizations)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _close_if_other(resource: Resource, answer: ApiResponse, pointer: str, id_: str) -> None:
    """Close the connection of an answer that names another record: each answer on it may be that to another request."""
    named = named_id(resource, at_pointer(answer.content, pointer)) if answer.is_success else None
    if named not in {None, id_}:
        close_connection()


def _reason(exc: Exception) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
