"""What came of one attempt to deliver a record, as data: created, exists, rejected or deferred."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

OutcomeKind = Literal["created", "exists", "rejected", "deferred"]
# An outcome is shown as a custom status, which holds 8,192 UTF-16 code units: so many characters of a reason are kept.
MAX_REASON = 1_500


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt.

    `created`: the partner has stored the record. `exists`: it was there already, with the same content. `rejected`: it
    will not take it. `deferred`: not now; to be tried again.

    `status` is the partner's HTTP status (None where there was none), `reason` a sentence for people, `problem` the
    partner's own words (RFC 9457), `retry_after` the seconds it asks to wait. `is_uncertain` says of a deferred attempt
    that the partner may have stored the record all the same.
    """

    kind: OutcomeKind
    external_id: str
    status: int | None = None
    reason: str | None = None
    problem: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None
    is_uncertain: bool = False

    @classmethod
    def from_json(cls, outcome: Mapping[str, Any]) -> Outcome:
        """Read what `to_json` wrote, also in an older version of this app."""
        return cls(
            kind=outcome["outcome"],
            external_id=outcome["externalId"],
            status=outcome.get("status"),
            reason=outcome.get("reason"),
            problem=outcome.get("problem", {}),
            retry_after=outcome.get("retryAfter"),
            is_uncertain=outcome.get("uncertain", False),
        )

    def to_json(self) -> dict[str, Any]:
        """Give a plain object for a durable boundary, without the members that say nothing."""
        outcome: dict[str, Any] = {"outcome": self.kind, "externalId": self.external_id}
        optional = {
            "status": self.status,
            "reason": None if self.reason is None else shortened(self.reason, MAX_REASON),
            "problem": dict(self.problem) or None,
            "retryAfter": self.retry_after,
            "uncertain": self.is_uncertain or None,
        }
        return outcome | {name: value for name, value in optional.items() if value is not None}
