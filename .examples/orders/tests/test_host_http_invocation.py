from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.requests import Request

from sandbox.host.errors import BodyTooLargeError
from sandbox.host.http_invocation import read_body, request_data, response_from_data
from sandbox.host.messages import RpcHttp, RpcHttpCookie, TypedData

if TYPE_CHECKING:
    from starlette.types import Message


def request(
    *chunks: bytes, headers: tuple[tuple[str, str], ...] = (), query: str = "", method: str = "POST"
) -> Request:
    messages: list[Message] = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Message:
        return messages.pop(0)

    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": "/",
        "raw_path": b"/api/a%20b",
        "root_path": "",
        "scheme": "http",
        "server": ("127.0.0.1", 7071),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }
    return Request(scope, receive)


async def data(made: Request) -> RpcHttp:
    value = await request_data(made, {"id": "1", "empty": ""})
    assert value.http is not None
    return value.http


async def test_joins_repeated_headers_and_query_values_and_drops_empty_ones() -> None:
    headers = (("Accept", "a"), ("accept", "b"), ("X-Empty", ""))
    http = await data(request(headers=headers, query="q=1&Q=2&r=&s=%C3%A4"))
    assert http.headers == {"accept": "a,b"}
    assert http.query == {"q": "1,2", "s": "ä"}
    assert http.params == {"id": "1"}


async def test_gives_the_url_under_which_the_caller_reached_the_host() -> None:
    http = await data(request(headers=(("Host", "example.com:8443"),), query="a=b"))
    assert http.url == "http://example.com:8443/api/a%20b?a=b"


async def test_gives_a_body_as_bytes_or_none() -> None:
    assert (await data(request(b"a", b"b"))).body == TypedData(bytes=b"ab")
    assert (await data(request())).body == TypedData()


async def test_reads_a_body_up_to_the_limit() -> None:
    assert await read_body(request(b"abc", b"de"), limit=5) == b"abcde"


@pytest.mark.parametrize(
    "made", [request(b"abc", b"def"), request(headers=(("content-length", "6"),))], ids=["sent", "announced"]
)
async def test_refuses_a_body_above_the_limit(made: Request) -> None:
    with pytest.raises(BodyTooLargeError):
        await read_body(made, limit=5)


def http_value(**fields: Any) -> TypedData:  # noqa: ANN401 - any field of the message
    return TypedData(http=RpcHttp(**{"status_code": "200", **fields}))


def test_leaves_the_framing_to_the_server() -> None:
    value = http_value(headers={"Content-Length": "99", "Transfer-Encoding": "chunked"}, body=TypedData(bytes=b"x"))
    headers = response_from_data(value).headers
    assert headers["content-length"] == "1"
    assert "transfer-encoding" not in headers


def test_writes_cookies() -> None:
    plain = RpcHttpCookie(name="a", value="1")
    full = RpcHttpCookie(
        name="b",
        value="2",
        domain="example.com",
        path="/",
        expires=0,
        secure=True,
        http_only=True,
        same_site="strict",
        max_age=1.0,
    )
    written = response_from_data(http_value(cookies=[plain, full])).headers.getlist("set-cookie")
    assert written[0] == "a=1"
    assert written[1] == (
        "b=2; expires=Thu, 01 Jan 1970 00:00:00 GMT; max-age=1; domain=example.com; path=/"
        "; secure; samesite=strict; httponly"
    )


@pytest.mark.parametrize(
    "value",
    [
        None,
        TypedData(),
        TypedData(int=5),
        http_value(headers={"a": "\u00e9"}),
        http_value(status_code="99"),
        http_value(status_code="600"),
        http_value(status_code="odd"),
        http_value(headers={"a b": "1"}),
        http_value(headers={"a": "1\r\nb: 2"}),
        http_value(headers={"a": "\u20ac"}),
        http_value(cookies=[RpcHttpCookie(name="a", value="1\n")]),
    ],
)
def test_refuses_what_http_cannot_carry(value: TypedData | None) -> None:
    with pytest.raises(ValueError, match=r"status|header|invalid literal|response"):
        response_from_data(value)
