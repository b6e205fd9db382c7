"""The members of the example model where the app meets them: what to change, with tests/test_business.py, for yours."""

from __future__ import annotations

import json

import pytest

from shared.api.business import Business
from shared.delivery.batch_intake import read_batch
from shared.delivery.exchange import Request
from shared.delivery.intake import read_business
from shared.delivery.openapi import document
from shared.delivery.problem import ProblemError
from shared.delivery.record_limits import checked_again
from shared.errors import InvalidBusinessError

BOTH = ["#/externalId", "#/name"]


def request(body: object) -> Request:
    return Request("https://app.example/", {"content-type": "application/json"}, json.dumps(body).encode())


def faults(caught: pytest.ExceptionInfo[ProblemError]) -> list[tuple[str, str]]:
    assert caught.value.reply.status == 422
    return [(fault["pointer"], fault["detail"]) for fault in json.loads(caught.value.reply.body)["errors"]]


def test_a_business_needs_an_external_id_and_a_name_and_no_more() -> None:
    assert Business.from_json({"externalId": "b-1", "name": "Ada"}).name == "Ada"


@pytest.mark.parametrize(
    ("record", "pointers"),
    [
        ({}, BOTH),
        ({"externalId": 1, "name": None}, BOTH),
        ({"externalId": "", "name": ""}, BOTH),
        ({"externalId": "x" * 129, "name": "n" * 257}, BOTH),
        ({"name": "Ada"}, ["#/externalId"]),
    ],
)
def test_every_member_that_breaks_a_rule_is_named(record: object, pointers: list[str]) -> None:
    with pytest.raises(ProblemError) as caught:
        read_business(request(record))
    assert [pointer for pointer, _ in faults(caught)] == pointers


def test_a_business_without_a_name_is_told_so() -> None:
    with pytest.raises(ProblemError) as caught:
        read_business(request({"externalId": "x"}))
    assert faults(caught) == [("#/name", "is missing")]


def test_every_member_of_a_batch_that_breaks_a_rule_is_named_by_its_index() -> None:
    with pytest.raises(ProblemError) as caught:
        read_batch(request([{"externalId": "b-1", "name": "Ada"}, {"externalId": "", "name": ""}, {"name": "Ada"}]))
    assert [pointer for pointer, _ in faults(caught)] == ["#/1/externalId", "#/1/name", "#/2/externalId"]


def test_a_record_that_has_come_past_the_intake_is_told_of_its_members_first() -> None:
    with pytest.raises(InvalidBusinessError) as caught:
        checked_again({"externalId": ".", "x": float("nan")})
    assert [fault.pointer for fault in caught.value.faults] == ["/externalId", "/name"]


def test_the_document_has_the_members() -> None:
    schema = json.loads(document())["components"]["schemas"]["Business"]

    assert schema["properties"].keys() == {"externalId", "name"}
    assert schema["required"] == ["externalId", "name"]


def test_the_document_has_an_example_of_every_member() -> None:
    [content] = json.loads(document())["paths"]["/businesses"]["post"]["requestBody"]["content"].values()

    assert content["example"] == {"externalId": "crm-1001", "name": "Nordwind GmbH"}
