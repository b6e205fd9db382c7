"""The records that the partner stored, duplicates and all, and the Idempotency-Keys that it has seen."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec

Payload = dict[str, Any]


class StoredRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One stored record; `body` is its JSON, `token` the number of the access token that it came with."""

    id: str
    external_id: str
    body: bytes
    idempotency_key: str | None
    token: int


class Records:
    """All stored records, in the order in which they came."""

    def __init__(self) -> None:
        self._records: list[StoredRecord] = []
        self._first: dict[str, StoredRecord] = {}

    def store(self, payload: Payload, *, idempotency_key: str | None, token: int) -> StoredRecord:
        """Store a checked payload under a new id."""
        record_id = f"record-{len(self._records) + 1}"
        record = StoredRecord(
            id=record_id,
            external_id=payload["externalId"],
            body=msgspec.json.encode({"id": record_id, **payload}),
            idempotency_key=idempotency_key,
            token=token,
        )
        self._records.append(record)
        self._first.setdefault(record.external_id, record)
        return record

    def find(self, external_id: str) -> StoredRecord | None:
        """Give the record of this external id, of several the first; None where there is none."""
        return self._first.get(external_id)

    def to_json(self) -> dict[str, object]:
        """Give the number of records, how often each external id is stored, and each record without its payload."""
        return {
            "count": len(self._records),
            "externalIds": Counter(record.external_id for record in self._records),
            "records": [
                {
                    "id": record.id,
                    "externalId": record.external_id,
                    "idempotencyKey": record.idempotency_key,
                    "token": record.token,
                }
                for record in self._records
            ],
        }


class Keys:
    """What was done under each Idempotency-Key, and the keys whose first request is still under way."""

    def __init__(self) -> None:
        self._done: dict[str, tuple[bytes, StoredRecord]] = {}
        self._in_progress: set[str] = set()

    def done(self, key: str) -> StoredRecord | None:
        """Give the record that was made under the key; None for a new key."""
        done = self._done.get(key)
        return done[1] if done else None

    def is_of(self, key: str, payload: Payload) -> bool:
        """Tell whether this payload, in whatever order of members, is the one that first came with the key."""
        return key in self._done and self._done[key][0] == _canonical(payload)

    def is_in_progress(self, key: str) -> bool:
        """Tell whether the first request with the key is still under way."""
        return key in self._in_progress

    def start(self, key: str, payload: Payload, record: StoredRecord) -> None:
        """Remember what was done, and that its request is still under way."""
        self._done[key] = (_canonical(payload), record)
        self._in_progress.add(key)

    def finish(self, key: str) -> None:
        """Remember that the request is over, answered or not."""
        self._in_progress.discard(key)

    def to_json(self) -> list[str]:
        """Give the keys under which something was done."""
        return list(self._done)


def _canonical(payload: Payload) -> bytes:
    # Not the dict itself: Python holds 1, 1.0 and true for equal.
    return msgspec.json.encode(payload, order="sorted")
