from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery.batch_input import MAX_PACKED, MAX_RECORDS, batch_input, total_of
from shared.delivery.delivery_input import MAX_CHUNK, MAX_ORDER, MAX_PARALLEL, check_batch, check_delivery
from shared.delivery.retry import DAY
from shared.delivery.terms import batch_terms, terms
from shared.errors import DeliveryError
from shared.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = business("b-1")
DELIVERY = {"business": RECORD, "retry": {"deadline": 60, "first": 1, "max": 2.5}, "lookUp": "always"}
BATCH = {**batch_input([RECORD]), "retry": {"deadline": 60}, "chunk": 3, "parallel": 2, "order": 15}
OLD_BATCH = {"businesses": [RECORD, 5], "digest": "d"}
PLAIN = {
    "BUSINESS_API_URL": "https://api.example",
    "BUSINESS_API_TOKEN_URL": "https://login.example/token",
    "BUSINESS_API_CLIENT_ID": "relay",
    "BUSINESS_API_CLIENT_SECRET": "s3cr3t",
}
NO_BATCHES: list[object] = [None, 5, "text", [], {}, {name: BATCH[name] for name in BATCH if name != "digest"}]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)


def refusal(check: Callable[[object], object], input_: object) -> str:
    with pytest.raises(DeliveryError) as caught:
        check(input_)
    start, _, why = str(caught.value).partition(": ")
    assert start == "The input is none that this app starts a delivery with"
    return why


def without(input_: dict[str, Any], name: str) -> dict[str, Any]:
    return {each: value for each, value in input_.items() if each != name}


def test_what_the_intake_makes_is_given_back_as_it_is() -> None:
    assert check_delivery(DELIVERY) is DELIVERY
    assert check_batch(BATCH) is BATCH
    assert check_batch(OLD_BATCH) is OLD_BATCH


@pytest.mark.parametrize(
    "bounds",
    [
        {},
        {"DELIVERY_DEADLINE": str(365 * 86_400), "DELIVERY_RETRY_FIRST": "86400", "DELIVERY_RETRY_MAX": "86400"},
        {"DELIVERY_DEADLINE": "1e-9", "DELIVERY_RETRY_FIRST": "1e-9", "DELIVERY_RETRY_MAX": "1e-9"},
        {"BUSINESS_API_MAX_CONNECTIONS": "10000", "DELIVERY_CHUNK": "1"},
        {"BUSINESS_API_MAX_CONNECTIONS": "1", "DELIVERY_CHUNK": "1000"},
    ],
)
def test_the_terms_of_any_settings_are_taken(bounds: dict[str, str]) -> None:
    settings = Settings.from_environ(PLAIN | bounds)

    assert check_delivery({"business": RECORD, **terms(settings.delivery)})
    assert check_batch({**batch_input([RECORD]), **batch_terms(settings)})


@pytest.mark.parametrize("input_", [None, 5, "text", [], {}, {"retry": {}}])
def test_what_is_no_delivery_is_refused(input_: object) -> None:
    assert refusal(check_delivery, input_) == "it has no business"


@pytest.mark.parametrize(
    ("input_", "why"),
    [
        *((input_, "it has no digest") for input_ in NO_BATCHES),
        (BATCH | {"digest": {}}, "it has no digest"),
        (without(BATCH, "packed"), "it has no records"),
        (BATCH | {"packed": None}, "it has no records"),
        (OLD_BATCH | {"packed": None, "total": 1}, "it has no records"),
        (OLD_BATCH | {"businesses": {}}, "it has no records"),
        (OLD_BATCH | {"businesses": "text"}, "it has no records"),
        (BATCH | {"packed": "x" * (MAX_PACKED + 1)}, f"its records take {MAX_PACKED + 1} characters"),
    ],
)
def test_what_is_no_batch_is_refused(input_: object, why: str) -> None:
    assert refusal(check_batch, input_).startswith(why)


@pytest.mark.parametrize("total", [-1, MAX_RECORDS + 1, 10**9, 1.0, "1", True, None])
def test_a_batch_of_more_records_than_the_intake_takes_is_refused(total: object) -> None:
    why = "the number of its records is not a whole number from 0 to 1000"

    assert refusal(check_batch, BATCH | {"total": total}) == why
    assert refusal(check_batch, without(BATCH, "total")) == why
    assert refusal(check_batch, OLD_BATCH | {"businesses": [RECORD] * (MAX_RECORDS + 1)}) == why


@pytest.mark.parametrize(("name", "most"), [("chunk", MAX_CHUNK), ("parallel", MAX_PARALLEL), ("order", MAX_ORDER)])
def test_a_batch_is_not_cut_into_nothing(name: str, most: int) -> None:
    # Of no parallel activities, or orders of no records, no round would ever post anything.
    for good in (1, most):
        assert check_batch(BATCH | {name: good})
    wrong: list[object] = [0, -1, most + 1, 1.5, "3", True, None, math.nan]
    for value in wrong:
        assert refusal(check_batch, BATCH | {name: value}) == f"its {name} is not a whole number from 1 to {most}"


@pytest.mark.parametrize("check", [check_delivery, check_batch])
@pytest.mark.parametrize(("name", "most"), [("deadline", 365 * DAY), ("first", DAY), ("max", DAY)])
def test_no_wait_is_less_than_none_and_none_is_for_ever(
    check: Callable[[object], object], name: str, most: float
) -> None:
    input_ = DELIVERY | BATCH
    for good in (0.001, most):
        assert check(input_ | {"retry": {name: good}})
    wrong: list[object] = [0, -1, most + 1, math.inf, math.nan, 1e308, "60", True, None, []]
    for value in wrong:
        assert refusal(check, input_ | {"retry": {name: value}}).startswith(f"its retry.{name} is not a number")


def test_a_pause_is_not_for_ever() -> None:
    for good in (0.001, DAY):
        assert check_batch(BATCH | {"pause": good})
    wrong: list[object] = [0, -1, DAY + 1, math.inf, math.nan, "60", True, None]
    for value in wrong:
        assert refusal(check_batch, BATCH | {"pause": value}).startswith("its pause is not a number of seconds")


def test_keys_are_packed() -> None:
    assert check_batch({**BATCH, **batch_input([RECORD], ["key-1-0"])})
    for wrong in (5, None, ["key-1-0"], "x" * (MAX_PACKED + 1)):
        assert refusal(check_batch, BATCH | {"keys": wrong}) == "its keys are none that were packed"


@pytest.mark.parametrize("check", [check_delivery, check_batch])
@pytest.mark.parametrize("retry", [None, 5, "text", []])
def test_the_waits_are_an_object(check: Callable[[object], object], retry: object) -> None:
    assert refusal(check, DELIVERY | BATCH | {"retry": retry}) == "its retry is not an object"


@given(JSON | st.dictionaries(st.sampled_from([*BATCH, "business", "businesses"]), JSON))
def test_any_input_is_taken_or_refused(input_: object) -> None:
    for check in (check_delivery, check_batch):
        try:
            taken = check(input_)
        except DeliveryError:
            continue
        assert taken is input_
        if check is check_batch:
            assert 0 <= total_of(taken) <= MAX_RECORDS
