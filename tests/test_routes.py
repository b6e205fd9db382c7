from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from shared.durable.inputs import DeliveryOptions
from shared.errors import (
    ApiConnectError,
    ApiInterruptedError,
    Fault,
    RefusedError,
    SettingsError,
    TokenRejectedError,
    TokenUnavailableError,
)
from shared.http.messages import MAX_WAIT, Reply, Request, answered, problem
from shared.http.routes import accept_batch, accept_record, get_record
from shared.resource import LookUp
from shared.rules.retry import RetryPolicy
from tests.fakes.durable_host import DurableHost
from tests.fakes.scripted_partner import answer, html
from tests.models import PARCEL

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from shared.resource import ApiResponse

BODY = b'{"parcelId": "P-1", "weight": 1.50}'
LIST = replace(PARCEL, look_up=LookUp("/parcels", {"id": "{id}"}, items="/found"))
OPTIONS = DeliveryOptions.of_batch(RetryPolicy(60, 1, 10), 5, 50, 100)
DELIVERED = {"state": "delivered", "recordId": "P-1", "outcome": "created", "attempts": 1}


def request_(
    body: bytes = BODY, method: str = "POST", url: str = "https://app.example/api/parcels", **headers: str
) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, url, {"content-type": "application/json"} | named, body)


async def content(work: Awaitable[Reply]) -> tuple[Reply, dict[str, Any]]:
    reply = await answered(work)
    return reply, msgspec.json.decode(reply.body)


def accept(host: DurableHost, request: Request, what: Any = accept_record) -> Awaitable[Reply]:  # noqa: ANN401, one of two
    work: Awaitable[Reply] = what(request, host.client(), PARCEL, OPTIONS, 30.0)
    return work


async def test_a_record_is_accepted_as_its_text_with_the_apps_own_links() -> None:
    host = DurableHost()

    reply, links = await content(accept(host, request_()))

    root = f"https://app.example/api/deliveries/{links['id']}"
    assert (reply.status, reply.headers["location"], reply.headers["retry-after"]) == (202, root, "5")
    assert {links[f"{verb}PostUri"] for verb in ("cancel", "suspend", "resume", "redeliver")} == {
        f"{root}/{verb}" for verb in ("cancel", "suspend", "resume", "redeliver")
    }
    assert (links["resource"], links["state"], links["historyGetUri"]) == ("Parcel", "accepted", f"{root}/history")
    started = host.instances[links["id"]]
    assert (started.name, host.input_of(links["id"])["record"]) == ("DeliverParcel", BODY.decode())


async def test_a_batch_is_accepted_by_the_batchs_orchestrator() -> None:
    host = DurableHost()

    _, links = await content(accept(host, request_(b"[" + BODY + b"]"), accept_batch))

    assert (host.instances[links["id"]].name, host.input_of(links["id"])["total"]) == ("DeliverParcelBatch", 1)


async def test_the_same_key_and_payload_start_one_delivery_and_another_payload_is_409() -> None:
    host = DurableHost()

    first, again = [(await content(accept(host, request_(idempotency_key="k"))))[1]["id"] for _ in range(2)]
    other, told = await content(accept(host, request_(BODY.replace(b"1.50", b"2"), idempotency_key="k")))

    assert first == again
    assert host.instances[first].starts == 1
    assert (other.status, told["type"]) == (409, "/api/docs#key-reused")


@pytest.mark.parametrize(
    ("output", "status", "kind"),
    [
        (DELIVERED, 200, None),
        ({"state": "partly", "total": 2, "created": 1, "rejections": []}, 200, None),
        ({"state": "rejected", "recordId": "P-1", "reason": "No", "problem": {"title": "No"}}, 422, "rejected"),
        ({"state": "expired", "recordId": "P-1", "reason": "Late", "uncertain": True}, 504, "expired"),
    ],
)
async def test_a_caller_who_waits_gets_the_result(output: dict[str, Any], status: int, kind: str | None) -> None:
    host = DurableHost()
    links = (await content(accept(host, request_(idempotency_key="k"))))[1]
    ended = host.instances[links["id"]]
    ended.status, ended.output = "Completed", output

    reply, told = await content(accept(host, request_(idempotency_key="k", prefer="wait=5")))

    assert (reply.status, reply.headers["preference-applied"]) == (status, "wait")
    assert told.get("type") == (f"/api/docs#{kind}" if kind else None)
    for member in ("problem", "uncertain"):
        assert told.get(member) == output.get(member)
    if kind:
        assert told["delivery"] == links["statusQueryGetUri"]


async def test_a_caller_who_waits_for_a_delivery_that_was_ended_gets_500() -> None:
    host = DurableHost()
    links = (await content(accept(host, request_(idempotency_key="k"))))[1]
    host.instances[links["id"]].status = "Terminated"

    reply, told = await content(accept(host, request_(idempotency_key="k", prefer="wait=1")))

    assert (reply.status, "is cancelled" in told["detail"]) == (500, True)


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=20", 20),
        ('respond-async, Wait = "7"; x=1', 7),
        ("wait=5, wait=9", 5),
        ("wait=99999", MAX_WAIT),
        ('x="a, wait=3"', 0),
        ("wait=-1", 0),
        ("wait=1.5", 0),
        ("", 0),
    ],
)
def test_reads_how_long_a_caller_would_wait(prefer: str, seconds: float) -> None:
    assert request_(prefer=prefer).preferred_wait == seconds


@pytest.mark.parametrize(
    ("url", "headers", "segment"),
    [
        ("http://app/api/parcels/a%2Fb", {}, "a/b"),
        ("http://app/api/parcels/a%252Fb?x=/y#z", {}, "a%2Fb"),
        ("http://app/api/parcels/a/b", {"x-original-url": "/api/parcels/a%2Fb/"}, "a/b"),
        ("http://app/api/parcels/x", {"x-waws-unencoded-url": "/api/parcels/%C3%A4"}, "ä"),
    ],
)
def test_the_last_segment_is_decoded_once(url: str, headers: dict[str, str], segment: str) -> None:
    assert replace(request_(url=url), headers=headers).last_segment == segment


class Partner:
    """Answers each look-up with `said`, or raises it."""

    def __init__(self, said: ApiResponse | Exception) -> None:
        self.said = said

    async def look_up(self, _resource: object, _id: str) -> ApiResponse:
        if isinstance(self.said, Exception):
            raise self.said
        return self.said


FOUND = {"parcelId": "P-1", "weight": 1.5}


@pytest.mark.parametrize(
    ("said", "status", "kind"),
    [
        (answer(404), 404, "not-found"),
        (answer(410), 404, "not-found"),
        (answer(204), 404, "not-found"),
        (html(404), 502, "partner"),
        (html(200), 502, "partner"),
        (answer(200, {"parcelId": "another"}), 502, "partner"),
        (answer(403), 502, "partner"),
        (answer(500), 502, "partner"),
        (answer(504), 504, "timeout"),
        (answer(429, after=7), 503, "unavailable"),
        (answer(503), 503, "unavailable"),
        (ApiConnectError("refused"), 502, "partner"),
        (ApiInterruptedError("timeout"), 504, "timeout"),
        (TokenUnavailableError("down", retry_after=3), 503, "unavailable"),
        (TokenRejectedError("invalid_client"), 503, "configuration"),
    ],
)
async def test_says_what_the_partners_answer_means_to_the_caller(
    said: ApiResponse | Exception, status: int, kind: str
) -> None:
    async def api() -> Any:  # noqa: ANN401, it stands for a ResourceApi
        return Partner(said)

    asked = request_(method="GET", url="http://app/api/parcels/P-1")
    reply, told = await content(get_record(asked, PARCEL, api))

    assert (reply.status, told["type"]) == (status, f"/api/docs#{kind}")
    if kind == "unavailable":
        assert int(reply.headers["retry-after"]) >= 1


async def test_shows_the_partners_record_as_it_wrote_it_or_the_one_of_its_list() -> None:
    async def api() -> Any:  # noqa: ANN401, the same
        return Partner(replies.pop(0))

    replies = [answer(200, FOUND), answer(200, {"found": [{"parcelId": "P-2"}, FOUND]})]
    asked = request_(method="GET", url="http://app/api/parcels/P-1")
    whole, listed = [await answered(get_record(asked, resource, api)) for resource in (PARCEL, LIST)]

    assert whole.body == b'{"parcelId": "P-1", "weight": 1.5}'
    assert msgspec.json.decode(listed.body) == FOUND


async def test_tells_whom_to_ask_if_a_function_of_the_partners_description_fails() -> None:
    async def api() -> Any:  # noqa: ANN401, the same
        return Partner(answer(400, {}))

    look_up = LookUp("/parcels/{id}", absent=lambda response: response.content["unknown"])
    asked = request_(method="GET", url="http://app/api/parcels/P-1")
    reply, told = await content(get_record(asked, replace(PARCEL, look_up=look_up), api))

    assert (reply.status, told["type"]) == (503, "/api/docs#configuration")
    assert told["errors"][0]["detail"] == "Resource Parcel: absent= raised KeyError: 'unknown'"


async def test_an_id_that_cannot_be_and_a_partner_without_look_up_are_said_before_anybody_is_asked() -> None:
    async def api() -> Any:  # noqa: ANN401, the same
        raise AssertionError

    blind = replace(PARCEL, look_up=None, honours_idempotency_key=True)
    odd, _ = await content(get_record(request_(url="http://app/api/parcels/%2E%2E"), PARCEL, api))
    none, _ = await content(get_record(request_(url="http://app/api/parcels/P-1"), blind, api))

    assert (odd.status, none.status) == (400, 404)


async def test_what_is_raised_on_purpose_becomes_a_problem() -> None:
    async def failing(exc: Exception) -> Reply:
        raise exc

    refused, _ = await content(failing(RefusedError("busy", "Later", retry_after=1.2)))
    missing, _ = await content(failing(RefusedError("unavailable", "Durable does not answer", retry_after=5)))
    settings, told = await content(failing(SettingsError(["A is missing", "B is wrong"])))

    assert (refused.status, refused.headers["retry-after"]) == (429, "2")
    assert (missing.status, missing.headers["retry-after"]) == (503, "5")
    assert (settings.status, [each["detail"] for each in told["errors"]]) == (503, ["A is missing", "B is wrong"])


def test_a_problem_points_into_the_body_as_a_uri_fragment_and_its_headers_are_ascii() -> None:
    reply = problem("invalid-record", "No", errors=[Fault("/ä b/~1", "is wrong")], headers={"x": "ü"}, extra=1)

    told = msgspec.json.decode(reply.body)
    assert told["errors"] == [{"pointer": "#/%C3%A4%20b/~1", "detail": "is wrong"}]
    assert (told["extra"], reply.ascii_headers()["x"]) == (1, "\\xfc")
