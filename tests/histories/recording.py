"""A recorded history of an orchestration, and whether an orchestrator of today can go on with it.

A recording has every event of the history in the protocol's JSON, and what the orchestrator of its version answered to
each beginning of it. An instance in flight is at one of these beginnings when the app is upgraded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fakes.replay import Answer, answer_of, context_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    # An orchestrator function as it is registered: a context's JSON goes in, the state's comes out.
    Handle = Callable[[str], str]

FOLDER = Path(__file__).parent
# What an orchestrator sees first: that it was started, and with what.
LEAST_EVENTS = 2
EXECUTION_STARTED = 0
ACTION_NAMES = {0: "activity", 4: "continue as new", 5: "timer"}


@dataclass(frozen=True)
class Recording:
    """One history of the `orchestrator`, as the version `version` of the app produced it.

    `answers` are those to the beginnings of the history, by the number of their events, without those that are the
    same as the one before. An answer's actions are the first so many of `actions`.
    """

    version: str
    scenario: str
    orchestrator: str
    instance_id: str
    status: str
    history: list[dict[str, Any]]
    actions: list[dict[str, Any]]
    answers: dict[int, dict[str, Any]]

    @classmethod
    def make(  # noqa: PLR0913 - all that a recording has
        cls,
        handle: Handle,
        *,
        version: str,
        scenario: str,
        orchestrator: str,
        instance_id: str,
        status: str,
        history: list[dict[str, Any]],
    ) -> Recording:
        """Record what the orchestrator answers to each beginning of a history."""
        recording = cls(version, scenario, orchestrator, instance_id, status, history, [], {})
        before: dict[str, Any] = {}
        actions: list[dict[str, Any]] = []
        for events in recording.beginnings():
            answer = recording.answer(handle, events)
            assert answer.actions[: len(actions)] == actions, "the orchestrator takes back what it has scheduled"
            actions = answer.actions
            now = asdict(answer) | {"actions": len(actions)}
            if now != before:
                recording.answers[events] = before = now
        recording.actions.extend(actions)
        return recording

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read a recording."""
        document = json.loads(path.read_text(encoding="utf-8"))
        answers = {int(events): answer for events, answer in document.pop("answers").items()}
        return cls(**document, answers=answers)

    def save(self, path: Path) -> None:
        """Write a new recording.

        Raises:
            FileExistsError: the file is there. What a version has recorded stays as it is.
        """
        members = [f"{_json(name)}: {_lines(value)}" for name, value in asdict(self).items()]
        with path.open("x", encoding="utf-8") as file:
            file.write("{\n" + ",\n".join(members) + "\n}\n")

    @property
    def input(self) -> str:
        """The input as the orchestrator decodes it: the Durable client hands in a JSON string that holds JSON."""
        [started] = [event for event in self.history if event["EventType"] == EXECUTION_STARTED]
        value = json.loads(started["Input"])
        return value if isinstance(value, str) else started["Input"]

    def beginnings(self) -> range:
        """Return the number of events of each beginning."""
        return range(LEAST_EVENTS, len(self.history) + 1)

    def answer(self, handle: Handle, events: int) -> Answer:
        """Return what an orchestrator answers to the first so many events."""
        return answer_of(handle, context_of(self.history[:events], self.instance_id, self.input))

    def recorded(self, events: int) -> Answer:
        """Return what the orchestrator of the recorded version answered to them."""
        answer = self.answers[max(known for known in self.answers if known <= events)]
        return Answer(**answer | {"actions": self.actions[: answer["actions"]]})

    def differences(self, handle: Handle) -> Iterator[str]:
        """Say where an orchestrator cannot go on with this history as the recorded one did; nothing where it can."""
        # All of a short history, some of a long one: the cost is squared.
        for events in [*self.beginnings()][:: max(1, len(self.history) // 30)]:
            for difference in _differences(self.recorded(events), self.answer(handle, events)):
                yield f"{self.version}/{self.scenario}, after {events} of {len(self.history)} events: {difference}"


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _lines(value: object) -> str:
    """Write each element of a list, each member of an object in a line of its own."""
    if isinstance(value, list) and value:
        return "[\n " + ",\n ".join(map(_json, value)) + "\n]"
    if isinstance(value, dict):
        return "{\n " + ",\n ".join(f"{_json(str(name))}: {_json(member)}" for name, member in value.items()) + "\n}"
    return _json(value)


def recordings() -> list[Path]:
    """Return the files of all recordings."""
    return sorted(FOLDER.glob("v*/*.json"))


def _differences(then: Answer, now: Answer) -> Iterator[str]:
    """Compare two answers.

    The same actions must be scheduled in the same order, at the same times. Members may be added to the input of an
    activity, to the output and to the custom status; none may change or go. Words for people may be others.
    """
    if len(then.actions) != len(now.actions):
        yield f"{len(then.actions)} actions were scheduled, now {len(now.actions)} are"
    for number, (old, new) in enumerate(zip(then.actions, now.actions, strict=False)):
        if _name(old) != _name(new):
            yield f"action {number} was {_name(old)}, now it is {_name(new)}"
        elif "input" in old and not _covers(json.loads(new["input"]), json.loads(old["input"])):
            yield f"action {number}, {_name(old)}, was given {old['input']}, now it is given {new['input']}"
    if then.is_done != now.is_done:
        yield f"it had {'' if then.is_done else 'not '}ended, now it has {'' if now.is_done else 'not '}"
    if (then.failure is None) != (now.failure is None):
        yield f"its failure was {then.failure!r}, now it is {now.failure!r}"
    if not _covers(_wordless(now.output), _wordless(then.output)):
        yield f"its output was {then.output}, now it is {now.output}"
    if not _covers(_wordless(now.custom_status), _wordless(then.custom_status)):
        yield f"its custom status was {then.custom_status}, now it is {now.custom_status}"


def _name(action: Mapping[str, Any]) -> str:
    kind = ACTION_NAMES.get(action["actionType"], f"of the type {action['actionType']}")
    return f"{kind} {action.get('functionName') or action.get('fireAt')}"


def _covers(now: object, then: object) -> bool:
    """Return whether a JSON value has all that another one has."""
    if isinstance(then, dict):
        return isinstance(now, dict) and all(name in now and _covers(now[name], then[name]) for name in then)
    if isinstance(then, list):
        return isinstance(now, list) and len(now) == len(then) and all(map(_covers, now, then))
    return isinstance(now, bool) == isinstance(then, bool) and now == then


def _wordless(value: object) -> object:
    """Leave out the reasons."""
    if isinstance(value, dict):
        return {name: _wordless(member) for name, member in value.items() if name != "reason"}
    return [_wordless(member) for member in value] if isinstance(value, list) else value
