from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.delivery.outcome import Outcome
from shared.delivery.partner_gate import FAILURES, FEW, FIRST_CLOSURE, LONGEST_CLOSURE, PROBE_PAUSE, TRUST, PartnerGate

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

CREATED = Outcome("created", "b-1", 201)
REJECTED = Outcome("rejected", "b-1", 422)
BROKEN = Outcome("deferred", "b-1", 500)


def busy(retry_after: float | None = None, status: int = 429) -> Outcome:
    return Outcome("deferred", "b-1", status, retry_after=retry_after)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> PartnerGate:
    return PartnerGate(clock)


async def call(gate: PartnerGate, outcome: Outcome | None) -> None:
    """One call that goes ahead at once, and what comes of it."""
    assert await gate.admit() == 0
    gate.learn(outcome)


async def call_all(gate: PartnerGate, outcomes: Sequence[Outcome | None]) -> None:
    """Calls that are all under way before the first of them is answered."""
    for _ in outcomes:
        assert await gate.admit() == 0
    for outcome in outcomes:
        gate.learn(outcome)


async def settle() -> None:
    """Let every task go on until it waits."""
    for _ in range(10):
        await asyncio.sleep(0)


def admissions(gate: PartnerGate, count: int) -> list[asyncio.Task[float]]:
    return [asyncio.create_task(gate.admit()) for _ in range(count)]


def admitted(tasks: Sequence[asyncio.Task[float]]) -> int:
    return sum(1 for task in tasks if task.done() and not task.cancelled() and task.result() == 0)


async def give_up(tasks: Sequence[asyncio.Task[float]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_clock_is_the_processs_own_where_none_is_given() -> None:
    gate = PartnerGate()

    await call(gate, busy(20))
    assert 19 < await gate.admit() <= 20


async def test_a_partner_of_whom_nothing_is_known_is_asked_by_few(gate: PartnerGate) -> None:
    tasks = admissions(gate, 100)
    await settle()

    assert admitted(tasks) == FEW
    await give_up(tasks)


@pytest.mark.parametrize("answer", [CREATED, REJECTED, Outcome("exists", "b-1", 200)])
async def test_one_answer_lets_all_ahead_who_have_waited_for_it(gate: PartnerGate, answer: Outcome) -> None:
    tasks = admissions(gate, 1_000)
    await settle()
    gate.learn(answer)
    await settle()

    assert admitted(tasks) == 1_000


async def test_trust_in_a_silent_partner_passes(gate: PartnerGate, clock: Clock) -> None:
    await call(gate, CREATED)
    clock.now += TRUST - 0.01
    trusting = admissions(gate, 50)
    await settle()
    assert admitted(trusting) == 50
    await call_all(gate, [])

    clock.now += 0.02
    wary = admissions(gate, 50)
    await settle()
    assert admitted(wary) == 0
    await give_up(wary)


async def test_an_answer_that_says_nothing_of_the_partner_lets_one_more_ahead(gate: PartnerGate) -> None:
    tasks = admissions(gate, FEW + 3)
    await settle()
    gate.learn(None)
    await settle()

    assert admitted(tasks) == FEW + 1
    await give_up(tasks)


async def test_failures_one_after_the_other_close_it(gate: PartnerGate) -> None:
    for _ in range(FAILURES - 1):
        await call(gate, BROKEN)
    assert await gate.admit() == 0
    gate.learn(BROKEN)

    assert await gate.admit() == FIRST_CLOSURE


async def test_a_success_between_failures_keeps_it_open(gate: PartnerGate) -> None:
    for outcome in [BROKEN] * (FAILURES - 1) + [REJECTED] + [BROKEN] * (FAILURES - 1):
        await call(gate, outcome)

    assert await gate.admit() == 0


async def test_what_says_nothing_of_the_partner_is_no_success_and_no_failure(gate: PartnerGate) -> None:
    for outcome in [BROKEN] * (FAILURES - 1) + [None] * 20:
        await call(gate, outcome)
    await call(gate, BROKEN)

    assert await gate.admit() > 0


@pytest.mark.parametrize(("status", "retry_after"), [(429, None), (429, 0.5), (503, 0.5)])
async def test_a_partner_that_asks_for_a_pause_closes_it_at_once(
    gate: PartnerGate, status: int, retry_after: float | None
) -> None:
    await call(gate, busy(retry_after, status=status))

    assert await gate.admit() == FIRST_CLOSURE


async def test_one_server_of_many_that_is_down_does_not_close_it(gate: PartnerGate) -> None:
    await call(gate, busy(status=503))

    assert await gate.admit() == 0


@pytest.mark.parametrize(
    ("retry_after", "wait"), [(0.0, FIRST_CLOSURE), (0.2, FIRST_CLOSURE), (12.5, 12.5), (3_600.0, LONGEST_CLOSURE)]
)
async def test_it_closes_for_as_long_as_the_partner_asks_within_bounds(
    gate: PartnerGate, retry_after: float, wait: float
) -> None:
    await call(gate, busy(retry_after))

    assert await gate.admit() == wait


async def test_of_several_wishes_the_longest_counts(gate: PartnerGate) -> None:
    await call_all(gate, [busy(5), busy(20), busy(8)])

    assert await gate.admit() == 20


async def test_a_retry_after_of_another_failure_is_not_for_all(gate: PartnerGate) -> None:
    # A 409 or a 500 that names a time is about one record, not about the partner.
    await call_all(gate, [Outcome("deferred", "b-1", 409, retry_after=25.0)] * FAILURES)

    assert await gate.admit() == FIRST_CLOSURE


async def test_the_wait_shrinks_as_time_goes_on_but_not_below_a_probes_pause(gate: PartnerGate, clock: Clock) -> None:
    await call(gate, busy(10))
    clock.now += 4
    assert await gate.admit() == 6
    clock.now += 5.9
    assert await gate.admit() == PROBE_PAUSE


async def test_all_that_wait_are_held_back_when_it_closes(gate: PartnerGate) -> None:
    tasks = admissions(gate, 200)
    await settle()
    gate.learn(busy(7))
    await settle()

    assert admitted(tasks) == FEW
    assert {task.result() for task in tasks} == {0, 7}


async def test_a_success_that_was_sent_before_it_closed_does_not_open_it(gate: PartnerGate) -> None:
    await call(gate, CREATED)
    await call_all(gate, [busy(30), *[CREATED] * 99])

    assert await gate.admit() == 30


async def test_a_failure_that_was_sent_before_it_closed_does_not_prolong_it(gate: PartnerGate, clock: Clock) -> None:
    for _ in range(2 * FAILURES):
        await gate.admit()
        await gate.admit()
        gate.learn(CREATED)
    for _ in range(FAILURES):
        gate.learn(BROKEN)
    clock.now += FIRST_CLOSURE / 2
    for _ in range(FAILURES):
        gate.learn(BROKEN)

    assert await gate.admit() == pytest.approx(max(FIRST_CLOSURE / 2, PROBE_PAUSE))
    clock.now += FIRST_CLOSURE / 2
    assert await gate.admit() == 0


async def close(gate: PartnerGate, clock: Clock) -> None:
    """Close it and let its time pass."""
    await call(gate, busy())
    clock.now += FIRST_CLOSURE


async def test_afterwards_one_at_a_time_probes(gate: PartnerGate, clock: Clock) -> None:
    await close(gate, clock)
    waits = [await gate.admit() for _ in range(100)]

    assert waits == [0, *[PROBE_PAUSE] * 99]


async def test_a_probe_that_is_answered_opens_it_for_all(gate: PartnerGate, clock: Clock) -> None:
    await close(gate, clock)
    await call(gate, REJECTED)

    assert [await gate.admit() for _ in range(100)] == [0] * 100


@pytest.mark.parametrize("failure", [BROKEN, busy(), Outcome("deferred", "b-1")])
async def test_each_failed_probe_closes_it_for_twice_as_long_up_to_a_bound(
    gate: PartnerGate, clock: Clock, failure: Outcome
) -> None:
    await close(gate, clock)
    waits = []
    for _ in range(7):
        await call(gate, failure)
        waits.append(await gate.admit())
        clock.now += waits[-1]

    assert waits == [2, 4, 8, 16, 30, 30, 30]


async def test_after_a_success_it_closes_for_a_short_time_again(gate: PartnerGate, clock: Clock) -> None:
    await close(gate, clock)
    await call(gate, busy())
    clock.now += 2
    await call(gate, CREATED)
    await call(gate, busy())

    assert await gate.admit() == FIRST_CLOSURE


async def test_a_probe_that_says_nothing_of_the_partner_makes_way_for_the_next(gate: PartnerGate, clock: Clock) -> None:
    await close(gate, clock)
    await call(gate, None)

    assert [await gate.admit() for _ in range(2)] == [0, PROBE_PAUSE]


async def test_no_probe_goes_ahead_while_calls_from_before_are_under_way(gate: PartnerGate, clock: Clock) -> None:
    assert await gate.admit() == 0
    await close(gate, clock)

    assert await gate.admit() == PROBE_PAUSE
    gate.learn(None)
    assert await gate.admit() == 0


async def test_a_waiter_that_is_cancelled_takes_nobodys_place(gate: PartnerGate) -> None:
    ahead = admissions(gate, FEW)
    gone, kept = admissions(gate, 50), admissions(gate, 50)
    await settle()
    await give_up(gone)
    gate.learn(CREATED)
    await settle()

    assert admitted(ahead) == FEW
    assert admitted(kept) == 50


async def test_a_waiter_that_is_cancelled_while_it_is_let_ahead_takes_nobodys_place(
    gate: PartnerGate, clock: Clock
) -> None:
    ahead, waiting = admissions(gate, FEW), admissions(gate, 3)
    await settle()
    gate.learn(None)
    waiting[0].cancel()
    await settle()

    assert admitted(ahead) == FEW
    assert [task.cancelled() for task in waiting] == [True, False, False]
    assert admitted(waiting) == 1
    await give_up(waiting)
    for _ in range(FEW):
        gate.learn(None)
    await close(gate, clock)
    assert await gate.admit() == 0, "a place is taken by nobody"


async def test_a_place_wakes_one_of_thousands_and_not_all_of_them(gate: PartnerGate) -> None:
    # Each is let ahead by the one before it. Were all woken each time, this would take millions of task switches.
    switches = 0

    class CountedAdmission:
        def __await__(self) -> Generator[None]:
            nonlocal switches
            work = gate.admit().__await__()
            for step in work:
                switches += 1
                yield step

    async def go() -> None:
        await CountedAdmission()
        await asyncio.sleep(0)
        gate.learn(None)

    await asyncio.gather(*(go() for _ in range(3_000)))
    assert 2_900 < switches < 6_500


class AnyCalls(RuleBasedStateMachine):
    """Any order of calls, answers, cancellations and time, against what the gate promises."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.gate = PartnerGate(self.clock)
        self.waiting: list[asyncio.Task[float]] = []
        self.under_way = 0
        self.asked_to_wait_until = 0.0

    def teardown(self) -> None:
        self.runner.run(give_up(self.waiting))
        self.runner.close()

    def _settle(self) -> None:
        self.runner.run(settle())
        done = [task for task in self.waiting if task.done()]
        self.waiting = [task for task in self.waiting if not task.done()]
        for task in done:
            if not task.cancelled() and task.result() == 0:
                assert self.clock.now >= self.asked_to_wait_until, "a call goes ahead though the partner asked to wait"
                self.under_way += 1

    @rule(count=st.integers(1, 12))
    def come(self, count: int) -> None:
        async def start() -> list[asyncio.Task[float]]:
            return admissions(self.gate, count)

        self.waiting += self.runner.run(start())
        self._settle()

    @rule(at=st.integers(0, 11))
    @precondition(lambda self: self.waiting)
    def give_up(self, at: int) -> None:
        self.waiting[at % len(self.waiting)].cancel()
        self._settle()

    @rule(outcome=st.sampled_from([CREATED, REJECTED, BROKEN, busy(), busy(3), busy(29, 503), None]))
    @precondition(lambda self: self.under_way)
    def answer(self, outcome: Outcome | None) -> None:
        self.under_way -= 1
        self.gate.learn(outcome)
        if outcome is not None and outcome.retry_after:
            self.asked_to_wait_until = max(self.asked_to_wait_until, self.clock.now + outcome.retry_after)
        self._settle()

    @rule(seconds=st.floats(0.01, 40))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def those_who_wait_do_so_for_an_answer_that_will_come(self) -> None:
        assert not self.waiting or self.under_way >= FEW

    @invariant()
    def a_partner_with_nothing_to_do_is_asked_in_time(self) -> None:
        if self.under_way:
            return
        wait = self.runner.run(self.gate.admit())
        assert 0 <= wait <= LONGEST_CLOSURE
        if wait:
            assert wait >= PROBE_PAUSE
        else:
            self.gate.learn(None)


AnyCalls.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_any_order_of_events_keeps_the_gates_promises = AnyCalls.TestCase
