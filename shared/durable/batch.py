"""A batch's books: which of its records are delivered, given up, deferred or still to come. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from shared.durable.delivery_options import MAX_RECORDS
from shared.durable.orchestrators import next_absent_at
from shared.rules.outcome import Outcome, kept_problem, shortened
from shared.rules.retry import retry_wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from shared.rules.retry import RetryPolicy

MAX_REASONS = 150_000
"""Characters of all reasons in a batch's output, and of all problems. The Durable Task Scheduler allows 1 MiB."""

MAX_REASON = 400
"""Characters of a record's reason, and of its problem."""


def to_ranges(indices: Iterable[int]) -> str:
    """Write indices in order as "0-49,51": a thousand of them fit into a custom status."""
    runs: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
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
        if int(last or first) >= MAX_RECORDS:
            raise ValueError(f"no batch has a record {last or first}")
        indices.update(range(int(first), int(last or first) + 1))
    return indices


@dataclass(slots=True)
class Deferral:
    """What is known of a record that was deferred. `due` and `absent_at` are ages of the batch in seconds."""

    attempts: int = 0
    due: float = 0.0
    absent_at: float | None = None
    last: Outcome | None = None

    def enter(self, outcome: Outcome, age: float, policy: RetryPolicy, seed: str) -> None:
        """Enter another attempt that ended at this age of the batch, and draw the backoff with `seed`."""
        self.attempts += not outcome.was_held
        was_uncertain = self.last is not None and self.last.is_uncertain
        self.last = replace(outcome, is_uncertain=outcome.is_uncertain or was_uncertain)
        self.absent_at = next_absent_at(self.absent_at, outcome, age)
        wait = retry_wait(policy, max(1, self.attempts), f"{seed}/{self.attempts}", outcome.retry_after)
        self.due = _tick(age + wait)

    def since(self, age: float) -> Deferral:
        """Return the same with its times counted from this age."""
        absent_at = None if self.absent_at is None else self.absent_at - age
        return replace(self, due=_tick(self.due - age), absent_at=absent_at)

    def is_absent(self, age: float, settle: float) -> bool:
        """Whether a look-up missed the record `settle` seconds ago or earlier, after its last uncertain attempt."""
        return self.absent_at is not None and age - self.absent_at >= settle


@dataclass(frozen=True, slots=True)
class OrderResult:
    """What an activity did with the records of its order: outcomes by index, and what it leaves to the next.

    The times of `deferrals` count from the end of the order. `left_for` is the seconds for which the partner is not to
    be asked for what is `left`. `limit` is the limit found, in calls per second.
    """

    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    deferrals: Mapping[int, Deferral] = field(default_factory=dict)
    left: Iterable[int] = ()
    left_for: float = 0.0
    reason: str | None = None
    limit: float | None = None

    @classmethod
    def from_json(cls, result: Mapping[str, Any]) -> OrderResult:
        """Read what `to_json` wrote."""
        outcomes = {index: Outcome("created", "") for index in from_ranges(result.get("created", ""))}
        outcomes |= {index: Outcome("exists", "") for index in from_ranges(result.get("exists", ""))}
        outcomes |= {each["index"]: Outcome.from_json(each) for each in result.get("others", ())}
        deferrals = {
            each["index"]: Deferral(each["attempts"], each["due"], each.get("absentAt"), Outcome.from_json(each))
            for each in result.get("deferred", ())
        }
        left = from_ranges(result.get("left", ""))
        return cls(outcomes, deferrals, left, result.get("leftFor", 0.0), result.get("reason"), result.get("limit"))

    def to_json(self) -> dict[str, Any]:
        """Return a plain object for a durable boundary, without the members that say nothing."""
        by_kind: dict[str, list[int]] = {"created": [], "exists": []}
        others = []
        for index, outcome in self.outcomes.items():
            if outcome.kind in by_kind:
                by_kind[outcome.kind].append(index)
            else:
                others.append({"index": index, **_fitting(outcome.to_json(), MAX_REASON)})
        deferred = []
        for index, each in self.deferrals.items():
            last = {} if each.last is None else _fitting(each.last.to_json(), MAX_REASON)
            times = {"due": each.due} | ({} if each.absent_at is None else {"absentAt": each.absent_at})
            deferred.append({"index": index, **last, "attempts": each.attempts, **times})
        result: dict[str, Any] = {kind: to_ranges(indices) for kind, indices in by_kind.items()}
        result |= {"others": others, "deferred": deferred, "left": to_ranges(self.left), "leftFor": self.left_for}
        result |= {"reason": self.reason, "limit": self.limit}
        return {name: value for name, value in result.items() if value}


@dataclass(slots=True)
class BatchBooks:
    """The books of a batch of `total` records, whose deadline and backoff `policy` sets.

    `rejections` has the records that are not delivered, as the output shows them: "rejected" by the partner, or
    "expired" at the deadline. `uncertain` are those that an earlier attempt may have stored. `suspects` are those whose
    last activity failed: one of them may be what ends it each time.
    """

    total: int
    policy: RetryPolicy
    uncertain: set[int] = field(default_factory=set)
    created: set[int] = field(default_factory=set)
    exists: set[int] = field(default_factory=set)
    rejections: dict[int, dict[str, Any]] = field(default_factory=dict)
    suspects: set[int] = field(default_factory=set)
    deferrals: dict[int, Deferral] = field(default_factory=dict)

    @classmethod
    def from_json(cls, total: int, policy: RetryPolicy, books: Mapping[str, Any]) -> BatchBooks:
        """Read what `to_json` wrote."""
        uncertain, created, exists, suspects = (
            from_ranges(books.get(name, "")) for name in ("uncertain", "created", "exists", "suspects")
        )
        rejections = {each["index"]: each for each in books.get("rejections", ())}
        deferrals = {
            index: Deferral(attempts, due, absent_at, Outcome.from_json(last) if last else None)
            for index, attempts, due, absent_at, last in books.get("deferrals", ())
        }
        return cls(total, policy, uncertain, created, exists, rejections, suspects, deferrals)

    def to_json(self) -> dict[str, Any]:
        """Return a plain object for the input of the orchestration's next run."""
        most = MAX_REASONS // max(1, len(self.deferrals))
        return {
            "uncertain": to_ranges(self.uncertain),
            "created": to_ranges(self.created),
            "exists": to_ranges(self.exists),
            "suspects": to_ranges(self.suspects),
            "rejections": self._rejections(),
            "deferrals": [
                [index, each.attempts, each.due, each.absent_at, each.last and _fitting(each.last.to_json(), most)]
                for index, each in self.deferrals.items()
            ],
        }

    def enter(self, result: OrderResult, age: float) -> None:
        """Enter what became of an order that ended at this age of the batch."""
        for index, outcome in result.outcomes.items():
            self.suspects.discard(index)
            self.deferrals.pop(index, None)
            if outcome.kind == "created":
                self.created.add(index)
            elif outcome.kind == "exists":
                self.exists.add(index)
            else:
                self._give_up(index, "rejected", outcome.reason or "", outcome)
        for index, deferral in result.deferrals.items():
            self.suspects.discard(index)
            # The result arrives after the end of the order: no record is tried, or taken for absent, too early.
            self._defer(index, deferral.since(-age))
        for index in result.left:
            due = _tick(age + result.left_for) if result.left_for else 0.0
            self.deferrals.setdefault(index, Deferral()).due = due

    def enter_lost(self, indices: Iterable[int], reason: str, age: float, seed: str) -> None:
        """Enter an order whose activity failed: its records may have been posted, and one may be the cause."""
        for index in indices:
            deferral = self.deferrals.get(index, Deferral())
            deferral.enter(Outcome("deferred", "", reason=reason, is_uncertain=True), age, self.policy, seed)
            self._defer(index, deferral)
            self.suspects.add(index)

    def expire(self, age: float, *, is_stalled: bool) -> None:
        """Give up the records whose deadline has passed; those that nobody could try only if all others stand still."""
        if age <= self.policy.deadline:
            return
        for index in self.pending():
            deferral = self.deferrals.get(index, Deferral())
            if is_stalled or deferral.attempts:
                self._expire(index, deferral)

    def pending(self) -> list[int]:
        """Return the records of which nothing final is known, in order."""
        done = self.created | self.exists | self.rejections.keys()
        return [index for index in range(self.total) if index not in done]

    def forget_absence(self) -> None:
        """Forget that look-ups have missed records."""
        for deferral in self.deferrals.values():
            deferral.absent_at = None

    def counts(self) -> dict[str, int]:
        """Count the records by what became of them."""
        expired = sum(rejection["state"] == "expired" for rejection in self.rejections.values())
        return {
            "total": self.total,
            "created": len(self.created),
            "exists": len(self.exists),
            "rejected": len(self.rejections) - expired,
            "expired": expired,
        }

    def progress(self, posting: Iterable[int] = ()) -> dict[str, Any]:
        """Return the members of the custom status: the counts, and which records are in which state.

        A terminated batch is left with it: what is `posting` or `uncertain` then may have reached the partner.
        """
        counts = self.counts()
        expired = {index for index, rejection in self.rejections.items() if rejection["state"] == "expired"}
        rejected = self.rejections.keys() - expired
        pending = self.total - len(self.created) - len(self.exists) - len(self.rejections)
        ranges = {
            "createdRecords": to_ranges(self.created),
            "existsRecords": to_ranges(self.exists),
            "rejectedRecords": to_ranges(rejected),
            "expiredRecords": to_ranges(expired),
            "uncertainRecords": to_ranges(self.uncertain - self.created - self.exists - rejected),
            "posting": to_ranges(posting),
        }
        return {**counts, "pending": pending} | {name: text for name, text in ranges.items() if text}

    def result(self, record_id: Callable[[int], str]) -> dict[str, Any]:
        """Return the batch's output. `record_id` returns the id of a record for which no attempt has said it."""
        rejections = self._rejections()
        for rejection in rejections:
            rejection["recordId"] = rejection["recordId"] or record_id(rejection["index"])
        return {"state": "partly" if rejections else "delivered", **self.counts(), "rejections": rejections}

    def _rejections(self) -> list[dict[str, Any]]:
        most = MAX_REASONS // max(1, len(self.rejections))
        return [_fitting(rejection, most) for _, rejection in sorted(self.rejections.items())]

    def _defer(self, index: int, deferral: Deferral) -> None:
        self.deferrals[index] = deferral
        if deferral.last is not None and deferral.last.is_uncertain:
            self.uncertain.add(index)
        if deferral.due > self.policy.deadline:
            self._expire(index, deferral)

    def _expire(self, index: int, deferral: Deferral) -> None:
        last = deferral.last or Outcome("deferred", "", reason="The partner could not be asked")
        attempts = f"{deferral.attempts} attempt" + ("s" if deferral.attempts != 1 else "")
        reason = f"The deadline passed after {attempts}. {last.reason or ''}".strip()
        self._give_up(index, "expired", reason, last)
        self.deferrals.pop(index, None)

    def _give_up(self, index: int, state: Literal["rejected", "expired"], reason: str, outcome: Outcome) -> None:
        self.suspects.discard(index)
        optional = {
            "status": outcome.status,
            "problem": dict(outcome.problem) or None,
            "uncertain": (state == "expired" and index in self.uncertain) or None,
        }
        said = {name: value for name, value in optional.items() if value is not None}
        rejection = {"index": index, "recordId": outcome.record_id, "state": state, "reason": reason, **said}
        self.rejections[index] = _fitting(rejection, MAX_REASON)


def _fitting(said: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Return an outcome or a rejection with at most so many characters of its reason, and of its problem."""
    fitting = {**said, "reason": shortened(said.get("reason") or "", most)}
    if problem := kept_problem(fitting.pop("problem", {}), most):
        fitting["problem"] = problem
    return fitting


def _tick(age: float) -> float:
    """Round up to a millisecond: a timer has no finer time, and must not fire before a record is due."""
    return math.ceil(age * 1000) / 1000


def wake_at(dues: Sequence[float], age: float) -> float:
    """Return the age at which to go on: when a group of records that are due at nearly the same time all are.

    No record goes on before it is due, and a turn of the orchestrator is not spent on each one.
    """
    first = min(dues)
    return max(due for due in dues if due <= first + (first - age) / 4)
