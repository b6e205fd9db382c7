from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.api.business import check_external_id
from shared.delivery.external_id import shown_external_id
from shared.errors import InvalidBusinessError


@given(st.text())
def test_an_id_that_keeps_the_rules_is_shown_as_it_is(external_id: str) -> None:
    shown = shown_external_id({"externalId": external_id})
    try:
        check_external_id(external_id)
    except InvalidBusinessError:
        assert len(shown) <= 128
        assert shown.encode().isascii() or shown == external_id[:128]
        assert not set(shown) & set(map(chr, [*range(32), *range(127, 160)]))
    else:
        assert shown == external_id


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"externalId": "a\nb"}, r"a\nb"),
        ({"externalId": "\ud800"}, r"\ud800"),
        ({"externalId": "x" * 200_000}, "x" * 128),
        ({"externalId": "\n" * 200}, r"\n" * 64),
        ({"externalId": 5}, "5"),
        ({"externalId": ["a"]}, "['a']"),
        ({}, "None"),
        (5, "None"),
        (None, "None"),
    ],
)
def test_any_other_is_short_and_printable(record: object, shown: str) -> None:
    assert shown_external_id(record) == shown
