from __future__ import annotations

import inspect
import re

from shared import errors
from shared.errors import (
    Fault,
    InvalidRecordError,
    RelayError,
    SettingsError,
    TokenRejectedError,
    TokenUnavailableError,
)


def classes() -> dict[str, type[Exception]]:
    return {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}


def test_the_tree_in_the_docstring_is_the_tree_of_the_classes() -> None:
    drawn: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([│├└─ ]*)([A-Z]\w+Error)\b", line)
        if found:
            depth = len(found[1]) // 4
            path = [*path[:depth], found[2]]
            drawn[found[2]] = path[depth - 1] if depth else "Exception"
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in classes().items()}


def test_every_error_is_one_of_ours_and_ends_in_error() -> None:
    for name, kind in classes().items():
        assert issubclass(kind, RelayError)
        assert name.endswith("Error")


def test_a_settings_error_lists_every_problem() -> None:
    error = SettingsError(["A is missing", "B must be 1"])
    assert str(error) == "The app settings are not usable: A is missing; B must be 1"
    assert error.problems == ("A is missing", "B must be 1")


def test_an_invalid_record_lists_every_fault_with_its_place() -> None:
    error = InvalidRecordError([Fault("/name", "is missing"), Fault("", "is too large")])
    assert str(error) == "/name: is missing; is too large"
    assert error.faults == (Fault("/name", "is missing"), Fault("", "is too large"))


def test_a_token_error_says_why_and_how_long() -> None:
    refused = TokenRejectedError("invalid_scope", "no such scope", status=400)
    assert str(refused) == "The token endpoint refused the client: invalid_scope (no such scope)"
    assert (refused.error, refused.description, refused.status) == ("invalid_scope", "no such scope", 400)
    assert str(TokenRejectedError("invalid_client")) == "The token endpoint refused the client: invalid_client"
    down = TokenUnavailableError("it is down", status=503, retry_after=7.5)
    assert str(down) == "No access token can be had: it is down"
    assert (down.status, down.retry_after, TokenUnavailableError("x").retry_after) == (503, 7.5, None)
