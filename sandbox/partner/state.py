"""What the partners are told at their start, and all that they know since then or since their last reset."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sandbox.partner.fault_plan import FaultPlan
from sandbox.partner.records import Keys, Records
from sandbox.partner.tokens import Tokens
from sandbox.partner.waits import Waits
from sandbox.resources import base_path, client_of, partners_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sandbox.partner.faults import AnyFault, Route
    from shared.resource import Partner, Resource

_ARRIVALS: dict[Route, str] = {
    "token": "token_requests",
    "discovery": "discovery_requests",
    "post": "posts",
    "get": "lookups",
}
_OUTCOMES: dict[Route, str] = {
    "token": "token_outcomes",
    "discovery": "discovery_outcomes",
    "post": "post_outcomes",
    "get": "lookup_outcomes",
}
# Statuses that say nothing about the record: a credential, a limit or trouble.
_PUSHBACK = {"401", "403", "429", "500", "502", "503", "504", "dropped", "half"}
# Seconds of which `GET /sandbox/state` tells what happened in each.
_SECONDS_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PartnerConfig:
    """How the partners of `resources` behave, from their start on.

    `client_id` and `client_secret` are those of every partner; None: each partner has its own, `client_of`.
    `client_public_key` is the PEM of a public key or of a certificate: with it the client may authenticate with
    `private_key_jwt`. `token_lifetime` is in seconds; `expires_in` says how a token answer names it. `scopes` are those
    that a client may ask for, None for any. `idempotency` "described" honours keys where the resource says so.
    `faults` are in force from the start, their randomness comes from `seed`.
    """

    resources: Sequence[Resource] = ()
    client_id: str | None = None
    client_secret: str | None = field(default=None, repr=False)
    client_public_key: str | None = None
    token_lifetime: int = 3600
    expires_in: Literal["number", "string", "omitted"] = "number"
    scopes: frozenset[str] | None = None
    idempotency: Literal["described", "honour", "ignore"] = "described"
    unique_ids: bool = False
    faults: tuple[AnyFault, ...] = ()
    seed: int = 0


class Counters(msgspec.Struct, kw_only=True):
    """Every request is counted when it arrives, and once more under its outcome when its answer is decided.

    An outcome is the status as text ("201"), at the token endpoint also "issued" or the `error` of RFC 6749; or
    "dropped" and "half" where the partner broke the connection, "client_gone" where the client did.
    """

    token_requests: int = 0
    token_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    tokens_issued: int = 0
    discovery_requests: int = 0
    discovery_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    posts: int = 0
    post_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    lookups: int = 0
    lookup_outcomes: Counter[str] = msgspec.field(default_factory=Counter)
    # Requests to the API whose access token was missing, unknown, expired or revoked.
    unauthorised: int = 0
    # Those of them that had none at all. Counted as they arrive, whatever fault hits them.
    without_token: int = 0
    # Requests to the API that ended in a way that says nothing about the record: 401, 403, 429, 5xx, no answer.
    refused: int = 0
    records_stored: int = 0
    # Records stored although one with the same id was there.
    duplicates: int = 0
    # Records that a PUT put in the place of an earlier one.
    replaced: int = 0
    # Answers given again for an idempotency key that was seen before.
    replays: int = 0
    connections_dropped: int = 0
    clients_gone: int = 0
    # Requests to the API that are under way, and the most at any one time.
    in_flight: int = 0
    in_flight_most: int = 0
    # Requests to no endpoint.
    other_requests: int = 0

    def arrived(self, route: Route) -> None:
        """Count a request."""
        setattr(self, _ARRIVALS[route], getattr(self, _ARRIVALS[route]) + 1)
        if route in {"post", "get"}:
            self.in_flight += 1
            self.in_flight_most = max(self.in_flight_most, self.in_flight)

    def ended(self, route: Route, outcome: str) -> None:
        """Count a request's outcome."""
        getattr(self, _OUTCOMES[route])[outcome] += 1
        self.connections_dropped += outcome in {"dropped", "half"}
        self.clients_gone += outcome == "client_gone"
        if route in {"post", "get"}:
            self.in_flight -= 1
            self.refused += outcome in _PUSHBACK

    def __add__(self, other: Counters) -> Counters:
        """Return the sum of both; the sum of `in_flight_most` is an upper limit."""
        return Counters(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class Site:
    """One partner, served below its base path, with tokens, clients, records, keys and counters of its own."""

    def __init__(self, partner: Partner, config: PartnerConfig, state: State) -> None:
        self.partner = partner
        self.state = state
        self.base_path = base_path(partner)
        client_id, client_secret = client_of(partner)
        self.client_id = config.client_id or client_id
        self.client_secret = config.client_secret or client_secret
        self.counters = Counters()
        self.tokens = Tokens(state.clock)
        self.records = Records()
        self.keys = Keys()
        self.seen_assertions: set[str] = set()


class State:
    """Every partner's site, and the faults and waits that they share."""

    def __init__(self, config: PartnerConfig, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.sites = [Site(partner, config, self) for partner in partners_of(config.resources)]
        self.plan = FaultPlan(config.faults, seed=config.seed, clock=clock)
        self.waits = Waits()
        # Each second with the totals at its start.
        self._seconds: deque[tuple[int, dict[str, int]]] = deque(maxlen=_SECONDS_SHOWN)

    def counters(self) -> Counters:
        """Return the sum of all partners' counters."""
        return sum((site.counters for site in self.sites), Counters())

    def tick(self) -> None:
        """Begin a new second of `to_json`, if there is one."""
        second = int(time.time())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, _totals(self.counters())))

    def to_json(self) -> dict[str, Any]:
        """Return what the console shows: totals, the same for each partner, the last seconds, and the faults."""
        self.tick()
        faults = self.plan.to_json()
        marks = [*self._seconds, (0, _totals(self.counters()))]
        seconds = [
            {"second": second, **{name: after[name] - count for name, count in before.items()}}
            for (second, before), (_, after) in pairwise(marks)
        ]
        return {
            **_shown(self.counters()),
            "partners": {site.partner.name: _shown(site.counters) for site in self.sites},
            "seconds": seconds,
            "fault": ", ".join(str(fault["fault"]) for fault in faults) or None,
            "faults": faults,
        }


def _totals(counters: Counters) -> dict[str, int]:
    return {
        "calls": counters.posts + counters.lookups,
        "tokenRequests": counters.token_requests,
        "refused": counters.refused,
        "stored": counters.records_stored,
    }


def _shown(counters: Counters) -> dict[str, int]:
    return {
        **_totals(counters),
        "duplicates": counters.duplicates,
        "inFlight": counters.in_flight,
        "inFlightMost": counters.in_flight_most,
    }


class PartnerSandbox:
    """The partners of one process: their configuration and current state. `clock` gives seconds.

    A request keeps the state that it came into, so what was under way at a reset changes nothing after it.
    """

    def __init__(self, config: PartnerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self.config = config
        self.state = State(config, clock)
        self._clock = clock

    def reset(self) -> None:
        """Forget everything; requests that are waiting are dropped. The faults of the configuration start anew."""
        self.end_waits()
        self.state = State(self.config, self._clock)

    def end_waits(self) -> None:
        """Drop every request that is waiting."""
        self.state.waits.end()
