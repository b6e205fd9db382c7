"""The sandbox follows deliveries by the app's own links, and compares the partners' stores."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from sandbox.deliveries import DeliveryError, check_stored, commands_to_try, delivered, send, summary
from shared.resource import Post, Resource
from tests.models import CARRIER, PARCEL, Parcel

if TYPE_CHECKING:
    from collections.abc import Sequence

LINK = "http://app/api/deliveries/1"
ONE = {"id": "1", "resource": "Parcel", "recordId": "P-1"}
DELIVERED = {**ONE, "state": "delivered", "outcome": "created", "attempts": 1}


class App:
    """Answers as the app and the partners do: with the next of `answers`, and the last one from then on."""

    def __init__(self, *answers: tuple[int, Any]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.http = httpx.Client(transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        status, content = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return httpx.Response(status, json=content)


def test_a_delivery_is_followed_to_its_end() -> None:
    going = {**ONE, "state": "delivering", "attempts": 0}
    app = App((202, {"statusQueryGetUri": LINK}), (202, going), (200, DELIVERED))
    shown: list[dict[str, Any]] = []

    link = send(app.http, "http://app/api/parcels", {"parcelId": "P-1"}, key="k-1")
    status = delivered(app.http, link, show=shown.append)

    assert (link, status, shown) == (LINK, DELIVERED, [going, DELIVERED])
    assert app.requests[0].headers["idempotency-key"] == "k-1"
    assert json.loads(app.requests[0].content) == {"parcelId": "P-1"}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(422, {"errors": [{"pointer": "#/weight", "detail": "is missing"}]})], "answered 422: #/weight is missing"),
        ([(503, {"title": "No token", "detail": "Later"})], "answered 503: Later"),
        ([(500, "broken")], 'answered 500: "broken"'),
        ([(202, {"statusQueryGetUri": LINK}), (404, {"title": "Gone"})], f"GET {LINK} answered 404: Gone"),
        (
            [(202, {"statusQueryGetUri": LINK}), (200, {**ONE, "state": "rejected", "reason": "no such street"})],
            "Parcel P-1: rejected - no such street",
        ),
        ([(202, {"statusQueryGetUri": LINK}), (202, {**ONE, "state": "waiting"})], "has not ended in 0 s"),
    ],
)
def test_a_delivery_that_goes_wrong_is_told(answers: Sequence[tuple[int, Any]], words: str) -> None:
    app = App(*answers)

    with pytest.raises(DeliveryError) as caught:
        delivered(app.http, send(app.http, "http://app/api/parcels", {}), patience=0)

    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (DELIVERED, "Parcel P-1: delivered (created)"),
        ({**DELIVERED, "attempts": 3}, "Parcel P-1: delivered (created) - 3 attempts"),
        (
            {**ONE, "state": "expired", "reason": "503", "uncertain": True},
            "Parcel P-1: expired - 503 - it may have arrived",
        ),
        (
            {"resource": "Parcel", "state": "partly", "total": 9, "created": 7, "exists": 0, "rejected": 2},
            "Parcel batch of 9: partly (7 created, 2 rejected)",
        ),
        ({"resource": "Parcel", "state": "failed"}, "Parcel failed"),
    ],
)
def test_a_delivery_is_one_line(status: dict[str, Any], line: str) -> None:
    assert summary(status) == line


COUNTED = {"calls": 2, "tokenRequests": 1, "refused": 0}


@pytest.mark.parametrize(
    ("ids", "counted", "problem"),
    [
        ({"a": 1, "b": 1}, COUNTED, None),
        ({"a": 1}, COUNTED, '{"b": 0}'),
        ({"a": 2, "b": 1}, COUNTED, '{"a": 2}'),
        ({"a": 1, "b": 1, "c": 1}, COUNTED, '{"c": 1}'),
        ({"a": 1, "b": 1}, {**COUNTED, "tokenRequests": 2}, "CARRIER_API got 2 token requests"),
        ({"a": 1, "b": 1}, {**COUNTED, "refused": 1}, "refused 1 of 2 calls"),
    ],
)
def test_the_stores_have_each_record_once(ids: dict[str, int], counted: dict[str, int], problem: str | None) -> None:
    app = App((200, {"ids": {"Parcel": ids}}), (200, {"partners": {"CARRIER_API": counted}}))

    if problem is None:
        told = list(check_stored(app.http, "http://partner", {"Parcel": {"a", "b"}}))
        assert [line.strip() for line in told] == [
            "2 Parcel stored, once each",
            "2 calls to CARRIER_API with 1 token request, none refused",
        ]
        return
    with pytest.raises(DeliveryError) as caught:
        list(check_stored(app.http, "http://partner", {"Parcel": {"a", "b"}}))
    assert problem in str(caught.value)


def test_the_commands_to_try_have_the_key_and_every_route() -> None:
    blind = Resource(Parcel, "drops", "parcel_id", CARRIER, Post("/drops"), honours_idempotency_key=True, name="Drop")

    told = commands_to_try("http://app", "http://partner", [PARCEL, blind], "s3")

    assert "console: http://app/api/console#partner=http://partner\n" in told
    curl = "curl -i http://app/api/parcels -H 'x-functions-key: s3' -H 'Content-Type: application/json' -d "
    assert curl + """'{"parcelId": "P-1001", "weight": 1.5}'""" in told
    assert "curl -s http://app/api/parcels/P-1001 -H 'x-functions-key: s3'" in told
    assert "http://app/api/drops " in told
    assert "http://app/api/drops/" not in told
    assert "x-functions-key" not in commands_to_try("http://app", "http://partner", [PARCEL], None)
