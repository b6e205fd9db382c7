"""One attempt to deliver a record, as it crosses from the orchestrator to the activity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Attempt:
    """The `number`-th attempt (from 1) to deliver `business`, for the orchestration `instance_id`.

    `age` is the seconds since the delivery began.

    `look_up` says to look whether the partner has the record before it is posted: an earlier attempt, or an earlier run
    of this one in a process that died, may have posted it.

    `is_json` says that `business` was decoded by msgspec, not by the Durable SDK, which takes more for JSON than JSON.
    """

    business: Mapping[str, Any]
    instance_id: str
    idempotency_key: str
    number: int = 1
    look_up: bool = True
    age: float = 0.0
    is_json: bool = False

    @classmethod
    def from_json(cls, attempt: Mapping[str, Any]) -> Attempt:
        """Read what `to_json` wrote, also in an older version of this app."""
        return cls(
            business=attempt["business"],
            instance_id=attempt["instanceId"],
            idempotency_key=attempt["idempotencyKey"],
            number=attempt.get("attempt", 1),
            look_up=attempt.get("lookUp", True),
            age=attempt.get("age", 0.0),
        )

    def to_json(self) -> dict[str, Any]:
        """Give a plain object for a durable boundary."""
        return {
            "business": self.business,
            "instanceId": self.instance_id,
            "idempotencyKey": self.idempotency_key,
            "attempt": self.number,
            "lookUp": self.look_up,
            "age": self.age,
        }
