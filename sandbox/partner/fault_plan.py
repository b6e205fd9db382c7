"""Which of the set faults hit a request: all decisions come from one seed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import translate
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.partner.faults import AnyFault, Route, Stage


@dataclass(slots=True)
class ArmedFault:
    """A fault in force: what it may hit, what it has seen and how often it hit."""

    fault: AnyFault
    place: int
    armed_at: float
    routes: frozenset[str]
    pattern: re.Pattern[str] | None
    matched: int = 0
    fired: int = 0
    seen: Counter[tuple[Route, str | None]] = field(default_factory=Counter)

    def matches(self, route: Route, stage: Stage, external_id: str | None) -> bool:
        """Tell whether the fault means such requests."""
        if route not in self.routes or stage != self.fault.stage:
            return False
        return self.pattern is None or (external_id is not None and self.pattern.match(external_id) is not None)

    def hits(self, *, chance: float, now: float) -> bool:
        """Tell whether the fault hits this request, one that it means; `chance` is 0 to 1."""
        fault = self.fault
        self.matched += 1
        if self.matched <= fault.skip or (fault.times is not None and self.fired >= fault.times):
            return False
        if fault.window is not None and not fault.window[0] <= now - self.armed_at < fault.window[1]:
            return False
        if chance >= fault.probability:
            return False
        self.fired += 1
        return True


class FaultPlan:
    """The faults in force, in the order in which they were set.

    Whether a fault hits depends on the seed, the fault's place in the plan, the route, the external id and how many
    such requests the fault has seen: never on which of several concurrent requests came first. So a schedule repeats
    itself, as long as it does not use `times`, `skip` or `window`.
    """

    def __init__(self, faults: Sequence[AnyFault], *, seed: int, clock: Callable[[], float]) -> None:
        self._seed = seed
        self._clock = clock
        self._armed: list[ArmedFault] = []
        self.add(faults)

    def __bool__(self) -> bool:
        """Tell whether there is any fault at all."""
        return bool(self._armed)

    def replace(self, faults: Sequence[AnyFault]) -> None:
        """Put these faults in the place of all others."""
        self._armed = []
        self.add(faults)

    def add(self, faults: Sequence[AnyFault]) -> None:
        """Put these faults after the others."""
        now = self._clock()
        added = [
            ArmedFault(
                fault=fault,
                place=place,
                armed_at=now,
                routes=fault.routes,
                pattern=None if fault.external_id is None else re.compile(translate(fault.external_id)),
            )
            for place, fault in enumerate(faults, start=len(self._armed))
        ]
        self._armed = [*self._armed, *added]

    def hitting(self, route: Route, stage: Stage, external_id: str | None) -> Iterator[tuple[AnyFault, float]]:
        """Give each fault that hits this request, with a number from 0 to 1 for its use.

        A fault counts as fired when it is given, so a caller that stops early leaves the later ones untouched.
        """
        for armed in self._armed:
            if not armed.matches(route, stage, external_id):
                continue
            armed.seen[route, external_id] += 1
            chance, fraction = _draw(self._seed, armed.place, route, external_id, armed.seen[route, external_id])
            if armed.hits(chance=chance, now=self._clock()):
                yield armed.fault, fraction

    def to_json(self) -> list[dict[str, object]]:
        """Give each fault as it was set, with `fired`: how often it hit."""
        return [{**msgspec.to_builtins(armed.fault), "fired": armed.fired} for armed in self._armed]


def _draw(*key: object) -> tuple[float, float]:
    """Give two numbers, each from 0 to below 1, that depend on the key alone."""
    digest = blake2b(repr(key).encode(), digest_size=16).digest()
    # 53 bits are what a float holds exactly.
    return (int.from_bytes(digest[:8]) >> 11) / 2**53, (int.from_bytes(digest[8:]) >> 11) / 2**53
