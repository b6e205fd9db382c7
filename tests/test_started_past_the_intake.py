"""Inputs that only somebody with the Durable extension's key can write."""

from __future__ import annotations

import json

import pytest

from shared.durable.durable_client import Instance
from shared.durable.inputs import digest
from shared.durable.starting import fingerprint
from tests.fakes.durable_host import NOON


@pytest.mark.parametrize("number", ["1e9999999", "-1E+999999999", "1e-999999999", "0e999999999"])
def test_a_huge_exponent_is_not_written_out(number: str) -> None:
    assert digest([b'{"a":%s}' % number.encode()]) != digest([b'{"a":1}'])


@pytest.mark.parametrize(
    "record", ['{"a":1e99999999999999999999}', "[" * 100_000, "\ud800", '{"a":' + "9" * 9_000 + "}"]
)
def test_a_record_that_is_no_json_has_a_fingerprint_or_none(record: str) -> None:
    assert fingerprint({"record": record}) in {None, fingerprint({"record": record, "terms": {}})}


def test_an_input_that_is_nested_without_end_is_read_as_text() -> None:
    nested = "[" * 100_000

    assert Instance("a", "DeliverParcel", "Running", NOON, NOON, json.dumps(nested)).input == nested
