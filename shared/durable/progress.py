"""What is known of a delivery's records. The Structs travel as JSON in the inputs and results of activities. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from shared.rules.outcome import Outcome, shortened
from shared.rules.retry import retry_wait

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.rules.retry import RetryPolicy

MAX_RECORDS = 1_000
Index = Annotated[int, Meta(ge=0, lt=MAX_RECORDS)]


class Deferral(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What is known of a record that is neither delivered nor given up.

    A look-up missed it first at `absent_at`, after its last uncertain attempt. This and `due` are ages of the delivery
    in seconds. `is_uncertain`: an attempt may have stored the record. `facts` are what the last attempt says.
    """

    attempts: int = 0
    due: float = 0.0
    absent_at: float | None = None
    is_uncertain: bool = False
    facts: dict[str, Any] = {}

    def enter(self, outcome: Outcome, age: float, policy: RetryPolicy, seed: str) -> None:
        """Enter another attempt, whose outcome is known at this age of the delivery. Draw the backoff with `seed`.

        Times count from when the attempt is known to have ended, which is later than it did.
        """
        self.attempts += not outcome.was_held
        self.is_uncertain = outcome.kind == "deferred" and (self.is_uncertain or outcome.is_uncertain)
        self.facts = {"recordId": outcome.record_id or self.facts.get("recordId", ""), **outcome.facts()}
        if not outcome.is_absent:
            self.absent_at = None if outcome.is_uncertain else self.absent_at
        elif self.absent_at is None:
            self.absent_at = age - outcome.ago
        if outcome.kind == "deferred":
            step = 1 if outcome.was_held else self.attempts
            wait = retry_wait(policy, step, f"{seed}/{self.attempts}", outcome.retry_after)
            self.due = _tick(age + max(0.0, wait - outcome.ago))

    def told(self) -> Deferral:
        """Return what the next attempt has to know."""
        return Deferral(self.attempts, absent_at=self.absent_at, is_uncertain=self.is_uncertain)

    def shown(self) -> dict[str, Any]:
        """Return the members of a custom status and an output."""
        shown = {**self.facts, "attempts": self.attempts}
        return {**shown, "uncertain": True} if self.is_uncertain else shown


class OrderResult(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What became of the records of an order, by their indices; the others are left to the next.

    `left_for` is the seconds for which the partner is not to be asked for these. `limit` is the limit that flow control
    has found, in calls per second.
    """

    outcomes: dict[Index, Outcome] = {}
    left_for: float = 0.0
    reason: str | None = None
    limit: float | None = None


class BatchBooks(msgspec.Struct, omit_defaults=True, rename="camel"):
    """What became of each record of a batch.

    `rejections` has the records that are not delivered, as the output shows them: "rejected" by the partner, or
    "expired" at the deadline. `suspects` are pending records whose last activity failed: one may end it each time.
    """

    pending: dict[Index, Deferral] = {}
    created: set[Index] = set()
    exists: set[Index] = set()
    rejections: dict[Index, dict[str, Any]] = {}
    suspects: set[Index] = set()

    def enter(self, indices: Iterable[int], result: OrderResult, age: float, policy: RetryPolicy, seed: str) -> None:
        """Enter what became of the records of an order, as it is known at this age of the batch."""
        for index in indices:
            outcome = result.outcomes.get(index)
            if outcome is None:
                self.pending[index].due = _tick(age + result.left_for) if result.left_for else 0.0
                continue
            self.suspects.discard(index)
            if outcome.kind == "deferred":
                self.pending[index].enter(outcome, age, policy, seed)
            elif outcome.kind == "rejected":
                self._give_up(index, {"recordId": outcome.record_id, "state": "rejected", **outcome.facts()})
            else:
                del self.pending[index]
                (self.created if outcome.kind == "created" else self.exists).add(index)

    def expire(self, age: float, deadline: float, *, is_stalled: bool) -> None:
        """Give up the records that are not tried again before the deadline.

        Those that nobody could try are given up only if all others stand still.
        """
        most = room_of_one(self.counts()["total"])
        for index, record in list(self.pending.items()):
            if max(age, record.due) > deadline and (record.attempts or (is_stalled and age > deadline)):
                attempts = f"{record.attempts} attempt" + ("s" if record.attempts != 1 else "")
                last = record.facts.get("reason", "The partner could not be asked")
                reason = shortened(f"The deadline passed after {attempts}. {last}", most)
                rejection = {"recordId": "", "state": "expired", **record.shown(), "reason": reason}
                del rejection["attempts"]
                self._give_up(index, rejection)

    def counts(self) -> dict[str, int]:
        """Count the records by what became of them."""
        counts = {state: len(indices) for state, indices in self._ended().items()}
        return {"total": len(self.pending) + sum(counts.values()), **counts}

    def progress(self, posting: Iterable[int] = ()) -> dict[str, Any]:
        """Return the members of the custom status: the counts, and which records are in which state.

        A terminated batch is left with it: what is `posting` or `uncertain` then may have reached the partner.
        """
        records: dict[str, Iterable[int]] = {f"{state}Records": indices for state, indices in self._ended().items()}
        uncertain = {index for index, record in self.pending.items() if record.is_uncertain}
        uncertain |= {index for index, rejection in self.rejections.items() if rejection.get("uncertain")}
        records |= {"uncertainRecords": uncertain, "posting": posting}
        ranges = {name: to_ranges(indices) for name, indices in records.items() if indices}
        return {**self.counts(), "pending": len(self.pending), **ranges}

    def _ended(self) -> dict[str, set[int]]:
        ended = {"created": self.created, "exists": self.exists, "rejected": set(), "expired": set()}
        for index, rejection in self.rejections.items():
            ended[rejection["state"]].add(index)
        return ended

    def _give_up(self, index: int, rejection: dict[str, Any]) -> None:
        del self.pending[index]
        self.suspects.discard(index)
        self.rejections[index] = {"index": index, **rejection}


def room_of_one(total: int) -> int:
    """Return the characters of the reason of one of so many records, and the code units of its problem, at most.

    The Durable Task Scheduler has a limit of 1 MiB for all.
    """
    return min(400, 150_000 // total)


def to_ranges(indices: Iterable[int]) -> str:
    """Write indices in order as "0-49,51": a thousand of them fit into a custom status."""
    runs: list[tuple[int, int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], index)
        else:
            runs.append((index, index))
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def from_ranges(text: str) -> set[int]:
    """Read what `to_ranges` wrote.

    Raises:
        ValueError: it cannot have written this.
    """
    indices: set[int] = set()
    for run in filter(None, text.split(",")):
        first, _, last = run.partition("-")
        indices.update(range(int(first), int(last or first) + 1))
    return indices


def _tick(age: float) -> float:
    """Round up to a millisecond: a timer has no finer time, and must not fire before a record is due."""
    return math.ceil(age * 1000) / 1000
