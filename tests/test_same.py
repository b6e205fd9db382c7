from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.rules.same import differing_members, is_equal
from shared.rules.strict_json import decode_exactly

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("12.50", "12.5"),
        ("1e2", "100"),
        ('"12.50"', "12.5"),
        ("12.5", '"12.50"'),
        ("-0.0", "0"),
        ("99999999999999.99", "99999999999999.990"),
        ('" Zoë "', '"Zoe\\u0308"'),
        ('"2026-01-31T12:00:00+02:00"', '"2026-01-31T10:00:00Z"'),
        ('"2026-01-31T10:00:00.500Z"', '"2026-01-31 10:00:00.5+00:00"'),
        ('"2026-01-31T23:30:00-0130"', '"2026-02-01T01:00:00z"'),
        ('{"a": {"b": 1, "c": null}}', '{"a": {"b": 1.0, "d": 2}}'),
        ("[{}, [1]]", '[{"a": 1}, [1]]'),
        ('"1F0C6A52-7F5E-4D6B-9A3E-0000000000AA"', '"1f0c6a52-7f5e-4d6b-9a3e-0000000000aa"'),
        ('"1f0c6a527f5e4d6b9a3e0000000000aa"', '"1F0C6A52-7F5E-4D6B-9A3E-0000000000AA"'),
    ],
)
def test_what_partners_make_of_a_value_is_the_same_content(sent: str, found: str) -> None:
    assert is_equal(decode_exactly(sent.encode()), decode_exactly(found.encode()))


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ("1", "true"),
        ("0", "false"),
        ("null", "false"),
        ('"12.50"', '"12.5"'),
        ('"01067"', "1067"),
        ("99999999999999.99", "99999999999999.98"),
        ('"a"', '"A"'),
        ('"2026-01-31T12:00:00"', '"2026-01-31T12:00:00Z"'),
        ('"2026-01-31T12:00:00.1Z"', '"2026-01-31T12:00:00Z"'),
        ('"2026-02-30T12:00:00Z"', '"2026-03-02T12:00:00Z"'),
        ('"1f0c6a52-7f5e-4d6b-9a3e-0000000000aa"', '"1f0c6a52-7f5e-4d6b-9a3e-0000000000ab"'),
        ('"1f0c6a52-7f5e4d6b9a3e0000000000aa"', '"1F0C6A52-7F5E4D6B9A3E0000000000AA"'),
        ("[1, 2]", "[2, 1]"),
        ("[1]", "[1, 2]"),
        ('{"a": 1}', "[]"),
        ('{"a": 1}', "{}"),
    ],
)
def test_other_values_are_other_content(sent: str, found: str) -> None:
    assert not is_equal(decode_exactly(sent.encode()), decode_exactly(found.encode()))


def test_names_the_members_that_differ_and_ignores_what_the_partner_added() -> None:
    sent = {"id": "1", "gone": None, "lost": 1, "other": "a", "nested": {"a": Decimal("1.0")}}

    assert differing_members(sent, {"id": " 1 ", "other": "b", "nested": {"a": 1}, "new": 0}) == ["lost", "other"]


@given(JSON, JSON)
def test_every_value_equals_itself_and_equality_of_leaves_is_mutual(one: Any, other: Any) -> None:  # noqa: ANN401 - any JSON
    assert is_equal(one, one)
    if not isinstance(one, dict | list) and not isinstance(other, dict | list):
        assert is_equal(one, other) == is_equal(other, one)
