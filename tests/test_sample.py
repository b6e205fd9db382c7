"""The sandbox's record is one of the model: the demo, the trial of a package and the tests make theirs of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sandbox.sample import MODEL, PLACE, business, why_refused
from shared.api.business import Business
from shared.delivery.exchange import Request
from shared.delivery.intake import read_business
from shared.delivery.problem import ProblemError
from shared.errors import InvalidBusinessError

PROJECT = Path(__file__).parent.parent


def problem_of(record: dict[str, object]) -> dict[str, object]:
    """What the app answers to a record that it refuses."""
    url = "https://app.example/api/businesses"
    request = Request(url, {"content-type": "application/json"}, json.dumps(record).encode(), {}, {})
    with pytest.raises(ProblemError) as caught:
        read_business(request)
    problem: dict[str, object] = json.loads(caught.value.reply.body)
    return problem


def test_the_sample_is_a_record_of_the_model() -> None:
    record = json.loads((PROJECT / PLACE).read_text(encoding="utf-8"))
    try:
        Business.from_json(record)
    except InvalidBusinessError as exc:
        pytest.fail(f"{PLACE} is no record of the model: {exc}. Change it together with {MODEL}", pytrace=False)
    assert business(record["externalId"]) == record


def test_a_record_of_the_sample_has_the_members_that_it_is_given() -> None:
    sample = business("b-1")
    assert business("b-2", extra=[1]) == sample | {"externalId": "b-2", "extra": [1]}
    assert business("b-1") == sample


def test_a_refusal_names_the_member_the_sample_and_the_model() -> None:
    assert why_refused(problem_of(business(""))) == (
        "the app refuses the record of sandbox/sample.json: /externalId must be str of length >= 1. "
        "Change it together with the model, Business in shared/api/business.py"
    )


def test_a_refusal_of_many_records_is_one_line() -> None:
    faults = [{"pointer": f"#/{index}/city", "detail": "is missing"} for index in range(100)]
    line = why_refused({"errors": faults})
    assert ": /0/city is missing, /1/city is missing, /2/city is missing and 97 more. Change" in line


def test_a_refusal_without_a_list_has_the_detail() -> None:
    assert ": The record is too large. Change" in why_refused({"detail": "The record is too large"})
