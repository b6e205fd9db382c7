"""The record that is posted, about 1 KB of JSON."""

from __future__ import annotations

from typing import Any

import msgspec

from sandbox.sample import business

RECORD: dict[str, Any] = {
    "address": {"street": "12 St James's Square", "city": "London", "note": "x" * 300},
    "tags": ["analytical", "engine"] * 10,
    "turnover": list(range(40)),
    **business("business-1"),
}
BODY = msgspec.json.encode(RECORD)
HEADERS = {"content-type": "application/json", "idempotency-key": "benchmark-0123456789abcdef"}
