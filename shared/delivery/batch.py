"""A batch's books: which of its records are delivered, rejected, being posted or still to come. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared.delivery.index_ranges import to_ranges
from shared.text import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


MAX_REASONS = 150_000
"""Characters of all reasons in the output of a batch: a thousand rejections keep 150 each."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that will not be delivered: its index in the batch, and why."""

    index: int
    external_id: str
    reason: str
    status: int | None = None

    @classmethod
    def from_json(cls, rejection: Mapping[str, Any]) -> Rejection:
        """Read what `to_json` wrote, also in an older version of this app."""
        return cls(rejection["index"], rejection["externalId"], rejection["reason"], rejection.get("status"))

    def to_json(self) -> dict[str, Any]:
        """Give a plain object for a durable boundary."""
        status = {} if self.status is None else {"status": self.status}
        return {"index": self.index, "externalId": self.external_id, **status, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class OrderResult:
    """What came of one order: indices, and the rejections. `retry_after` is the longest wish in seconds, if any.

    `uncertain` are those of the deferred that the partner may have stored all the same; `reason` is one of theirs.
    `is_lost` says that there is no result: the activity failed. That is the orchestrator's word, no activity's.
    """

    created: Sequence[int] = ()
    exists: Sequence[int] = ()
    rejected: Sequence[Rejection] = ()
    deferred: Sequence[int] = ()
    uncertain: Sequence[int] = ()
    retry_after: float | None = None
    reason: str | None = None
    is_lost: bool = False

    @classmethod
    def from_json(cls, result: Mapping[str, Any]) -> OrderResult:
        """Read what `to_json` wrote, also in an older version of this app."""
        return cls(
            created=result.get("created", ()),
            exists=result.get("exists", ()),
            rejected=[Rejection.from_json(rejection) for rejection in result.get("rejected", ())],
            deferred=result.get("deferred", ()),
            uncertain=result.get("uncertain", ()),
            retry_after=result.get("retryAfter"),
            reason=result.get("reason"),
        )

    def to_json(self) -> dict[str, Any]:
        """Give a plain object for a durable boundary, without the members that say nothing."""
        result = {
            "created": list(self.created),
            "exists": list(self.exists),
            "rejected": [rejection.to_json() for rejection in self.rejected],
            "deferred": list(self.deferred),
            "uncertain": list(self.uncertain),
            "retryAfter": self.retry_after,
            "reason": self.reason,
        }
        return {name: value for name, value in result.items() if value not in ([], None)}


@dataclass(slots=True)
class BatchBooks:
    """The books of one batch of `total` records; `to_look_up` are those to look up before they are posted again.

    `suspects` are those whose last activity failed: one of them may be what ends it each time.
    """

    total: int
    to_look_up: set[int]
    created: set[int] = field(default_factory=set)
    exists: set[int] = field(default_factory=set)
    rejected: dict[int, Rejection] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)

    def enter(self, result: OrderResult) -> None:
        """Enter what came of an order."""
        self.created.update(result.created)
        self.exists.update(result.exists)
        self.rejected.update((rejection.index, rejection) for rejection in result.rejected)
        self.to_look_up.update(result.uncertain)
        if result.is_lost:
            self.suspects.update(result.deferred)
        else:
            self.suspects.difference_update(result.deferred)

    def pending(self) -> list[int]:
        """Give the records of which nothing final is known, in order."""
        done = self.created | self.exists | self.rejected.keys()
        return [index for index in range(self.total) if index not in done]

    def counts(self) -> dict[str, int]:
        """Count the records by what came of them."""
        created, exists, rejected = len(self.created), len(self.exists), len(self.rejected)
        deferred = self.total - created - exists - rejected
        return {
            "total": self.total,
            "created": created,
            "exists": exists,
            "rejected": rejected,
            "deferred": deferred,
        }

    def progress(self, posting: Iterable[int] = ()) -> dict[str, Any]:
        """Give the custom status: the counts, and which records are delivered, rejected and just being posted.

        A terminated batch is left with it: what is `posting` then may or may not have reached the partner.
        """
        ranges = {
            "delivered": to_ranges(self.created | self.exists),
            "rejectedRecords": to_ranges(self.rejected),
            "posting": to_ranges(posting),
        }
        return self.counts() | {name: text for name, text in ranges.items() if text}

    def result(self) -> dict[str, Any]:
        """Give the batch's output: the counts, and every rejected record."""
        # A message of the Durable Task Scheduler has 1 MiB at most.
        most = MAX_REASONS // max(1, len(self.rejected))
        rejections = [rejection.to_json() for _, rejection in sorted(self.rejected.items())]
        for rejection in rejections:
            rejection["reason"] = shortened(rejection["reason"], most)
        return self.counts() | {"rejections": rejections}
