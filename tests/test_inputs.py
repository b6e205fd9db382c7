from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import zlib
from typing import Any

import pytest

from shared.durable.activities import BatchRecords
from shared.durable.inputs import MAX_UNPACKED, BatchInput, DeliveryOptions, batch_input, digest, from_json, records_of
from shared.errors import DeliveryInputError
from tests.fakes.durable_host import DurableHost

OPTIONS = DeliveryOptions()
TEXTS = [b'{"parcelId": "P-1", "weight": 12.50}', '{\n "parcelId": "Zoë",\t"weight": 1e2 }'.encode(), b"{}"]


def packed(value: bytes) -> str:
    return base64.b64encode(zlib.compress(value)).decode()


def test_records_travel_as_they_were_sent() -> None:
    input_ = json.loads(json.dumps(batch_input(TEXTS, OPTIONS)))

    assert records_of(input_) == TEXTS


def test_records_may_bring_keys_along() -> None:
    batch = from_json(batch_input(TEXTS, OPTIONS) | {"keys": {"0": "first-7"}}, BatchInput)

    assert [batch.key_of("parcel-2", index) for index in range(3)] == ["first-7", "parcel-2-1", "parcel-2-2"]


THREADS = """
import importlib, sys, threading
sys.setswitchinterval(1e-6)

def read():
    start.wait()
    for value, kind in given:
        inputs.from_json(value, kind)

for _ in range(20):
    for name in ("shared.durable.inputs", "shared.durable.progress", "shared.rules.outcome"):
        sys.modules.pop(name, None)
    modules = "shared.durable.inputs", "shared.durable.progress", "shared.rules.outcome"
    inputs, progress, outcome = map(importlib.import_module, modules)
    single = {"terms": {"retry": {}}, "record": "{}", "progress": {"attempts": 3}}
    batch = {"terms": {}, "total": 1, "digest": "", "packed": "", "progress": {"created": [0]}}
    given = [(single, inputs.SingleInput), (batch, inputs.BatchInput), ({"leftFor": 1}, progress.OrderResult)]
    given.append(({"outcome": "created", "recordId": ""}, outcome.Outcome))
    start = threading.Barrier(16)
    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_the_first_orchestrators_of_a_process_may_run_in_many_threads() -> None:
    """Without care, msgspec crashes the process."""
    assert subprocess.run([sys.executable, "-c", THREADS], check=False).returncode == 0  # noqa: S603 - our own script


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a": 1.50, "b": [1, "\\u00eb"]}', '{ "b":[1,"ë"],"a":1.5 }'.encode()),
        (b'{"a": 100}', b'{"a": 1e2}'),
        (b'{"a": 0}', b'{"a": -0.0}'),
    ],
)
def test_the_same_json_in_another_form_has_the_same_digest(one: bytes, other: bytes) -> None:
    assert digest([one]) == digest([other])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([b'{"a": 99999999999999.99}'], [b'{"a": 99999999999999.98}']),
        ([b'{"a": 1}'], [b'{"a": "1"}']),
        ([b'{"a": 0e500}'], [b'{"a": "0e500"}']),
        ([b"1", b"2"], [b"12"]),
        ([b"[1, 2]"], [b"[2, 1]"]),
    ],
)
def test_other_json_has_another_digest(one: list[bytes], other: list[bytes]) -> None:
    assert digest(one) != digest(other)


@pytest.mark.parametrize(
    "change",
    [
        {"packed": "no base64"},
        {"packed": packed(b"{}")},
        {"packed": packed(b"[{}, {}]")},
        {"packed": packed(b"[{},{},{}]")[:-8]},
        {"packed": packed(b" " * (2 * MAX_UNPACKED))},
    ],
    ids=["no base64", "no array", "another number", "cut off", "too long"],
)
def test_records_that_nobody_packed_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DeliveryInputError):
        records_of(batch_input(TEXTS, OPTIONS) | change)


async def test_a_batch_is_read_once_for_all_that_ask() -> None:
    host, records = DurableHost(), BatchRecords(most=1)
    first, second = (batch_input(TEXTS[:count], OPTIONS) for count in (1, 2))
    host.put("b-1", "DeliverParcelBatch", first)
    host.put("b-2", "DeliverParcelBatch", second)

    await asyncio.gather(*(records.of("b-1", first["digest"], host.client()) for _ in range(5)))
    await records.of("b-2", second["digest"], host.client())
    batch = await records.of("b-1", first["digest"], host.client())

    assert batch == [(TEXTS[0], "b-1-0")]
    assert len(host.calls) == 3, "the batch that was used last is kept"


async def test_a_reading_that_failed_is_tried_again() -> None:
    host, records = DurableHost(), BatchRecords()
    input_ = batch_input(TEXTS, OPTIONS)
    with pytest.raises(LookupError):
        await records.of("b-1", input_["digest"], host.client())
    host.put("b-1", "DeliverParcelBatch", input_)

    assert [text for text, _ in await records.of("b-1", input_["digest"], host.client())] == TEXTS
