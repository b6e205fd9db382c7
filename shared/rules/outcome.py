"""What became of one attempt to deliver a record, as data that fits into Durable Functions' statuses. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from msgspec import field

if TYPE_CHECKING:
    from collections.abc import Mapping

OutcomeKind = Literal["created", "exists", "rejected", "deferred"]
# Characters of a reason, and UTF-16 code units of a problem: half of a custom status.
MAX_REASON, MAX_PROBLEM = 1_000, 4_000
# UTF-16 code units of a custom status as .NET writes it. Durable Functions allows 16 KB of them: 8,192.
MAX_STATUS = 8_000

# Newtonsoft.Json writes these as six characters, such as \u2028; json.dumps leaves them as they are.
_LINE_ENDS = ("\x85", "\u2028", "\u2029")
# The Durable SDK makes an instance of a class of every object that has all of these members.
_MARKERS = frozenset({"__class__", "__module__", "__data__"})
# The members of an outcome in JSON that outputs and custom statuses share.
_SHOWN = ("status", "reason", "problem", "misconfigured", "differing")


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What became of one attempt.

    `created`: the partner has stored the record. `exists`: it was there before, with the same content. `rejected`: the
    partner will not accept it. `deferred`: to be tried again, not before `retry_after` seconds; `is_uncertain`: the
    partner may have stored it; `is_absent`: a look-up did not find it after an uncertain attempt; `was_held`: the
    partner was not asked; `is_misconfigured`: somebody has to mend the app's settings or its credentials.

    `status` is the partner's HTTP status, None where there was none. `reason` is a sentence for people, `problem` is
    what the partner said (RFC 9457), `differing` the members of the partner's record that differ from what was sent.
    The attempt ended `ago` seconds before its outcome was handed on, or earlier.
    """

    kind: OutcomeKind = field(name="outcome")
    record_id: str
    status: int | None = None
    reason: str | None = None
    problem: dict[str, Any] = {}
    retry_after: float | None = None
    is_uncertain: bool = field(name="uncertain", default=False)
    is_absent: bool = field(name="absent", default=False)
    was_held: bool = field(name="held", default=False)
    is_misconfigured: bool = field(name="misconfigured", default=False)
    differing: list[str] = []
    ago: float = 0.0

    def fitted(self, reason: int = MAX_REASON, problem: int = MAX_PROBLEM) -> Outcome:
        """Return it with at most so many characters of its reason, and code units of its problem."""
        words = self.reason and shortened(self.reason, reason)
        return msgspec.structs.replace(self, reason=words, problem=kept_problem(self.problem, problem))

    def facts(self) -> dict[str, Any]:
        """Return the members that outputs and custom statuses of a delivery share."""
        return {name: value for name, value in msgspec.to_builtins(self).items() if name in _SHOWN}


def shortened(text: str, most: int) -> str:
    """Return the text, cut off with an ellipsis if it has more than `most` characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def fitted_status(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return a custom status that Durable Functions accepts: without the problem, with a shorter reason if need be."""
    fitting = dict(status)
    if written_size(fitting) > MAX_STATUS:
        fitting.pop("problem", None)
    while written_size(fitting) > MAX_STATUS and len(reason := fitting.get("reason") or "") > 1:
        fitting["reason"] = shortened(reason, len(reason) // 2)
    return fitting


def one_line(text: str, most: int) -> str:
    """Return the text as one line of at most `most` printable characters."""
    return shortened(" ".join("".join(c if c.isprintable() else " " for c in text).split()), most)


def written_size(value: object) -> int:
    """Return the UTF-16 code units of a JSON value as .NET writes it for Durable Functions."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    units = len(text.encode("utf-16-le", "surrogatepass")) // 2
    return units + 5 * sum(map(text.count, _LINE_ENDS))


def kept_problem(problem: Mapping[str, Any], most: int) -> dict[str, Any]:
    """Return as many members of a partner's problem as fit into `most` code units.

    None is returned of one that holds an object which the Durable SDK would take for one of its own.
    """
    kept: dict[str, Any] = {}
    if _has_marker(problem):
        return kept
    for name, value in problem.items():
        if written_size({**kept, name: value}) <= most:
            kept[name] = value
    return kept


def _has_marker(value: object) -> bool:
    if isinstance(value, dict):
        return value.keys() >= _MARKERS or any(map(_has_marker, value.values()))
    return isinstance(value, list) and any(map(_has_marker, value))
