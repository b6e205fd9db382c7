from __future__ import annotations

import asyncio
import gzip
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from shared.api.http_exchange import exchange_of
from shared.api.transport import RelayClient, create_client
from shared.auth.bearer_auth import BearerAuth
from shared.auth.token_provider import TokenProvider
from tests.fakes.numbered_grant import NumberedGrant
from tests.fakes.raw_server import RawServer, answering, response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.raw_server import Connection

POST = {"content-type": "application/json", "idempotency-key": "k"}


@asynccontextmanager
async def calling(auth: BearerAuth | None = None) -> AsyncIterator[RelayClient]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with create_client(timeout=20, max_connections=10, tls=tls, auth=auth) as client:
        yield client


PATH = "/c%3Bd/"


def url_of(server: RawServer) -> str:
    return server.url + "/a%3Bb"


async def test_a_request_carries_what_it_was_given_and_nothing_of_anybodys_session() -> None:
    auth = BearerAuth(TokenProvider(NumberedGrant()))
    async with RawServer(answering(response(b"hi"))) as server, calling(auth) as client:
        reply = await exchange_of(client, url_of(server))("POST", PATH, POST, b"{}")
        (request,) = server.requests
    assert (reply.status, reply.body, reply.headers["CONTENT-length"]) == (200, b"hi", "2")
    assert (request.method, request.target, request.body) == ("POST", "/a%3Bb/c%3Bd/", b"{}")
    assert sorted(request.headers) == [
        ("accept", "application/json, application/problem+json"),
        ("accept-encoding", "gzip, deflate"),
        ("authorization", "Bearer token-1"),
        ("content-length", "2"),
        ("content-type", "application/json"),
        ("host", f"127.0.0.1:{server.port}"),
        ("idempotency-key", "k"),
        ("user-agent", "business-relay"),
    ]


async def test_a_reply_shows_no_token() -> None:
    auth = BearerAuth(TokenProvider(NumberedGrant()))
    async with RawServer(answering(response())) as server, calling(auth) as client:
        reply = await client.exchange_with(url_of(server))("GET", PATH, {})
    assert reply.authorization == "Bearer token-1"
    assert "token-1" not in repr(reply)


async def test_a_client_without_authentication_sends_no_token() -> None:
    async with RawServer(answering(response())) as server, calling() as client:
        reply = await client.exchange_with(url_of(server))("GET", PATH, {})
        (request,) = server.requests
    assert reply.authorization is None
    assert request.values("authorization") == []


async def test_no_request_and_no_token_goes_to_another_origin() -> None:
    auth = BearerAuth(TokenProvider(NumberedGrant()), origin="https://partner.example")
    async with RawServer(answering(response())) as server, calling(auth) as client:
        with pytest.raises(ValueError, match=r"the access token is for https://partner.example:443, not for http://"):
            client.exchange_with(url_of(server))
        assert server.connections == 0


@pytest.mark.parametrize("port", ["", ":443"])
async def test_the_port_of_the_scheme_is_the_same_origin_named_or_not(port: str) -> None:
    auth = BearerAuth(TokenProvider(NumberedGrant()), origin=f"https://127.0.0.1{port}")
    with pytest.raises(httpx.HTTPError):  # nothing answers there, but it was asked
        async with calling(auth) as client:
            await client.exchange_with("https://127.0.0.1")("GET", PATH, {})


@pytest.mark.parametrize(
    ("challenges", "tokens"),
    [
        ([], ["token-1", "token-2"]),
        (["Bearer"], ["token-1", "token-2"]),
        (['Bearer error="invalid_token"'], ["token-1", "token-2"]),
        (['Bearer error="insufficient_scope"'], ["token-1"]),
        (["Basic", 'Bearer error="insufficient_scope"'], ["token-1"]),
        (['Bearer error="insufficient_scope"', 'Bearer error="invalid_token"'], ["token-1", "token-2"]),
    ],
)
async def test_a_401_is_answered_with_another_token_once_unless_it_is_not_about_the_token(
    challenges: list[str], tokens: list[str]
) -> None:
    refusal = response(b"no", *(f"WWW-Authenticate: {value}" for value in challenges), status="401 Unauthorized")
    auth = BearerAuth(TokenProvider(NumberedGrant()))
    async with RawServer(answering(refusal)) as server, calling(auth) as client:
        reply = await client.exchange_with(url_of(server))("POST", PATH, POST, b"{}")
        requests = server.requests
    assert (reply.status, reply.body, reply.authorization) == (401, b"no", f"Bearer {tokens[-1]}")
    assert [request.values("authorization") for request in requests] == [[f"Bearer {token}"] for token in tokens]
    assert [request.body for request in requests] == [b"{}"] * len(tokens)


async def test_concurrent_calls_whose_token_is_refused_share_one_new_token() -> None:
    async def serve(connection: Connection) -> None:
        while True:
            request = await connection.read_request()
            is_old = request.values("authorization") == ["Bearer token-1"]
            await connection.send(response(status="401 Unauthorized" if is_old else "201 Created"))

    grant = NumberedGrant()
    async with RawServer(serve) as server, calling(BearerAuth(TokenProvider(grant))) as client:
        exchange = client.exchange_with(url_of(server))
        replies = await asyncio.gather(*(exchange("POST", PATH, POST, b"{}") for _ in range(20)))
    assert {reply.status for reply in replies} == {201}
    assert {reply.authorization for reply in replies} == {"Bearer token-2"}


async def test_an_encoded_body_is_decoded() -> None:
    encoded = response(gzip.compress(b"text", mtime=0), "Content-Encoding: gzip")
    async with RawServer(answering(encoded)) as server, calling() as client:
        assert (await client.exchange_with(url_of(server))("GET", PATH, {})).body == b"text"


async def test_an_error_shows_headers_that_came_twice_as_one() -> None:
    twice = response(b"", "WWW-Authenticate: Basic", "WWW-Authenticate: Bearer", status="403 Forbidden")
    async with RawServer(answering(twice)) as server, calling() as client:
        reply = await client.exchange_with(url_of(server))("GET", PATH, {})
    assert reply.headers.get("www-authenticate") == "Basic, Bearer"


async def test_any_httpx_client_can_be_the_api_clients() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(201, json={"id": 7})

    auth = BearerAuth(TokenProvider(NumberedGrant()))
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), auth=auth) as client:
        reply = await exchange_of(client, "https://partner.example/a%3Bb")("POST", PATH, POST, b"{}")
    (request,) = requests
    assert (reply.status, reply.body, reply.authorization) == (201, b'{"id":7}', "Bearer token-1")
    assert (request.url.raw_path, request.content, request.headers["idempotency-key"]) == (b"/a%3Bb/c%3Bd/", b"{}", "k")


async def test_a_streamed_request_is_sent_as_it_comes() -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with RawServer(answering(response(b"hi"))) as server, calling() as client:
        answer = await client.post(server.url, content=parts(), headers={"content-length": "6"})
        (request,) = server.requests
    assert answer.content == b"hi"
    assert request.body == b"onetwo"


async def test_a_streamed_request_of_unknown_length_is_chunked() -> None:
    body: list[bytes] = []

    async def serve(connection: Connection) -> None:
        request = await connection.read_request()
        assert request.values("transfer-encoding") == ["chunked"]
        while not b"".join(body).endswith(b"0\r\n\r\n"):
            body.append(await connection.read())
        await connection.send(response(b"hi"))

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async with RawServer(serve) as server, calling() as client:
        assert (await client.post(server.url, content=parts())).content == b"hi"
    assert b"".join(body) == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
