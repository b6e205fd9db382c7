"""A durable engine in one function: it plays an orchestrator through Microsoft's SDK, and replays what it recorded.

Histories and answers have the protocol's JSON. Activities are a function of the test's, timers fire by advancing a fake
clock, and every completion is an episode of its own, as in the real engine.
"""

from __future__ import annotations

import asyncio
import json
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from azure.durable_functions import Orchestrator

from shared.durable.inputs import to_json
from shared.durable.progress import OrderResult

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from shared.rules.outcome import Outcome

    # The activity's name and input; what it gives is the result, what it raises is the failure.
    Activity = Callable[[str, Any], Awaitable[Any]]

START = datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC)
# History events (HistoryEventType) and actions (ActionType) by their numbers in the protocol.
EXECUTION_STARTED, TASK_SCHEDULED, TASK_COMPLETED, TASK_FAILED = 0, 4, 5, 6
TIMER_CREATED, TIMER_FIRED, ORCHESTRATOR_STARTED, ORCHESTRATOR_COMPLETED = 10, 11, 12, 13
CALL_ACTIVITY, CONTINUE_AS_NEW, CREATE_TIMER = 0, 4, 5
_FAILURE_MARK = "\n\n$OutOfProcData$:"


class Clock:
    """The engine's time: it goes on when a timer fires, or where a test advances it."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def seconds(self) -> float:
        return (self.now - START).total_seconds()


@dataclass(frozen=True)
class Answer:
    """What an orchestrator answered to one history."""

    actions: list[dict[str, Any]]
    is_done: bool
    output: Any
    custom_status: Any
    failure: str | None


@dataclass
class Play:
    """One orchestration from its start to its end: `episodes` are its answers, each with the events it was given.

    `earlier` are its runs before it continued as new.
    """

    orchestrator: Callable[[Any], Any]
    instance_id: str
    input: Any
    clock: Clock
    history: list[dict[str, Any]] = field(default_factory=list)
    episodes: list[tuple[int, Answer]] = field(default_factory=list)
    activities: list[tuple[str, Any]] = field(default_factory=list)
    timers: list[datetime] = field(default_factory=list)
    earlier: list[Play] = field(default_factory=list)

    @property
    def last(self) -> Answer:
        return self.episodes[-1][1]

    @property
    def output(self) -> Any:  # noqa: ANN401 - any JSON
        assert self.last.failure is None, self.last.failure
        return self.last.output

    @property
    def failure(self) -> str:
        assert self.last.failure is not None, "the orchestration has not failed"
        return self.last.failure

    @property
    def custom_statuses(self) -> list[Any]:
        return [answer.custom_status for _, answer in self.episodes]


async def play(
    orchestrator: Callable[[Any], Any],
    input_: Any,  # noqa: ANN401 - any JSON
    activity: Activity,
    *,
    instance_id: str = "0f5c2d",
    clock: Clock | None = None,
) -> Play:
    """Run an orchestration to its end, and record its history."""
    run = await _play(Play(orchestrator, instance_id, input_, clock or Clock()), activity)
    while run.last.actions and run.last.actions[-1]["actionType"] == CONTINUE_AS_NEW:
        again = json.loads(run.last.actions[-1]["input"])
        next_run = Play(orchestrator, instance_id, again, run.clock, earlier=[*run.earlier, run])
        run = await _play(next_run, activity)
    return run


async def _play(run: Play, activity: Activity) -> Play:
    pending_tasks: dict[int, asyncio.Task[Any]] = {}
    pending_timers: dict[int, datetime] = {}
    new = [_event(run.clock, EXECUTION_STARTED, Name="Orchestrator", Version="", Input=json.dumps(run.input))]
    while True:
        run.history += [_event(run.clock, ORCHESTRATOR_STARTED), *new]
        answer = answer_to(run)
        earlier = run.last.actions if run.episodes else []
        assert answer.actions[: len(earlier)] == earlier, "the orchestrator takes back what it has scheduled"
        run.episodes.append((len(run.history), answer))
        for id_ in range(len(earlier), len(answer.actions)):
            action = answer.actions[id_]
            if action["actionType"] == CALL_ACTIVITY:
                name, given = action["functionName"], json.loads(action["input"])
                run.history.append(_event(run.clock, TASK_SCHEDULED, id_, Name=name, Version="", Input=action["input"]))
                run.activities.append((name, given))
                pending_tasks[id_] = asyncio.ensure_future(activity(name, given))
            elif action["actionType"] == CREATE_TIMER:
                fire_at = datetime.fromisoformat(action["fireAt"])
                run.history.append(_event(run.clock, TIMER_CREATED, id_, FireAt=action["fireAt"]))
                run.timers.append(fire_at)
                pending_timers[id_] = fire_at
        run.history.append(_event(run.clock, ORCHESTRATOR_COMPLETED))
        if answer.is_done or answer.failure is not None:
            await asyncio.gather(*pending_tasks.values(), return_exceptions=True)
            return run
        new = [await _next_event(run.clock, pending_tasks, pending_timers)]


async def _next_event(clock: Clock, tasks: dict[int, asyncio.Task[Any]], timers: dict[int, datetime]) -> dict[str, Any]:
    """Return the next completion: the first activity to finish, else the earliest timer, at the time it fires."""
    if tasks:
        await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
        id_ = next(id_ for id_, task in tasks.items() if task.done())
        task = tasks.pop(id_)
        if error := task.exception():
            reason = f"Activity function failed:  {type(error).__name__}: {error}"
            return _event(clock, TASK_FAILED, TaskScheduledId=id_, Reason=reason, Details="")
        return _event(clock, TASK_COMPLETED, TaskScheduledId=id_, Result=json.dumps(task.result()))
    assert timers, "the orchestrator waits for something that never comes"
    id_ = min(timers, key=lambda id_: timers[id_])
    clock.now = max(clock.now, timers.pop(id_))
    return _event(clock, TIMER_FIRED, TimerId=id_, FireAt=_stamp(clock.now))


def answer_to(run: Play, events: int | None = None, orchestrator: Callable[[Any], Any] | None = None) -> Answer:
    """Give the orchestrator's answer to the first so many events of the history (all of them where none is said)."""
    context = context_of(run.history[:events], run.instance_id, json.dumps(run.input))
    return answer_of(Orchestrator.create(orchestrator or run.orchestrator), context)


def context_of(history: Sequence[dict[str, Any]], instance_id: str, input_: str) -> dict[str, Any]:
    """Give the context of an orchestrator function; what comes before its last start is being replayed."""
    newest = max(index for index, event in enumerate(history) if event["EventType"] == ORCHESTRATOR_STARTED)
    return {
        "history": [{**event, "IsPlayed": index < newest} for index, event in enumerate(history)],
        "input": input_,
        "instanceId": instance_id,
        "isReplaying": newest > 0,
        "parentInstanceId": None,
        "upperSchemaVersion": 1,
        "upperSchemaVersionNew": 2,
        "longRunningTimerIntervalDuration": "3.00:00:00",
        "maximumShortTimerDuration": "6.00:00:00",
        "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
    }


def answer_of(handle: Callable[[str], str], context: dict[str, Any]) -> Answer:
    """Give what an orchestrator function answers to a context, both in the protocol's JSON."""
    with warnings.catch_warnings():
        # The SDK says once a process that its loose typing may end one day.
        warnings.filterwarnings("ignore", message=".*df_loads was called without expected_type")
        try:
            state, failure = json.loads(handle(json.dumps(context))), None
        except Exception as exc:
            failure, mark, text = str(exc).partition(_FAILURE_MARK)
            if not mark:
                raise
            state = json.loads(text)
    actions = [action for group in state["actions"] for action in _flat(group)]
    return Answer(actions, state["isDone"], state.get("output"), state.get("customStatus"), failure)


def replay(run: Play, orchestrator: Callable[[Any], Any] | None = None) -> None:
    """Answer prefixes of a history again, and compare: all of a short one, some of a long one, for the cost is squared.

    Where an episode ended, the whole answer must be what it was; anywhere, the actions must be what they became.
    """
    recorded = dict(run.episodes)
    for events in range(2, len(run.history) + 1, max(1, len(run.history) // 12)):
        answer = answer_to(run, events, orchestrator)
        assert answer.actions == run.last.actions[: len(answer.actions)], f"other actions after {events} events"
        if events in recorded:
            assert answer == recorded[events], f"another answer after {events} events"


def _flat(actions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give the actions that schedule something, in the order in which the engine numbers them."""
    flat: list[dict[str, Any]] = []
    for action in actions:
        if "compoundActions" in action:
            flat += _flat(action["compoundActions"])
        else:
            assert action["actionType"] in {CALL_ACTIVITY, CONTINUE_AS_NEW, CREATE_TIMER}, f"not played here: {action}"
            flat.append(action)
    return flat


def _event(clock: Clock, kind: int, id_: int = -1, **fields: object) -> dict[str, Any]:
    return {"EventType": kind, "EventId": id_, "IsPlayed": False, "Timestamp": _stamp(clock.now), **fields}


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def order_result(
    made: Mapping[int, Outcome | None], left_for: float = 0.0, limit: float | None = None
) -> dict[str, Any]:
    """Return the result of an activity with one attempt at each record of its order; None: the record is left."""
    outcomes = {index: outcome for index, outcome in made.items() if outcome is not None}
    return to_json(OrderResult(outcomes, left_for, limit=limit))
