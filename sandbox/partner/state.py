"""Everything that the partner knows since its start or its last reset."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sandbox.partner.counters import Counters
from sandbox.partner.fault_plan import FaultPlan
from sandbox.partner.records import Keys, Records
from sandbox.partner.tokens import Tokens
from sandbox.partner.waits import Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from sandbox.partner.config import PartnerConfig


class State:
    """Counters, tokens, records, keys, faults and waits of one life of the partner."""

    def __init__(self, config: PartnerConfig, clock: Callable[[], float]) -> None:
        self.counters = Counters()
        self.tokens = Tokens(clock)
        self.records = Records()
        self.keys = Keys()
        self.plan = FaultPlan(config.faults, seed=config.seed, clock=clock)
        self.waits = Waits()
        self.seen_assertions: set[str] = set()


class Partner:
    """The partner: its configuration and its current state. `clock` gives seconds.

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
