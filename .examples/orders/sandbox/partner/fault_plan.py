"""Which of the set faults hit a request: all decisions come from one seed."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from fnmatch import translate
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

import msgspec

from sandbox.partner.faults import Concurrency, Fault, Limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sandbox.partner.faults import AnyFault, Route, Stage

FaultT = TypeVar("FaultT", bound=Fault)


@dataclass(frozen=True, slots=True)
class Target:
    """What a fault sees of a request: its route, partner, resource and record; None where it names none."""

    route: Route
    partner: str
    resource: str | None = None
    record: str | None = None


@dataclass(slots=True)
class TokenBucket:
    """Takes `rate` requests a second and `burst` at once; times are in seconds."""

    rate: float
    burst: float
    level: float
    filled_at: float

    def take(self, now: float) -> bool:
        """Take one request, if there is room."""
        self.level = min(self.burst, self.level + (now - self.filled_at) * self.rate)
        self.filled_at = now
        if self.level < 1:
            return False
        self.level -= 1
        return True

    @property
    def next_after(self) -> float:
        """The seconds until the next request is taken."""
        return max(0.0, (1 - self.level) / self.rate)

    def headers(self, form: str) -> tuple[tuple[str, str], ...]:
        """Return the headers that tell what is left."""
        left, reset = int(self.level), math.ceil((self.burst - self.level) / self.rate)
        if form == "draft":  # draft-ietf-httpapi-ratelimit-headers-10
            policy = f'"sandbox";q={int(self.burst)};w={math.ceil(self.burst / self.rate)}'
            return ("ratelimit-policy", policy), ("ratelimit", f'"sandbox";r={left};t={reset}')
        if form == "x":
            names = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
            return tuple(zip(names, (str(int(self.burst)), str(left), str(reset)), strict=True))
        return ()


@dataclass(slots=True)
class ArmedFault:
    """A fault in force: what it may hit, what it has seen and how often it hit."""

    fault: AnyFault
    place: int
    armed_at: float
    pattern: re.Pattern[str] | None
    matched: int = 0
    fired: int = 0
    seen: Counter[Target] = field(default_factory=Counter)
    buckets: dict[str, TokenBucket] = field(default_factory=dict)

    def means(self, target: Target) -> bool:
        """Tell whether the fault means such requests."""
        fault = self.fault
        return (
            target.route in fault.routes
            and fault.partner in {None, target.partner}
            and fault.resource in {None, target.resource}
            and (self.pattern is None or (target.record is not None and self.pattern.match(target.record) is not None))
        )

    def hits(self, *, chance: float, now: float) -> bool:
        """Tell whether the fault hits this request, one that it means; `chance` is 0 to 1."""
        fault = self.fault
        self.matched += 1
        if self.matched <= fault.skip or (fault.times is not None and self.fired >= fault.times):
            return False
        if fault.window is not None and not fault.window[0] <= now - self.armed_at < fault.window[1]:
            return False
        return chance < fault.probability

    def bucket(self, partner: str, now: float) -> TokenBucket | None:
        """Return the bucket of this partner; None if the fault is no `Limit`."""
        if isinstance(self.fault, Limit) and partner not in self.buckets:
            burst = self.fault.burst or max(1.0, self.fault.rate)
            self.buckets[partner] = TokenBucket(self.fault.rate, burst, burst, now)
        return self.buckets.get(partner)


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault that hits, with a number from 0 to 1 for its use.

    `headers` tell what is left of a `Limit`; its fault is None where the request is within it.
    """

    fault: AnyFault | None
    fraction: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    next_after: float = 0.0


class FaultPlan:
    """The faults in force, in the order in which they were set.

    Whether a fault hits depends on the seed, the fault's place in the plan, the request's route and record, and how
    many such requests the fault has seen: never on which of several concurrent requests came first. So a schedule
    repeats itself, unless it uses `times`, `skip`, `window`, `limit` or `concurrency`.
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

    def replace_kinds(self, faults: Sequence[AnyFault]) -> None:
        """Put these faults in the place of those of the same kinds."""
        kinds = {type(fault) for fault in faults}
        kept = [armed.fault for armed in self._armed if type(armed.fault) not in kinds]
        self.replace([*kept, *faults])

    def add(self, faults: Sequence[AnyFault]) -> None:
        """Put these faults after the others."""
        now = self._clock()
        self._armed = [
            *self._armed,
            *(
                ArmedFault(fault, place, now, None if fault.record is None else re.compile(translate(fault.record)))
                for place, fault in enumerate(faults, start=len(self._armed))
            ),
        ]

    def hitting(self, stage: Stage, target: Target, in_flight: int = 0) -> Iterator[Hit]:
        """Yield each fault that hits this request; `in_flight` requests are at its partner, this one included.

        A fault counts as fired when it is yielded, so a caller that stops early leaves the later ones untouched.
        """
        for armed in self._armed:
            if armed.fault.stage == stage and (hit := self._hit(armed, target, in_flight)):
                yield hit

    def quirk(self, kind: type[FaultT], target: Target) -> FaultT | None:
        """Return the first fault of this kind, of the stage "inside", that hits; it counts as fired."""
        for armed in self._armed:
            if isinstance(armed.fault, kind) and self._hit(armed, target, 0):
                return armed.fault
        return None

    def to_json(self) -> list[dict[str, object]]:
        """Return each fault as it was set, with `fired`: how often it hit."""
        return [{**msgspec.to_builtins(armed.fault), "fired": armed.fired} for armed in self._armed]

    def _hit(self, armed: ArmedFault, target: Target, in_flight: int) -> Hit | None:
        if not armed.means(target):
            return None
        armed.seen[target] += 1
        chance, fraction = _draw(self._seed, armed.place, target.route, target.record, armed.seen[target])
        now, fault = self._clock(), armed.fault
        if not armed.hits(chance=chance, now=now):
            return None
        hit: Hit = Hit(fault, fraction)
        if isinstance(fault, Concurrency) and in_flight <= fault.most:
            return None
        if isinstance(fault, Limit) and (bucket := armed.bucket(target.partner, now)):
            is_taken = bucket.take(now)
            hit = Hit(None if is_taken else fault, fraction, bucket.headers(fault.headers), bucket.next_after)
        armed.fired += hit.fault is not None
        return hit


def _draw(*key: object) -> tuple[float, float]:
    """Return two numbers, each from 0 to below 1, that depend on the key alone."""
    digest = blake2b(repr(key).encode(), digest_size=16).digest()
    # 53 bits are what a float holds exactly.
    return (int.from_bytes(digest[:8]) >> 11) / 2**53, (int.from_bytes(digest[8:]) >> 11) / 2**53
