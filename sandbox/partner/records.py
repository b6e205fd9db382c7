"""The records that one partner stored, duplicates and all, and the idempotency keys that it has seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from shared.rules.record import at_pointer
from shared.rules.strict_json import decode_exactly

if TYPE_CHECKING:
    from shared.resource import Resource
    from shared.rules.record import CheckedRecord

# Names for the partner's own id, of which the first that the record does not have is taken.
_OWN_ID = ("id", "serverId", "sandboxId")
_sorting_encode = msgspec.json.Encoder(decimal_format="number", order="sorted").encode


@dataclass(slots=True, kw_only=True)
class StoredRecord:
    """One stored record: its text as it was sent, and the number of the access token that it came with."""

    resource: Resource
    number: int
    id: str
    text: bytes = field(repr=False)
    idempotency_key: str | None
    token: int
    stored_at: float

    def body(self) -> dict[str, Any]:
        """Return the record as the partner shows it: with an id of its own, and the sender's where a look-up has it.

        Where that is inside an object, as in JSON:API, this object has all the members as well: a `same` of the user's
        finds them where the real partner has them.
        """
        content: dict[str, Any] = decode_exactly(self.text)
        own = next((name for name in _OWN_ID if name not in content), f"sandboxId{self.number}")
        shown = {own: f"record-{self.number}", **content}
        look_up = self.resource.look_up
        if look_up is not None and look_up.id:
            inside, _, _ = look_up.id.rpartition("/")
            if inside:
                there = at_pointer(content, inside)
                put(shown, inside, {**content, **(there if isinstance(there, dict) else {})})
            put(shown, look_up.id, content[self.resource.id_member])
        return shown

    def to_json(self) -> dict[str, object]:
        """Return what a checker compares: the text, and the circumstances of its arrival."""
        return {
            "partner": self.resource.partner.name,
            "resource": self.resource.name,
            "id": f"record-{self.number}",
            "recordId": self.id,
            "idempotencyKey": self.idempotency_key,
            "token": self.token,
            "text": self.text.decode(),
        }


class Records:
    """All stored records of a partner, in the order in which they came."""

    def __init__(self) -> None:
        self.all: list[StoredRecord] = []
        self._by_id: defaultdict[tuple[str, str], list[StoredRecord]] = defaultdict(list)

    def store(
        self, resource: Resource, record: CheckedRecord, *, key: str | None, token: int, now: float
    ) -> StoredRecord:
        """Store a checked record under a new number."""
        stored = StoredRecord(
            resource=resource,
            number=len(self.all) + 1,
            id=record.id,
            text=record.text,
            idempotency_key=key,
            token=token,
            stored_at=now,
        )
        self.all.append(stored)
        self._by_id[resource.name, record.id].append(stored)
        return stored

    def find(self, resource: Resource, id_: str) -> list[StoredRecord]:
        """Return the records of this id; more than one if there are duplicates."""
        return self._by_id.get((resource.name, id_), [])

    def count_by_id(self) -> dict[str, Counter[str]]:
        """Return for each resource how often each id is stored."""
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for record in self.all:
            counts[record.resource.name][record.id] += 1
        return counts


class Keys:
    """What was done under each idempotency key, and the keys whose first request is still under way."""

    def __init__(self) -> None:
        self._done: dict[str, tuple[bytes, StoredRecord]] = {}
        self._in_progress: set[str] = set()

    def reserve(self, key: str) -> bool:
        """Mark the key's first request as under way; False if it is a later one."""
        if key in self._done or key in self._in_progress:
            return False
        self._in_progress.add(key)
        return True

    def release(self, key: str) -> None:
        """Remember that the request is over, answered or not."""
        self._in_progress.discard(key)

    def is_in_progress(self, key: str) -> bool:
        """Tell whether the first request with the key is still under way."""
        return key in self._in_progress

    def keep(self, key: str, text: bytes, record: StoredRecord) -> None:
        """Remember what was done."""
        self._done[key] = (_canonical(text), record)

    def done(self, key: str) -> StoredRecord | None:
        """Return the record that was stored under the key; None for a new key."""
        done = self._done.get(key)
        return done[1] if done else None

    def is_of(self, key: str, text: bytes) -> bool:
        """Tell whether this record, with its members in any order, is the one that first came with the key."""
        return key in self._done and self._done[key][0] == _canonical(text)

    def to_json(self) -> list[str]:
        """Return the keys under which something was done."""
        return list(self._done)


def put(content: dict[str, Any], pointer: str, value: object) -> dict[str, Any]:
    """Put a value into an object at a JSON Pointer (RFC 6901), with the objects that lead there."""
    *path, last = (name.replace("~1", "/").replace("~0", "~") for name in pointer.split("/")[1:])
    inner = content
    for name in path:
        if not isinstance(inner.get(name), dict):
            inner[name] = {}
        inner = inner[name]
    inner[last] = value
    return content


def _canonical(text: bytes) -> bytes:
    # Not the object itself: Python holds 1, 1.0 and true for equal.
    return _sorting_encode(decode_exactly(text))
