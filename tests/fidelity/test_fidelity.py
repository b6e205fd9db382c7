"""Asks the sandbox's host what the Functions host was asked, and compares the answers."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from tests.fidelity import probe
from tests.host_apps.host_process import WEBHOOKS, HostProcess, running_host

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "recorded.json").read_text())
ABSENT = "<absent>"


class Tolerated(NamedTuple):
    """A difference that stands: patterns of the answer's name, of the path in it and of what is found there as JSON.

    One that is not `always` there depends on timing or chance.
    """

    answer: str
    path: str
    found: str
    reason: str
    always: bool = True


# docs/sandbox.md tells of each.
TOLERATED = (
    Tolerated("route .* /", "/body", ".*up and running.*", "the banner page is not the platform's"),
    Tolerated(
        "echo unknown method",
        "/status|/headers/.*",
        f'400|"{ABSENT}"',
        "the HTTP parser knows the registered methods, and refuses others",
    ),
    Tolerated(
        "respond headers", "/headers/.*", f'"{ABSENT}"', "which headers are left beside the 500 varies on the platform"
    ),
    Tolerated(
        "start under a running id",
        "/body/text",
        ".*An Orchestration instance with the status Running already exists.*",
        "the sandbox has started the first instance by then",
        always=False,
    ),
    Tolerated(
        "fails: unknown (activity|sub)(: not done)?",
        "|/status|/headers/(location|retry-after)|/body/(historyEvents|output|runtimeStatus)",
        f'200|"{ABSENT}"|"Failed"|.*doesn\'t exist, is disabled, or is not an (activity|orchestrator) function.*',
        "an instance that calls an unknown function would stay Running for ever; here it fails and says why",
    ),
    Tolerated(
        "parent", r"/body/historyEvents\[\d\]/Result", "[012]", "parallel results come in any order", always=False
    ),
    Tolerated(
        ".*broken JSON.*", "/body/ExceptionMessage", '"Expecting property name .*"', "texts of .NET's JSON parser"
    ),
    Tolerated(
        "webhook started an unknown function",
        r"/body/(output|historyEvents\[1\]/Result)",
        ".*The following are the known orchestrator functions: 'Blocked', 'Context', .*",
        "the platform names the functions in no order",
    ),
    Tolerated(
        "query: top 1",
        r"/body/(states.*|members)",
        '.*(Completed|Failed|Running|Terminated|"parentInstanceId").*',
        "which instance has the first id is chance",
        always=False,
    ),
)

# The first answer of each part, in the order of the recording.
PARTS = {
    "http": "route GET /",
    "durable": "start",
    "kill": "killed inside the orchestrator",
    "kill-request": "killed inside a request",
    "slow": "activity beyond functionTimeout",
    "exit": "respond exit",
}


def recorded(part: str) -> dict[str, Any]:
    """Return the recorded answers of one part."""
    names = list(RECORDED)
    starts = [*(names.index(first) for first in PARTS.values()), len(names)]
    begin, end = dict(zip(PARTS, itertools.pairwise(starts), strict=True))[part]
    return {name: RECORDED[name] for name in names[begin:end]}


def differences(expected: dict[str, Any], answers: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return every difference: the answer's name, the path in it, what was recorded and what was found."""
    return [
        (name, path, json.dumps(wanted), json.dumps(found))
        for name in {**expected, **answers}
        for path, wanted, found in probe.differences("", expected.get(name, ABSENT), answers.get(name, ABSENT))  # type: ignore[no-untyped-call]
    ]


def stands_for(difference: tuple[str, str, str, str], tolerated: Tolerated) -> bool:
    """Tell whether a difference is the tolerated one."""
    name, path, _, found = difference
    return all(
        re.fullmatch(pattern, text, re.DOTALL)
        for pattern, text in ((tolerated.answer, name), (tolerated.path, path), (tolerated.found, found))
    )


def keys_of(host: HostProcess) -> dict[str, str]:
    """Return the keys that a host has printed, by their kind."""
    return dict(re.findall(r"^key: (\w+) (\S+)$", host.output, re.MULTILINE))


@pytest.mark.long
@pytest.mark.parametrize("part", PARTS)
def test_answers_as_the_functions_host_does(part: str, tmp_path: Path) -> None:
    expected = recorded(part)
    with running_host(HERE / "app", tmp_path, {}, "--keys") as host:
        keys = {kind: keys_of(host)[kind] for kind in ("master", "system")}
        asking = probe.Probe(host.base, keys)  # type: ignore[no-untyped-call]
        # The worker is the host's only child. Under load, a process of Python would come too late to kill it.
        probe.ask_part(asking, part, f"kill -9 $(cat /proc/{host.process.pid}/task/*/children)")  # type: ignore[no-untyped-call]

    found = differences(expected, asking.log)

    assert [each for each in found if not any(stands_for(each, tolerated) for tolerated in TOLERATED)] == []
    for tolerated in TOLERATED:
        if tolerated.always and any(re.fullmatch(tolerated.answer, name) for name in expected):
            assert any(stands_for(each, tolerated) for each in found), f"no longer differs: {tolerated}"


def test_every_recorded_answer_belongs_to_a_part() -> None:
    assert sum(len(recorded(part)) for part in PARTS) == len(RECORDED)


@pytest.fixture(scope="module")
def keys_host(tmp_path_factory: pytest.TempPathFactory) -> Generator[HostProcess]:
    with running_host(HERE / "keys_app", tmp_path_factory.mktemp("keys"), {}, "--keys") as host:
        yield host


# The routes of Business Relay, and those of the app here.
QUESTIONS = {
    "GET an anonymous function": ("GET", "/api/health"),
    "GET a function of level function": ("GET", "/api/records"),
    "POST a function of level function": ("POST", "/api/records"),
    "GET /runtime/webhooks/durabletask/instances/ID (unknown)": ("GET", f"{WEBHOOKS}/instances/unknown"),
    "DELETE /runtime/webhooks/durabletask/instances/ID (unknown)": ("DELETE", f"{WEBHOOKS}/instances/unknown"),
    "POST /runtime/webhooks/durabletask/orchestrators/NAME": ("POST", f"{WEBHOOKS}/orchestrators/orchestrate"),
    "POST /admin/functions/PurgeHistory": ("POST", "/admin/functions/purge"),
}
KEYS = json.loads((HERE / "keys.json").read_text())


@pytest.mark.parametrize("question", KEYS)
def test_lets_in_with_which_key_whom_the_functions_host_lets_in(question: str, keys_host: HostProcess) -> None:
    keys = keys_of(keys_host)
    given: dict[str, tuple[str | None, str | None]] = {
        "none": (None, None),
        "function key in header": (keys["function"], None),
        "function key in query": (None, keys["function"]),
        "master key": (keys["master"], None),
        "system key": (keys["system"], None),
        "system key in query": (None, keys["system"]),
        "wrong key": ("wrong", None),
        "wrong in header, right in query": ("wrong", keys["master"]),
        "empty": ("", None),
    }
    method, path = QUESTIONS.get(question) or question.split(" ", 1)

    def status(header: str | None, query: str | None) -> int:
        headers = {"content-type": "application/json"} | ({} if header is None else {"x-functions-key": header})
        params = {} if query is None else {"code": query}
        content = b"{}" if method == "POST" else None
        return keys_host.http.request(method, path, headers=headers, params=params, content=content).status_code

    answers = {kind: status(header, query) for kind, (header, query) in given.items()}
    expected = {
        kind: answers[kind] if wanted == "let in" and answers[kind] < 400 else wanted
        for kind, wanted in KEYS[question].items()
    }
    assert answers == expected
