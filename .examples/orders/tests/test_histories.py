"""Deliveries that an earlier version of the app has begun are brought to their end by this one.

docs/operations.md says what to do when one of these tests fails.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azure.durable_functions import Orchestrator

from shared.delivery.batch_orchestrator import deliver_batch
from shared.delivery.orchestrators import deliver_business
from shared.errors import DeliveryError
from tests.fakes.registered_functions import BINDINGS, FUNCTIONS
from tests.histories import record
from tests.histories.recording import FOLDER, Recording, recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from datetime import datetime

    Run = Generator[Any, Any, Any]

VERSION = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]["version"]
ALL = {f"{path.parent.name}/{path.stem}": Recording.load(path) for path in recordings()}
FIRST = {name.removeprefix("v0.1.0/"): recording for name, recording in ALL.items() if name.startswith("v0.1.0/")}
# HistoryEventType.
TASK_FAILED, TERMINATED, SUSPENDED, RESUMED, TIMER_FIRED = 6, 3, 19, 20, 11
# A failed activity was their end: none of these can be in flight with one behind it.
ENDED_BY_AN_ACTIVITY = ["v0.1.0/batch-failed", "v0.2.0/batch-failed"]


def until_it_failed(recording: Recording) -> Recording:
    """Give the recording without its failed activity and what came after."""
    failed = next(index for index, event in enumerate(recording.history) if event["EventType"] == TASK_FAILED)
    # The turn in which it failed begins before it.
    return replace(recording, history=recording.history[: failed - 1])


@pytest.mark.parametrize("name", ALL)
def test_every_recorded_delivery_goes_on_from_every_point_as_it_did(name: str) -> None:
    recording = until_it_failed(ALL[name]) if name in ENDED_BY_AN_ACTIVITY else ALL[name]
    handle = FUNCTIONS[recording.orchestrator].get_user_function()

    assert list(recording.differences(handle)) == []


@pytest.mark.parametrize("name", ENDED_BY_AN_ACTIVITY)
def test_where_an_earlier_version_gave_up_with_its_activity_this_one_waits_and_goes_on(name: str) -> None:
    recording = ALL[name]
    answer = recording.answer(FUNCTIONS[recording.orchestrator].get_user_function(), len(recording.history))

    assert recording.recorded(len(recording.history)).failure is not None
    assert answer.failure is None
    assert len(answer.actions) == len(recording.actions) + 1
    assert "fireAt" in answer.actions[-1]
    assert "The attempt ended without a result" in answer.custom_status["reason"]


def test_the_present_version_is_recorded() -> None:
    assert any(name.startswith(f"v{VERSION}/") for name in ALL), (
        f"record it: .venv/bin/python -m tests.histories.record v{VERSION}"
    )


def test_every_orchestrator_and_every_turn_it_can_take_is_recorded() -> None:
    orchestrators = {name for name, bindings in BINDINGS.items() if bindings[0]["type"] == "orchestrationTrigger"}

    for orchestrator in orchestrators:
        of = [recording for recording in FIRST.values() if recording.orchestrator == orchestrator]
        kinds = {event["EventType"] for recording in of for event in recording.history}
        assert {recording.status for recording in of} == {"Completed", "Failed", "Terminated"}
        assert {TIMER_FIRED, SUSPENDED, RESUMED, TERMINATED} <= kinds, orchestrator
    assert TASK_FAILED in {event["EventType"] for event in FIRST["batch-failed"].history}


def test_the_scenarios_are_what_their_names_say() -> None:
    def last(name: str) -> Any:  # noqa: ANN401 - an answer
        return FIRST[name].recorded(len(FIRST[name].history))

    outcomes = {name: last(name).output["outcome"] for name in ("created", "exists", "deferred", "lost-answer")}
    assert outcomes == {"created": "created", "exists": "exists", "deferred": "created", "lost-answer": "exists"}
    assert last("deferred").output["attempts"] >= 4
    assert "was rejected after 1 attempt" in last("rejected").failure
    assert "was given up after" in last("given-up").failure
    rounds = last("batch-rounds")
    assert (rounds.output["rejected"], rounds.output["exists"] >= 1, len(rounds.actions) >= 6) == (2, True, True)
    assert "given up after" in last("batch-given-up").output["rejections"][0]["reason"]
    assert "nextAttempt" in last("terminated").custom_status
    assert "nextRound" in last("batch-terminated").custom_status


@pytest.mark.parametrize(("name", "looked_up"), [("process-lost", 1), ("batch-process-lost", 8)])
def test_a_delivery_whose_process_was_lost_goes_on_and_finds_what_it_had_posted(name: str, looked_up: int) -> None:
    recording = ALL[f"v0.2.0/{name}"]
    kinds = [event["EventType"] for event in recording.history]
    answer = recording.recorded(len(recording.history))

    assert kinds.index(TASK_FAILED) < kinds.index(TIMER_FIRED)
    assert answer.output.get("exists", int(answer.output.get("outcome") == "exists")) == looked_up


@pytest.mark.parametrize("name", FIRST)
def test_what_was_recorded_names_no_machine_and_no_secret(name: str) -> None:
    text = (FOLDER / "v0.1.0" / f"{name}.json").read_text()

    assert not re.search(
        r"127\.0\.0\.1|localhost|/home/|/work/|site-packages|sandbox-access-token|sandbox-secret", text
    )
    assert ALL[f"v0.1.0/{name}"].scenario == name


def test_every_action_of_a_recording_is_in_its_history() -> None:
    for recording in FIRST.values():
        scheduled = [event for event in recording.history if event["EventType"] in {4, 10}]
        assert [event["EventId"] for event in scheduled] == list(range(len(recording.actions)))
        for event, action in zip(scheduled, recording.actions, strict=True):
            assert event.get("Name") == action.get("functionName")
            assert event.get("Input", '""') == json.dumps(action.get("input", ""))


class Changed:
    """The context of an orchestrator whose code was changed: what it does goes through these functions first."""

    def __init__(
        self,
        context: Any,  # noqa: ANN401 - the Durable SDK has no types
        name: Callable[[str], str] = str,
        given: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        fire_at: Callable[[datetime], datetime] = lambda moment: moment,
        status: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> None:
        self._context = context
        self._name, self._given, self._fire_at, self._status = name, given, fire_at, status

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the same
        return getattr(self._context, name)

    def call_activity(self, name: str, input_: dict[str, Any]) -> Any:  # noqa: ANN401 - the same
        return self._context.call_activity(self._name(name), self._given(input_))

    def create_timer(self, fire_at: datetime) -> Any:  # noqa: ANN401 - the same
        return self._context.create_timer(self._fire_at(fire_at))

    def set_custom_status(self, status: dict[str, Any]) -> None:
        self._context.set_custom_status(self._status(status))


def without(member: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda value: {name: each for name, each in value.items() if name != member}


def renamed(context: Any) -> Run:  # noqa: ANN401 - the Durable SDK has no types
    return (yield from deliver_business(Changed(context, name=lambda name: name + "V2")))


def told_less(context: Any) -> Run:  # noqa: ANN401 - the same
    return (yield from deliver_business(Changed(context, given=without("lookUp"))))


def told_otherwise(context: Any) -> Run:  # noqa: ANN401 - the same
    return (yield from deliver_business(Changed(context, given=lambda given: given | {"lookUp": 1})))


def less_patient(context: Any) -> Run:  # noqa: ANN401 - the same
    return (yield from deliver_business(Changed(context, fire_at=lambda moment: moment.replace(microsecond=0))))


def with_a_step_before(context: Any) -> Run:  # noqa: ANN401 - the same
    yield context.call_activity("CheckBusiness", {})
    return (yield from deliver_business(context))


def with_a_step_after(context: Any) -> Run:  # noqa: ANN401 - the same
    outcome = yield from deliver_business(context)
    yield context.call_activity("TellCaller", outcome)
    return outcome


def without_waiting(context: Any) -> Run:  # noqa: ANN401 - the same
    delivery = context.get_input()
    attempt = {"business": delivery["business"], "instanceId": context.instance_id}
    more = {"idempotencyKey": context.instance_id, "attempt": 1, "lookUp": True, "age": 0.0}
    return (yield context.call_activity("PostBusiness", attempt | more))


def never_failing(context: Any) -> Run:  # noqa: ANN401 - the same
    try:
        return (yield from deliver_business(context))
    except DeliveryError as exc:
        return {"outcome": "failed", "reason": str(exc)}


def saying_less(context: Any) -> Run:  # noqa: ANN401 - the same
    outcome = yield from deliver_business(context)
    return without("attempts")(outcome)


def showing_less(context: Any) -> Run:  # noqa: ANN401 - the same
    return (yield from deliver_business(Changed(context, status=without("nextAttempt"))))


def in_other_chunks(context: Any) -> Run:  # noqa: ANN401 - the same
    def half(order: dict[str, Any]) -> dict[str, Any]:
        return order | {"records": order["records"][::2]}

    return (yield from deliver_batch(Changed(context, given=half)))


def showing_no_ranges(context: Any) -> Run:  # noqa: ANN401 - the same
    return (yield from deliver_batch(Changed(context, status=without("delivered"))))


@pytest.mark.parametrize(
    ("changed", "scenario", "complaint"),
    [
        (renamed, "created", r"action 0 was activity PostBusiness, now it is activity PostBusinessV2"),
        (told_less, "created", r"action 0, activity PostBusiness, was given .*lookUp.*, now it is given"),
        (told_otherwise, "created", r"action 0, activity PostBusiness, was given"),
        (less_patient, "deferred", r"action 1 was timer 20.*, now it is timer 20"),
        (with_a_step_before, "created", r"action 0 was activity PostBusiness, now it is activity CheckBusiness"),
        (with_a_step_after, "created", r"1 actions were scheduled, now 2 are"),
        (with_a_step_after, "created", r"it had ended, now it has not"),
        (without_waiting, "deferred", r"it had not ended, now it has"),
        (never_failing, "rejected", r"its failure was .*, now it is None"),
        (saying_less, "created", r"its output was .*, now it is"),
        (showing_less, "terminated", r"its custom status was .*, now it is"),
        (in_other_chunks, "batch", r"action 0, activity PostBusinesses, was given"),
        (showing_no_ranges, "batch-suspended", r"its custom status was .*, now it is"),
    ],
)
def test_an_orchestrator_that_was_changed_under_way_is_found_out(
    changed: Callable[[Any], Run], scenario: str, complaint: str
) -> None:
    # The check of the check: the first test would be worth nothing if one of these passed.
    found = list(FIRST[scenario].differences(Orchestrator.create(changed)))

    assert any(re.search(complaint, difference) for difference in found), found
    assert all(re.match(rf"v0\.1\.0/{scenario}, after \d+ of \d+ events: ", difference) for difference in found)


@pytest.mark.parametrize("scenario", ["created", "deferred", "rejected", "given-up", "suspended", "terminated"])
def test_an_orchestrator_may_say_more_and_in_other_words(scenario: str) -> None:
    def more(value: dict[str, Any]) -> dict[str, Any]:
        return value | {"colour": "red"} | ({"reason": "Sorry."} if "reason" in value else {})

    def grown(context: Any) -> Run:  # noqa: ANN401 - the Durable SDK has no types
        try:
            return more((yield from deliver_business(Changed(context, given=more, status=more))))
        except DeliveryError as exc:
            raise DeliveryError(f"Sorry: {exc}") from None

    assert list(FIRST[scenario].differences(Orchestrator.create(grown))) == []


@pytest.mark.parametrize("scenario", ["batch", "batch-rounds", "batch-given-up", "redelivered"])
def test_the_orchestrator_of_a_batch_may_say_more(scenario: str) -> None:
    def more(value: dict[str, Any]) -> dict[str, Any]:
        return value | {"colour": "red"}

    def grown(context: Any) -> Run:  # noqa: ANN401 - the Durable SDK has no types
        return more((yield from deliver_batch(Changed(context, given=more, status=more))))

    assert list(FIRST[scenario].differences(Orchestrator.create(grown))) == []


def by_version(context: Any) -> Run:  # noqa: ANN401 - the Durable SDK has no types
    """New steps beside the old ones, as docs/operations.md says."""
    if context.version == "1.0":
        return (yield from deliver_business(context))
    return (yield from with_a_step_before(context))


@pytest.mark.parametrize("scenario", ["created", "deferred", "suspended"])
def test_new_steps_under_a_new_version_leave_old_deliveries_alone(scenario: str) -> None:
    assert list(FIRST[scenario].differences(Orchestrator.create(by_version))) == []


def test_new_deliveries_take_the_new_steps() -> None:
    history = [event | {"Version": "2.0"} if "Version" in event else event for event in FIRST["created"].history]
    of_today = replace(FIRST["created"], history=history)

    [action] = of_today.answer(Orchestrator.create(by_version), 2).actions
    assert action["functionName"] == "CheckBusiness"


def test_a_recording_comes_back_as_it_went_and_is_never_written_again(tmp_path: Path) -> None:
    path = tmp_path / "created.json"
    FIRST["created"].save(path)

    assert Recording.load(path) == FIRST["created"]
    with pytest.raises(FileExistsError):
        FIRST["deferred"].save(path)
    assert Recording.load(path) == FIRST["created"]


async def test_a_version_is_recorded_once(tmp_path: Path) -> None:
    (tmp_path / "v0.1.0").mkdir()

    with pytest.raises(FileExistsError):
        await record.record(tmp_path / "v0.1.0", "v0.1.0")
    assert list((tmp_path / "v0.1.0").iterdir()) == []


async def test_what_is_recorded_today_can_be_replayed(tmp_path: Path) -> None:
    settings, _ = record.GROUPS[0]
    scenarios = [record.rejected_late, record.batch]
    made = await record.record_group(tmp_path, "v9.9.9", settings, scenarios)

    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch.json", "rejected-late.json"]
    for recording in made:
        assert Recording.load(tmp_path / f"{recording.scenario}.json") == recording
        assert list(recording.differences(FUNCTIONS[recording.orchestrator].get_user_function())) == []
        kinds = [action["actionType"] for action in recording.actions]
        as_recorded = ALL[f"v{VERSION}/{recording.scenario}"]
        assert kinds == [action["actionType"] for action in as_recorded.actions]
