"""Tests of the orders example's own rules: what a user writes beside a partner.py."""

from __future__ import annotations

import msgspec
import pytest

from sandbox.sample import sample_record
from shared.errors import InvalidRecordError
from shared.partner import RESOURCES
from shared.rules.record import read_record

ORDER, INVOICE = RESOURCES


def order(**members: object) -> bytes:
    return msgspec.json.encode(sample_record(ORDER, 1) | members)


def test_an_order_keeps_its_text() -> None:
    text = order(discount=0.10)
    assert read_record(ORDER, text).text == text


@pytest.mark.parametrize(
    ("members", "fault"),
    [
        ({"orderId": "2001"}, "/orderId"),
        ({"lines": []}, "/lines"),
        ({"lines": [{"sku": "A", "quantity": 0, "unitPrice": "1"}]}, "/lines/0/quantity"),
        ({"currency": "GBP"}, "/currency"),
        ({"orderedAt": "2026-11-29T10:15:00"}, "/orderedAt"),
    ],
)
def test_names_the_member_that_breaks_a_rule(members: dict[str, object], fault: str) -> None:
    with pytest.raises(InvalidRecordError) as caught:
        read_record(ORDER, order(**members))
    assert caught.value.faults[0].pointer == fault


def test_refuses_an_order_that_is_delivered_before_it_is_placed() -> None:
    with pytest.raises(InvalidRecordError, match="deliverOn must not be before orderedAt"):
        read_record(ORDER, order(deliverOn="2020-01-01"))


def test_an_invoice_is_put_under_its_number() -> None:
    record = read_record(INVOICE, b'{"number":70001,"orderId":"SO-2001","total":319.60,"dueOn":"2027-01-03"}')
    assert INVOICE.post.target(record.id) == "/invoices/70001"
