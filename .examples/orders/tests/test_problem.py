from __future__ import annotations

import json

import pytest

from shared.delivery.problem import ProblemError, problem
from shared.errors import Fault


def test_a_problem_has_the_members_of_rfc_9457() -> None:
    reply = problem(422, "The record breaks a rule.")

    assert reply.status == 422
    assert reply.headers == {"content-type": "application/problem+json"}
    assert json.loads(reply.body)["status"] == 422
    assert json.loads(reply.body)["detail"] == "The record breaks a rule."
    assert json.loads(reply.body)["title"] in {"Unprocessable Content", "Unprocessable Entity"}


def test_every_fault_is_named_by_its_pointer() -> None:
    reply = problem(422, "no", errors=[Fault("/name", "is missing"), Fault("", "is odd")])

    assert json.loads(reply.body)["errors"] == [
        {"pointer": "#/name", "detail": "is missing"},
        {"pointer": "#", "detail": "is odd"},
    ]


@pytest.mark.parametrize(
    ("pointer", "fragment"),
    [("/a b", "#/a%20b"), ("/ö", "#/%C3%B6"), ("/a%b", "#/a%25b"), ("/a~1b~0c", "#/a~1b~0c"), ("/#", "#/%23")],
)
def test_a_pointer_is_written_as_a_uri_fragment(pointer: str, fragment: str) -> None:
    reply = problem(422, "no", errors=[Fault(pointer, "is odd")])

    assert json.loads(reply.body)["errors"][0]["pointer"] == fragment


@pytest.mark.parametrize(("seconds", "header"), [(0.0, "0"), (0.2, "1"), (7, "7"), (7.1, "8")])
def test_retry_after_is_in_whole_seconds_and_never_too_early(seconds: float, header: str) -> None:
    assert problem(503, "no", retry_after=seconds).headers["retry-after"] == header


def test_headers_are_sent_along() -> None:
    assert problem(415, "no", headers={"accept": "application/json"}).headers["accept"] == "application/json"


def test_a_problem_error_carries_its_reply() -> None:
    reply = problem(409, "used")

    assert ProblemError(reply).reply is reply
    assert str(ProblemError(reply)) == "409"
