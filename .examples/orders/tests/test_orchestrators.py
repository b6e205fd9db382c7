from __future__ import annotations

import ast
import json
import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.sample import business
from shared.delivery import activities, orchestrators
from shared.delivery.activity_failure import MAX_REASON
from shared.delivery.attempt import Attempt
from shared.delivery.orchestrators import deliver_business
from shared.delivery.partner_gate import PartnerGate
from shared.delivery.retry import RetryPolicy, retry_wait
from shared.delivery.verdict import TOKEN_PATIENCE
from tests.fakes.fast_loop import run_fast
from tests.fakes.replay import START, Clock, Play, answer_to, play, replay
from tests.fakes.scripted_partner import ScriptedPartner, found, missing, refused

if TYPE_CHECKING:
    from collections.abc import Generator

SHARED = Path(orchestrators.__file__).parents[1]
RECORD = business("b-1")
CREATED = {"outcome": "created", "externalId": "b-1", "status": 201}
EXISTS = {"outcome": "exists", "externalId": "b-1", "status": 200}
REJECTED = {
    "outcome": "rejected",
    "externalId": "b-1",
    "status": 422,
    "reason": "The partner answered 422: Refused: no such city",
    "problem": {"title": "Refused", "detail": "no such city", "city": "Xanadú"},
}


def deferred(*, reason: str = "The partner answered 503, a fault of its own", **more: object) -> dict[str, Any]:
    return {"outcome": "deferred", "externalId": "b-1", "status": 503, "reason": reason} | more


def order(
    look_up: str = "always", deadline: float = 86_400.0, first: float = 1.0, most: float = 300.0
) -> dict[str, Any]:
    return {"business": RECORD, "retry": RetryPolicy(deadline, first, most).to_json(), "lookUp": look_up}


async def deliver(
    *outcomes: dict[str, Any] | Exception,
    input_: dict[str, Any] | None = None,
    clock: Clock | None = None,
    takes: float = 0.0,
    instance_id: str = "0f5c2d",
) -> Play:
    """Play a delivery whose attempts come to these outcomes, each after so many seconds; and replay it."""
    script = list(outcomes)
    clock = clock or Clock()

    async def post_business(name: str, _attempt: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
        assert name == "PostBusiness"
        clock.advance(takes)
        outcome = script.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    run = await play(deliver_business, input_ or order(), post_business, clock=clock, instance_id=instance_id)
    assert not script, "the delivery ended before its script"
    assert replay(run) == len(run.history) - 1
    return run


def attempts(run: Play) -> list[Attempt]:
    return [Attempt.from_json(given) for _, given in run.activities]


@pytest.mark.parametrize("outcome", [CREATED, EXISTS])
async def test_a_delivery_ends_with_its_outcome_and_the_number_of_attempts(outcome: dict[str, Any]) -> None:
    run = await deliver(outcome)

    assert run.output == {**outcome, "attempts": 1}
    assert run.last.custom_status == {**outcome, "attempts": 1}
    assert run.timers == []


async def test_an_attempt_is_told_all_it_needs() -> None:
    run = await deliver(CREATED)

    assert attempts(run) == [Attempt(RECORD, "0f5c2d", "0f5c2d", 1, look_up=True)]


async def test_a_deferred_delivery_waits_on_a_durable_timer_and_tries_again() -> None:
    run = await deliver(deferred(), deferred(), CREATED)

    waits = [retry_wait(RetryPolicy(), number, "0f5c2d") for number in (1, 2)]
    assert run.timers == [START + timedelta(seconds=waits[0]), START + timedelta(seconds=sum(waits))]
    assert [attempt.number for attempt in attempts(run)] == [1, 2, 3]
    assert [attempt.age for attempt in attempts(run)] == pytest.approx([0, waits[0], sum(waits)], abs=1e-5)
    assert {attempt.idempotency_key for attempt in attempts(run)} == {"0f5c2d"}
    assert run.output == {**CREATED, "attempts": 3}


async def test_while_it_waits_the_custom_status_says_why_and_until_when() -> None:
    run = await deliver(deferred(), CREATED)

    assert run.custom_statuses == [
        None,
        deferred() | {"attempts": 1, "nextAttempt": run.timers[0].isoformat()},
        deferred() | {"attempts": 1, "nextAttempt": run.timers[0].isoformat()},
        CREATED | {"attempts": 2},
    ]


async def test_retry_after_is_a_floor() -> None:
    run = await deliver(deferred(retryAfter=600), CREATED)

    assert run.timers[0] >= START + timedelta(seconds=600)
    assert run.timers[0] <= START + timedelta(seconds=602)


async def test_a_short_retry_after_does_not_shorten_the_wait() -> None:
    run = await deliver(*[deferred(retryAfter=0)] * 9, CREATED)

    assert run.timers[8] - run.timers[7] >= timedelta(seconds=150)


async def test_the_wait_counts_from_the_end_of_an_attempt() -> None:
    run = await deliver(deferred(retryAfter=10), CREATED, takes=30)

    assert run.timers[0] >= START + timedelta(seconds=40)


async def test_a_wait_of_weeks_is_served_by_several_timers() -> None:
    # The SDK splits what is longer than the storage's longest timer.
    days = 86_400.0
    run = await deliver(deferred(retryAfter=10 * days), CREATED, input_=order(deadline=30 * days))

    assert len(run.timers) > 2
    assert run.timers[-1] >= START + timedelta(days=10)
    assert run.output["attempts"] == 2


async def test_two_deliveries_do_not_wait_in_step() -> None:
    one, two = await deliver(deferred(), CREATED), await deliver(deferred(), CREATED, instance_id="another")

    assert one.timers != two.timers


async def test_a_rejected_delivery_fails_with_the_problem_of_the_partner() -> None:
    run = await deliver(deferred(), REJECTED)

    assert run.failure == (
        "Business 'b-1' was rejected after 2 attempts: The partner answered 422: Refused: no such city "
        '{"title": "Refused", "detail": "no such city", "city": "Xanadú"}'
    )
    assert run.last.custom_status == {**REJECTED, "attempts": 2}


async def test_a_rejection_without_words_is_told_as_well() -> None:
    run = await deliver({"outcome": "rejected", "externalId": "b-1"})

    assert run.failure == "Business 'b-1' was rejected after 1 attempt: rejected"


async def test_past_its_deadline_a_delivery_fails_and_says_why() -> None:
    run = await deliver(*[deferred()] * 4, input_=order(deadline=14))

    assert run.failure == (
        "Business 'b-1' was given up after 4 attempts: the deadline of 14 s would pass before the next one. "
        "The last one: The partner answered 503, a fault of its own"
    )
    assert run.last.custom_status == deferred() | {"attempts": 4}
    assert run.clock.now <= START + timedelta(seconds=14)


async def test_a_long_deadline_is_told_in_plain_digits() -> None:
    run = await deliver(deferred(retryAfter=9e7), input_=order(deadline=365 * 86_400))

    assert "the deadline of 31536000 s would pass" in run.failure


@pytest.mark.parametrize("seconds", [86_401, 1e9, 1e12, 999_999_999_999_999.9])
async def test_a_wish_that_no_date_holds_ends_the_delivery_with_its_message(seconds: float) -> None:
    run = await deliver(deferred(retryAfter=seconds))

    assert run.failure.startswith("Business 'b-1' was given up after 1 attempt: the deadline of 86400 s would pass")


async def test_an_attempt_whose_activity_fails_is_made_again_and_looks_up() -> None:
    lost = RuntimeError("python exited with code 137 (0x89)\n  Stack: …")
    run = await deliver(lost, CREATED, input_=order(look_up="uncertain"))

    assert run.output == CREATED | {"attempts": 2}
    assert [attempt.look_up for attempt in attempts(run)] == [False, True]
    waiting = run.custom_statuses[1]
    assert (waiting["outcome"], waiting["externalId"], waiting["uncertain"]) == ("deferred", "b-1", True)
    assert waiting["reason"] == (
        "The attempt ended without a result, and may have posted: "
        "Activity function failed: RuntimeError: python exited with code 137 (0x89) Stack: …"
    )


async def test_an_activity_that_fails_until_the_deadline_fails_the_delivery_with_its_last_words() -> None:
    run = await deliver(ZeroDivisionError("division by zero " * 100), input_=order(deadline=0.1))

    assert "was given up after 1 attempt" in run.failure
    assert "ZeroDivisionError: division by zero" in run.failure
    assert len(run.last.custom_status["reason"]) == MAX_REASON


async def test_once_the_fate_of_an_attempt_is_unknown_all_later_ones_look_up() -> None:
    run = await deliver(deferred(), deferred(uncertain=True), deferred(), CREATED, input_=order(look_up="uncertain"))

    assert [attempt.look_up for attempt in attempts(run)] == [False, False, True, True]


async def test_where_the_settings_say_so_every_attempt_looks_up() -> None:
    run = await deliver(deferred(), CREATED, input_=order(look_up="always"))

    assert [attempt.look_up for attempt in attempts(run)] == [True, True]


async def test_the_least_that_any_version_has_started_with_is_delivered() -> None:
    run = await deliver(deferred(), CREATED, input_={"business": RECORD})

    assert run.output["attempts"] == 2
    assert [attempt.look_up for attempt in attempts(run)] == [True, True]


async def test_the_terms_of_a_delivery_are_those_it_began_with() -> None:
    run = await deliver(deferred(), CREATED, input_=order(first=40, most=40))

    assert run.timers == [START + timedelta(seconds=40)]


@settings(max_examples=40)
@given(
    st.lists(
        st.builds(deferred, retryAfter=st.none() | st.floats(0, 1e6), uncertain=st.booleans())
        | st.builds(RuntimeError, st.text()),
        max_size=8,
    ),
    st.sampled_from([CREATED, EXISTS, REJECTED]),
    st.floats(0.01, 300),
    st.floats(1, 1e7),
    st.text(alphabet="0123456789abcdef-", min_size=1, max_size=40),
)
def test_every_delivery_is_replayed_to_the_same_actions(
    outcomes: list[dict[str, Any] | Exception], end: dict[str, Any], first: float, deadline: float, instance_id: str
) -> None:
    script = iter([*outcomes, end])

    async def post_business(_name: str, _attempt: object) -> dict[str, Any]:
        outcome = next(script)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    input_ = order(deadline=deadline, first=first)
    run, waited = run_fast(play(deliver_business, input_, post_business, instance_id=instance_id))

    assert replay(run) == len(run.history) - 1
    assert waited == 0
    assert run.clock.now <= START + timedelta(seconds=deadline)
    ended = run.failure if run.last.failure else json.dumps(run.output)
    assert "given up" in ended or f'"attempts": {len(outcomes) + 1}' in ended or f"after {len(outcomes) + 1} " in ended


async def test_a_replay_at_another_time_schedules_the_same() -> None:
    run = await deliver(deferred(), deferred(retryAfter=4), CREATED)
    year = timedelta(days=365)
    later = Play(run.orchestrator, run.instance_id, run.input, Clock(START + year))
    later.history = [event | {"Timestamp": _shifted(event["Timestamp"], year)} for event in run.history]

    def fires(answer_of: Play) -> list[Any]:
        return [action.get("fireAt") for action in answer_to(answer_of).actions]

    assert fires(later) == [moment and _shifted(moment, year) for moment in fires(run)]


def _shifted(stamp: str, by: timedelta) -> str:
    return (datetime.fromisoformat(stamp) + by).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def test_a_replay_notices_an_orchestrator_that_reads_the_clock() -> None:
    # The check of the check: every replay above would be worth nothing if this one passed.
    def impatient(context: Any) -> Generator[Any, Any, dict[str, Any]]:  # noqa: ANN401 - the Durable SDK's
        yield context.create_timer(START + timedelta(microseconds=time.time_ns() % 10**9))
        return {}

    async def nothing(_name: str, _given: object) -> None:
        raise AssertionError("no activity is called")

    with pytest.raises(AssertionError, match="takes back what it has scheduled"):
        await play(impatient, {}, nothing)


async def test_a_replay_notices_an_orchestrator_that_was_changed_under_way() -> None:
    run = await deliver(deferred(), CREATED)

    def changed(context: Any) -> Generator[Any, Any, dict[str, Any]]:  # noqa: ANN401 - the Durable SDK's
        yield context.call_activity("PostBusiness", {"business": RECORD})
        return {}

    with pytest.raises(AssertionError, match="other actions after"):
        replay(run, changed)


async def test_no_orchestrator_logs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "shared")

    await deliver(deferred(), CREATED)
    await deliver(REJECTED)

    assert [record for record in caplog.records if record.name.startswith("shared")] == []


@pytest.mark.parametrize(
    "input_", [None, [], {"retry": {}}, order(first=-1), order(deadline=1e308), order() | {"retry": {"max": "x"}}]
)
async def test_an_input_that_the_intake_does_not_make_fails_at_the_first_step(input_: Any) -> None:  # noqa: ANN401 - any JSON
    async def nobody(_name: str, _given: object) -> None:
        raise AssertionError("an activity was called")

    run = await play(deliver_business, input_, nobody)
    assert "The input is none that this app starts a delivery with: " in run.failure
    assert len(run.episodes) == 1


def _modules_behind(*names: str) -> dict[str, ast.Module]:
    """Give the trees of these modules and of all of ours that they import when they run."""
    trees: dict[str, ast.Module] = {}
    ahead = list(names)
    while ahead:
        name = ahead.pop()
        if name in trees:
            continue
        path = SHARED.parent.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        trees[name] = ast.parse(path.read_text(encoding="utf-8"))
        ahead += [imported for imported in _imports(trees[name]) if imported.startswith("shared.")]
    return trees


def _imports(tree: ast.Module) -> set[str]:
    """Give the modules that a module imports when it runs: not those for its types only."""
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    imported: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
    return imported


def test_no_orchestrator_can_reach_the_clock_randomness_the_environment_or_the_network() -> None:
    trees = _modules_behind("shared.delivery.orchestrators", "shared.delivery.batch_orchestrator")
    foreign = {name for tree in trees.values() for name in _imports(tree) if not name.startswith("shared.")}
    attributes = {node.attr for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    called = {node.id for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.Name)}

    pure = {"base64", "dataclasses", "datetime", "hashlib", "itertools", "json", "msgspec", "re", "typing", "zlib"}
    assert foreign <= {"__future__", *pure}
    assert attributes.isdisjoint({"now", "utcnow", "today", "fromtimestamp", "environ", "getenv"})
    assert called.isdisjoint({"open", "print", "input", "hash", "id", "__import__", "exec", "eval"})


async def test_a_delivery_through_every_trouble_stores_the_record_once() -> None:
    stored = httpx.Response(200, json=RECORD | {"id": 7})
    partner = ScriptedPartner(
        httpx.ConnectError("down"),
        refused(429, retry_after="5"),
        *(missing(), httpx.ReadTimeout("the answer was lost")),
        refused(503),
        *(missing(), refused(500)),
        *(missing(), refused(409, retry_after="1")),
        *(missing(), refused(409), refused(502)),
        *(missing(), refused(409), stored),
    )
    clock = Clock()
    gate = PartnerGate(clock.seconds)

    async def post_business(_name: str, given: dict[str, Any]) -> dict[str, Any]:
        return await activities.post_business(given, partner.api, gate)

    run = await play(deliver_business, order(), post_business, clock=clock)

    assert run.output["outcome"] == "exists"
    assert not partner.script
    assert set(partner.posted_keys) == {"0f5c2d"}
    assert replay(run) == len(run.history) - 1


async def test_a_token_that_is_refused_again_and_again_ends_the_delivery() -> None:
    refusal = refused(401, "expired", www_authenticate='Bearer error="invalid_token"')
    partner = ScriptedPartner(*[step for _ in range(20) for step in (missing(), refusal)])
    ages: list[float] = []

    async def post_business(_name: str, given: dict[str, Any]) -> dict[str, Any]:
        ages.append(given["age"])
        return await activities.post_business(given, partner.api, PartnerGate(lambda: 0.0))

    run = await play(deliver_business, order(), post_business)

    assert run.failure.startswith(f"Business 'b-1' was rejected after {len(ages)} attempts: The partner answered 401")
    assert ages[-2] < TOKEN_PATIENCE <= ages[-1]


async def test_a_record_found_before_the_first_post_is_never_posted() -> None:
    partner = ScriptedPartner(found(RECORD))

    async def post_business(_name: str, given: dict[str, Any]) -> dict[str, Any]:
        return await activities.post_business(given, partner.api, PartnerGate(lambda: 0.0))

    run = await play(deliver_business, order(), post_business)

    assert run.output == EXISTS | {"attempts": 1}
    assert partner.posted_keys == []
