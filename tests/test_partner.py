"""Tests of the rules in shared/partner.py: yours to change together with it."""

from __future__ import annotations

import msgspec
import pytest

from sandbox.sample import sample_record
from shared.errors import InvalidRecordError
from shared.partner import RESOURCES
from shared.rules.record import read_record

(BUSINESS,) = RESOURCES


def test_a_business_keeps_its_text() -> None:
    text = b'{"name": "Acme", "externalId":"crm-1", "turnover": 99999999999999.99}'
    assert read_record(BUSINESS, text).text == text


@pytest.mark.parametrize(
    ("members", "pointer"),
    [({"name": ""}, "/name"), ({"name": "x" * 257}, "/name"), ({"externalId": ""}, "/externalId")],
)
def test_names_the_member_that_breaks_a_rule(members: dict[str, object], pointer: str) -> None:
    text = msgspec.json.encode(sample_record(BUSINESS, 1) | members)
    with pytest.raises(InvalidRecordError) as caught:
        read_record(BUSINESS, text)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


def test_a_business_is_looked_up_by_its_external_id() -> None:
    assert BUSINESS.look_up is not None
    assert BUSINESS.look_up.target("crm 1/2") == "/business/by-external/crm%201%2F2"
