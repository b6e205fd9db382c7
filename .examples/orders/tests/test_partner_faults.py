"""Every fault of the partner, over real sockets, and what a fault must look like."""

from __future__ import annotations

import asyncio
import json
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Literal

import httpx
import msgspec
import pytest

from sandbox.partner.faults import (
    Alter,
    Cached,
    Challenge,
    Concurrency,
    Drop,
    Duplicate,
    Hold,
    InUse,
    Late,
    Latency,
    Limit,
    Normalise,
    Status,
    faults_from_json,
)
from tests.fakes.passing_time import let_pass
from tests.partner_client import PATIENCE, running_partner, until

if TYPE_CHECKING:
    from sandbox.partner.faults import AnyFault, Stage


async def test_latency_makes_a_request_wait() -> None:
    async with running_partner(faults=(Latency(route="post", seconds=0.05, times=1),)) as partner:
        await partner.token()
        started = time.perf_counter()
        response = await partner.post()

    assert response.status_code == 201
    assert time.perf_counter() - started >= 0.05


def test_latency_lies_between_its_two_numbers() -> None:
    fault = Latency(route="api", seconds=(0.1, 0.5))

    assert [fault.duration(fraction) for fraction in (0.0, 0.5, 1.0)] == pytest.approx([0.1, 0.3, 0.5])
    assert Latency(route="api", seconds=2).duration(0.7) == 2


async def test_latency_after_the_record_is_stored_lets_the_client_give_up_in_doubt() -> None:
    async with running_partner(faults=(Latency(route="post", stage="after", seconds=600),)) as partner:
        await partner.token()
        post = asyncio.create_task(partner.post())

        async def it_is_stored() -> bool:
            return bool((await partner.records())["count"] == 1)

        await until(it_is_stored)
        await let_pass(PATIENCE)
        with pytest.raises(httpx.ReadTimeout):
            await post
        assert await it_is_stored()


@pytest.mark.parametrize("status", [400, 409, 422, 429, 500, 502, 503, 504])
async def test_answers_a_status_in_place_of_storing(status: int) -> None:
    async with running_partner(faults=(Status(route="post", status=status, times=1),)) as partner:
        await partner.token()
        failed, created = await partner.post(), await partner.post()
        records, counters = await partner.records(), await partner.counters()

    assert (failed.status_code, created.status_code) == (status, 201)
    assert failed.headers["content-type"] == "application/problem+json"
    assert failed.json()["status"] == status
    assert "retry-after" not in failed.headers
    assert records["count"] == 1
    assert counters["post_outcomes"] == {str(status): 1, "201": 1}


async def test_answers_a_status_although_the_record_is_stored() -> None:
    async with running_partner(faults=(Status(route="post", stage="after", status=500),)) as partner:
        await partner.token()
        response = await partner.post()
        records, counters = await partner.records(), await partner.counters()

    assert (response.status_code, records["count"]) == (500, 1)
    assert (counters["post_outcomes"], counters["records_stored"]) == ({"500": 1}, 1)


@pytest.mark.parametrize(("seconds", "expected"), [(0, "0"), (7, "7"), (1.5, "1.5"), (1_000_000, "1000000")])
async def test_names_the_time_to_retry_after_in_seconds(seconds: float, expected: str) -> None:
    async with running_partner(faults=(Status(route="any", status=429, retry_after=seconds),)) as partner:
        response = await partner.get()

    assert (response.status_code, response.headers["retry-after"]) == (429, expected)


async def test_names_the_time_to_retry_after_as_a_date() -> None:
    fault = Status(route="any", status=503, retry_after=3600, retry_after_as="date")
    async with running_partner(faults=(fault,)) as partner:
        before = time.time()
        response = await partner.get()

    moment = parsedate_to_datetime(response.headers["retry-after"]).timestamp()
    assert before + 3599 <= moment <= time.time() + 3600


@pytest.mark.parametrize(
    ("fields", "content", "content_type"),
    [
        ({"body": {"title": "No"}}, b'{"title":"No"}', "application/json"),
        ({"body": "busy", "content_type": "text/plain"}, b"busy", "text/plain"),
        ({"body": "", "content_type": "text/plain"}, b"", "text/plain"),
        ({"headers": {"X-A": "1", "Retry-After": "soon"}, "body": []}, b"[]", "application/json"),
    ],
)
async def test_a_status_can_have_any_body_and_headers(
    fields: dict[str, Any], content: bytes, content_type: str
) -> None:
    async with running_partner() as partner:
        await partner.set_faults({"fault": "status", "route": "get", "status": 400, **fields})
        response = await partner.get()

    assert response.status_code == 400
    assert (response.content, response.headers["content-type"]) == (content, content_type)
    assert {name: response.headers[name] for name in fields.get("headers", {})} == fields.get("headers", {})


@pytest.mark.parametrize("status", [204, 304])
async def test_a_status_that_has_no_body_is_sent_without_one(status: int) -> None:
    async with running_partner(faults=(Status(route="get", status=status),)) as partner:
        responses = [await partner.get(), await partner.get()]

    assert [(response.status_code, response.content) for response in responses] == [(status, b"")] * 2


@pytest.mark.parametrize(("how", "error"), [("reset", httpx.ReadError), ("close", httpx.RemoteProtocolError)])
@pytest.mark.parametrize(("stage", "stored"), [("before", 0), ("after", 1)])
async def test_drops_the_connection(
    how: Literal["reset", "close"], error: type[Exception], stage: Stage, stored: int
) -> None:
    async with running_partner(faults=(Drop(route="post", how=how, stage=stage, times=1),)) as partner:
        await partner.token()
        with pytest.raises(error):
            await partner.post("b-1", key="k")
        records, counters = await partner.records(), await partner.counters()
        again = await partner.post("b-1", key="k")
        after = await partner.records()

    assert (records["count"], after["count"]) == (stored, 1)
    assert again.headers.get("idempotency-replayed") == ("true" if stored else None)
    assert (counters["posts"], counters["post_outcomes"]) == (1, {"dropped": 1})
    assert (counters["connections_dropped"], counters["records_stored"]) == (1, stored)


async def test_a_dropped_connection_is_nothing_but_closed(caplog: pytest.LogCaptureFixture) -> None:
    async with running_partner(faults=(Drop(route="any", how="close"),)) as partner:
        host, port = partner.address
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET /carrier-api/parcels/x HTTP/1.1\r\nHost: x\r\n\r\n")
        received = await reader.read()
        writer.close()
        await writer.wait_closed()

    assert received == b""
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_sends_half_an_answer() -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.set_faults({"fault": "garble", "route": "post", "kind": "half", "times": 1})
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            await partner.post()
        records, counters = await partner.records(), await partner.counters()

    assert records["count"] == 1
    assert (counters["post_outcomes"], counters["connections_dropped"]) == ({"half": 1}, 1)


@pytest.mark.parametrize(
    ("kind", "content_type", "content"),
    [
        ("cut", "application/json", b'{"id":"record-1","parce'),
        ("html", "text/html; charset=utf-8", b"<!doctype html>"),
        ("text", "text/plain; charset=utf-8", b'{"id":"record-1","parcelId":"b-1","weight":1.5}'),
        ("empty", "application/json", b""),
    ],
)
async def test_garbles_a_successful_answer(kind: str, content_type: str, content: bytes) -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.set_faults({"fault": "garble", "route": "api", "kind": kind})
        missing, created, found = await partner.get(), await partner.post(), await partner.get()

    assert (missing.status_code, missing.json()["status"]) == (404, 404)
    assert (created.status_code, found.status_code) == (201, 200)
    assert created.headers["content-type"] == content_type
    assert created.content.startswith(content)
    assert (created.content == b"") == (kind == "empty")
    assert found.content == created.content


async def test_alters_the_members_of_an_answer() -> None:
    async with running_partner() as partner:
        await partner.set_faults(
            {"fault": "alter", "route": "token", "omit": ["access_token"], "times": 1},
            {"fault": "alter", "route": "token", "put": {"expires_in": "soon", "x": None}, "skip": 1, "times": 1},
        )
        bodies = [(await partner.request_token()).json() for _ in range(3)]

    assert bodies[0] == {"token_type": "Bearer", "expires_in": 3600}
    assert bodies[1].keys() == {"access_token", "token_type", "expires_in", "x"}
    assert (bodies[1]["expires_in"], bodies[1]["x"]) == ("soon", None)
    assert bodies[2]["expires_in"] == 3600


async def test_leaves_an_answer_alone_that_is_spoilt_already() -> None:
    async with running_partner() as partner:
        await partner.set_faults(
            {"fault": "garble", "route": "token", "kind": "html"}, {"fault": "alter", "route": "token", "put": {"a": 1}}
        )
        response = await partner.request_token()

    assert response.text.startswith("<!doctype html>")


async def test_revokes_the_token_that_a_request_carries() -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.set_faults({"fault": "revoke", "route": "post", "skip": 1, "times": 1})
        statuses = [(await partner.post()).status_code for _ in range(3)]
        await partner.token()
        renewed = await partner.post()
        await partner.set_faults({"fault": "revoke", "route": "api"})
        del partner.http.headers["Authorization"]
        without = await partner.post()

    assert statuses == [201, 401, 401]
    assert (renewed.status_code, without.status_code) == (201, 401)


@pytest.mark.parametrize(("stage", "stored"), [("before", 0), ("after", 1)])
async def test_holds_a_request_until_its_gate_is_opened(stage: Stage, stored: int) -> None:
    async with running_partner(faults=(Hold(route="post", gate="g", stage=stage, record="b-1"),)) as partner:
        await partner.token()
        held = asyncio.create_task(partner.post("b-1"))
        await partner.waiting("g")
        passing = await partner.post("b-2")
        meanwhile, counters = await partner.records(), await partner.counters()
        opened = await partner.control.post("/sandbox/gates/g/open")
        response = await held
        through = await partner.post("b-1")

    assert (passing.status_code, response.status_code, through.status_code) == (201, 201, 201)
    assert meanwhile["ids"]["Parcel"].get("b-1", 0) == stored
    assert (counters["posts"], counters["post_outcomes"]) == (2, {"201": 1})
    assert opened.json() == {"released": 1}


async def test_a_gate_can_be_opened_early_and_closed_again() -> None:
    async with running_partner(faults=(Hold(route="post", gate="g"),)) as partner:
        await partner.token()
        await partner.control.post("/sandbox/gates/g/open")
        assert (await partner.post("b-1")).status_code == 201
        assert (await partner.control.post("/sandbox/gates/g/close")).status_code == 200
        held = asyncio.create_task(partner.post("b-2"))
        await partner.waiting("g")
        gates = (await partner.control.get("/sandbox/gates")).json()
        opened = await partner.control.post("/sandbox/gates/g/open")
        await held

    assert gates == {"g": {"open": False, "waiting": 1}}
    assert opened.json() == {"released": 1}


async def test_counts_a_client_that_went_away_while_it_was_held() -> None:
    async with running_partner(faults=(Hold(route="post", stage="after", gate="g"),)) as partner:
        await partner.token()
        held = asyncio.create_task(partner.post("b-1", key="k"))
        await partner.waiting("g")
        held.cancel()
        # The partner has seen the end of the connection when it answers a later one that was opened after it.
        await asyncio.gather(held, return_exceptions=True)
        await partner.counters()
        await partner.control.post("/sandbox/gates/g/open")

        async def counted() -> bool:
            return bool((await partner.counters())["clients_gone"] == 1)

        await until(counted)
        counters = await partner.counters()
        await partner.set_faults()
        again = await partner.post("b-1", key="k")

    assert counters["post_outcomes"] == {"client_gone": 1}
    assert (counters["records_stored"], counters["connections_dropped"]) == (1, 0)
    assert again.headers["idempotency-replayed"] == "true"


async def test_counts_a_client_that_went_away_before_its_body_was_sent() -> None:
    async with running_partner() as partner:
        host, port = partner.address
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /carrier-api/parcels HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()

        async def arrived() -> bool:
            return bool((await partner.counters())["posts"] == 1)

        await until(arrived)
        writer.close()
        await writer.wait_closed()

        async def counted() -> bool:
            return bool((await partner.counters())["clients_gone"] == 1)

        await until(counted)
        counters = await partner.counters()

    assert (counters["post_outcomes"], counters["without_token"]) == ({"client_gone": 1}, 1)


@pytest.mark.parametrize(
    "fault",
    [
        {"fault": "status", "status": 500},
        {"fault": "status", "status": 429, "retry_after": 3},
        {"fault": "status", "status": 400, "body": {"error": "invalid_client"}},
    ],
)
async def test_the_token_endpoint_can_fail(fault: dict[str, object]) -> None:
    async with running_partner() as partner:
        await partner.set_faults({**fault, "route": "token"})
        response = await partner.request_token()
        counters = await partner.counters()

    assert response.status_code == fault["status"]
    assert response.headers.get("retry-after") == ("3" if "retry_after" in fault else None)
    assert (counters["token_requests"], counters["tokens_issued"]) == (1, 0)
    assert counters["token_outcomes"] == {str(fault["status"]): 1}


async def test_the_token_endpoint_can_lose_its_answer() -> None:
    async with running_partner(faults=(Drop(route="token", stage="after"),)) as partner:
        with pytest.raises(httpx.ReadError):
            await partner.request_token()
        counters = await partner.counters()

    assert (counters["tokens_issued"], counters["token_outcomes"]) == (1, {"dropped": 1})


async def test_the_discovery_document_can_fail() -> None:
    async with running_partner(faults=(Status(route="discovery", status=503, times=1),)) as partner:
        statuses = [(await partner.http.get("/.well-known/openid-configuration")).status_code for _ in range(2)]

    assert statuses == [503, 200]


async def test_is_down_for_its_window_only() -> None:
    async with running_partner(faults=(Status(route="token", status=503, window=(0, 10)),)) as partner:
        statuses = []
        for _ in range(3):
            statuses.append((await partner.request_token()).status_code)
            partner.clock.advance(5)

    assert statuses == [503, 503, 200]


async def test_several_faults_hit_one_request_until_it_is_answered() -> None:
    async with running_partner() as partner:
        await partner.token()
        await partner.set_faults(
            {"fault": "latency", "route": "post", "seconds": 0.001},
            {"fault": "status", "route": "post", "status": 500, "times": 1},
            {"fault": "drop", "route": "post", "times": 1},
        )
        failed = await partner.post()
        fired = await partner.fired()
        with pytest.raises(httpx.ReadError):
            await partner.post()
        created = await partner.post()

    assert (failed.status_code, created.status_code) == (500, 201)
    assert fired == [1, 1, 0]


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ({"fault": "earthquake", "route": "any"}, "earthquake"),
        ({"fault": "drop", "route": "any", "often": 1}, "often"),
        ({"fault": "drop"}, "route"),
        ({"fault": "drop", "route": "put"}, "put"),
        ({"route": "any"}, "fault"),
        ({"fault": "drop", "route": "any", "stage": "later"}, "later"),
        ({"fault": "drop", "route": "any", "how": "slowly"}, "slowly"),
        ({"fault": "drop", "route": "any", "probability": 1.5}, "probability"),
        ({"fault": "drop", "route": "any", "times": 0}, "times"),
        ({"fault": "drop", "route": "any", "skip": -1}, "skip"),
        ({"fault": "drop", "route": "any", "window": [5, 5]}, "window"),
        ({"fault": "drop", "route": "any", "window": [-1, 5]}, "window"),
        ({"fault": "drop", "route": "token", "record": "x"}, "record"),
        ({"fault": "latency", "route": "any"}, "seconds"),
        ({"fault": "latency", "route": "any", "seconds": -1}, "seconds"),
        ({"fault": "latency", "route": "any", "seconds": [1, 2, 3]}, "seconds"),
        ({"fault": "hold", "route": "any", "gate": "a/b"}, "gate"),
        ({"fault": "status", "route": "any", "status": 199}, "status"),
        ({"fault": "status", "route": "any", "status": 503, "window": [2, 1]}, "window"),
        ({"fault": "status", "route": "any", "status": 503, "headers": {"a b": "x"}}, "a b"),
        ({"fault": "status", "route": "any", "status": 503, "headers": {"a": "x\r\ny"}}, "'a'"),
        ({"fault": "status", "route": "any", "status": 503, "headers": {"Content-Length": "1"}}, "Content-Length"),
        ({"fault": "status", "route": "any", "status": 503, "content_type": "a\n"}, "content_type"),
        ({"fault": "garble", "route": "any", "kind": "loud"}, "loud"),
        ({"fault": "garble", "route": "any", "kind": "cut", "stage": "before"}, "before"),
        ({"fault": "alter", "route": "any", "stage": "before"}, "before"),
        ({"fault": "revoke", "route": "token"}, "token"),
        ({"fault": "revoke", "route": "post", "stage": "after"}, "after"),
    ],
)
async def test_refuses_a_fault_that_it_does_not_know_and_names_what_is_wrong(
    fault: dict[str, object], names: str
) -> None:
    async with running_partner(faults=(Status(route="get", status=418),)) as partner:
        put = await partner.control.put("/sandbox/faults", json=[fault])
        post = await partner.control.post("/sandbox/faults", json=fault)
        kept = (await partner.control.get("/sandbox/faults")).json()

    assert [(response.status_code, names in response.json()["detail"]) for response in (put, post)] == [(400, True)] * 2
    assert [known["status"] for known in kept] == [418]


@pytest.mark.parametrize("body", [b"", b"{", b"[", b"7", b"\xff", b'[{"fault": "drop", "route": "any"}, 7]'])
async def test_refuses_what_is_no_list_of_faults(body: bytes) -> None:
    async with running_partner() as partner:
        response = await partner.control.put("/sandbox/faults", content=body)

    assert response.status_code == 400


def test_reads_what_it_has_written() -> None:
    faults = faults_from_json(
        json.dumps(
            [
                {"fault": "latency", "route": "api", "seconds": [0.1, 0.2], "record": "b-*"},
                {"fault": "status", "route": "post", "status": 429, "retry_after": 2, "probability": 0.1},
            ]
        ).encode()
    )

    assert faults_from_json(msgspec.json.encode(faults)) == faults
    assert faults_from_json(b' {"fault": "drop", "route": "get"}') == (Drop(route="get"),)


async def test_a_record_shows_up_late_in_look_ups() -> None:
    async with running_partner(faults=(Late(seconds=2),)) as partner:
        await partner.token()
        await partner.post()
        statuses = []
        for _ in range(3):
            statuses.append((await partner.get()).status_code)
            partner.clock.advance(1)

    assert statuses == [404, 404, 200]


@pytest.mark.parametrize("named", [None, 3])
async def test_a_key_is_in_use_from_its_arrival_until_its_answer(named: int | None) -> None:
    faults: tuple[AnyFault, ...] = (Hold(route="post", gate="g", times=1),)
    faults = faults if named is None else (*faults, InUse(retry_after=named))
    async with running_partner(faults=faults) as partner:
        await partner.token()
        first = asyncio.create_task(partner.post(key="k"))
        await partner.waiting("g")
        meanwhile = await partner.post(key="k")
        stored_meanwhile = (await partner.records())["count"]
        first.cancel()
        await partner.control.post("/sandbox/gates/g/open")

        async def it_is_stored() -> bool:
            return bool((await partner.records())["count"] == 1)

        await until(it_is_stored)
        again = await partner.post(key="k")

    assert (meanwhile.status_code, meanwhile.json()["code"]) == (409, "idempotency_key_in_use")
    assert meanwhile.headers.get("retry-after") == (None if named is None else "3")
    assert stored_meanwhile == 0
    assert again.headers["idempotency-replayed"] == "true"


async def test_normalises_records_but_not_their_ids() -> None:
    async with running_partner(faults=(Normalise(),)) as partner:
        await partner.token()
        await partner.post(
            "12",
            note=None,
            label=" A ",
            price="12.50",
            count="0012",
            nested=[{"at": "2026-11-29T10:00:00Z", "gone": None, "day": "2026-11-29"}],
            local="2026-11-29T10:00:00.5+02:00",
        )
        found = await partner.get("12")
        await partner.set_faults({"fault": "normalise", "rules": ["trim"]})
        trimmed = (await partner.get("12")).json()

    assert found.json() == {
        "id": "record-1",
        "parcelId": "12",
        "weight": 1.5,
        "label": "A",
        "price": 12.5,
        "count": "0012",
        "nested": [{"at": "2026-11-29T15:30:00+05:30", "day": "2026-11-29"}],
        "local": "2026-11-29T08:00:00.500000+00:00",
    }
    assert (trimmed["label"], trimmed["note"], trimmed["price"]) == ("A", None, "12.50")


async def test_sends_an_answer_twice_on_the_wire() -> None:
    async with running_partner(faults=(Duplicate(seconds=0, times=1),)) as partner:
        token = await partner.token()
        reader, writer = await asyncio.open_connection(*partner.address)
        head = f"Host: x\r\nAuthorization: Bearer {token}\r\n"
        body = '{"parcelId":"b-1","weight":1}'
        writer.write(
            f"POST /carrier-api/parcels HTTP/1.1\r\n{head}Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        answers = []
        for _ in range(2):
            answer = await reader.readuntil(b"\r\n\r\n")
            answers.append((answer.split(b"\r\n")[0], await reader.readexactly(45)))
        writer.close()
        await writer.wait_closed()
        records = await partner.records()

    assert answers == [(b"HTTP/1.1 201 Created", b'{"id":"record-1","parcelId":"b-1","weight":1}')] * 2
    assert records["count"] == 1


@pytest.mark.parametrize(
    ("fault", "status", "challenge"),
    [
        (Challenge(error="expired_token"), 401, 'error="expired_token"'),
        (Challenge(status=403), 403, 'error="invalid_token"'),
        (Challenge(error=None), 401, 'Bearer realm="sandbox"'),
    ],
)
async def test_refuses_a_token_in_another_way(fault: Challenge, status: int, challenge: str) -> None:
    async with running_partner(faults=(fault,)) as partner:
        await partner.token()
        good = await partner.get()
        await partner.control.post("/sandbox/revoke")
        refused = await partner.get()

    assert (good.status_code, refused.status_code) == (404, status)
    assert challenge in refused.headers["www-authenticate"]


async def test_a_token_may_be_issued_from_a_cache() -> None:
    async with running_partner(faults=(Cached(),), token_lifetime=60) as partner:
        first = (await partner.request_token()).json()
        partner.clock.advance(20)
        await partner.control.post("/sandbox/revoke")
        again = (await partner.request_token()).json()
        partner.clock.advance(40)
        new = (await partner.request_token()).json()

    assert again == first | {"expires_in": 40}
    assert new["access_token"] != first["access_token"]


async def test_a_token_answer_may_have_another_status_and_null_members() -> None:
    fault = Alter(route="token", status=201, put={"token_type": None})
    async with running_partner(faults=(fault,)) as partner:
        response = await partner.request_token()

    assert (response.status_code, response.json()["token_type"]) == (201, None)


@pytest.mark.parametrize(
    ("fault", "status", "headers"),
    [
        (Limit(rate=2, burst=1), 429, {"retry-after": "1"}),
        (Limit(rate=0.25, burst=1, status=503), 503, {"retry-after": "5"}),
        (Limit(rate=2, burst=1, retry_after=False, headers="x"), 429, {"x-ratelimit-remaining": "0"}),
        (Limit(rate=2, burst=1, headers="draft"), 429, {"ratelimit": '"sandbox";r=0;t=1'}),
    ],
)
async def test_refuses_what_is_above_its_rate(fault: Limit, status: int, headers: dict[str, str]) -> None:
    async with running_partner(faults=(fault,)) as partner:
        await partner.token()
        taken, refused = await partner.post("b-1"), await partner.post("b-2")
        partner.clock.advance(4)
        later = await partner.post("b-3")
        counters = await partner.counters()

    assert (taken.status_code, refused.status_code, later.status_code) == (201, status, 201)
    assert headers.items() <= dict(refused.headers).items()
    assert ("retry-after" in refused.headers) == fault.retry_after
    assert ("ratelimit" in taken.headers) == (fault.headers == "draft")
    assert counters["refused"] == 1


async def test_refuses_what_is_above_its_concurrency() -> None:
    faults = (Concurrency(most=1, retry_after=2), Hold(route="post", gate="g"))
    async with running_partner(faults=faults) as partner:
        await partner.token()
        first = asyncio.create_task(partner.post("b-1"))
        await partner.waiting("g")
        refused = await partner.post("b-2")
        await partner.control.post("/sandbox/gates/g/open")
        counters = await partner.counters()

    assert (await first).status_code == 201
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
    assert counters["in_flight_most"] == 2
