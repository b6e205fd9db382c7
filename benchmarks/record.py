"""The records that are posted: samples of the app's first resource, about 1 KB of JSON each."""

from __future__ import annotations

from typing import Any

import msgspec

from sandbox.sample import sample_record
from shared.partner import RESOURCES

RESOURCE = RESOURCES[0]
# Members that the resource does not name are passed on.
_FILLING = {"note": "x" * 500, "tags": ["analytical", "engine"] * 10, "turnover": list(range(40))}
_RECORD: dict[str, Any] = {**_FILLING, **sample_record(RESOURCE, 1)}


def record(id_: str) -> dict[str, Any]:
    """Return a record with this id."""
    return {**_RECORD, RESOURCE.id_member: id_}


BODY = msgspec.json.encode(record("benchmark-1"))
HEADERS = {"content-type": RESOURCE.post.media_type, "idempotency-key": "benchmark-0123456789abcdef"}
