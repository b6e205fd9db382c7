"""A task hub that is killed, and what another one finds in its store."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.decisions import termination
from sandbox.host.durable.store import Store
from sandbox.host.errors import StartError
from sandbox.host.messages import TraceContext
from sandbox.host.settings import StorageProvider
from tests.fakes.dispatcher import COMPLETED, TRACE, Hub, activity, new_kinds, timer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AGAIN = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, '"next"')
CHILD = helpers.new_create_sub_orchestration_action(3, "Child", "child", '"to child"', None)


class Hosts:
    """One task hub after the other. Each begins with what a kill of the one before would leave at that moment."""

    def __init__(self, folder: Path, closing: ExitStack) -> None:
        self._folder, self._closing = folder, closing
        self._count = 0

    def start(self, visibility_timeout: str = "00:00:00") -> Hub:
        provider = StorageProvider(visibility_timeout, visibility_timeout)
        store = Store(self._folder / str(self._count), provider)
        self._closing.callback(store.close)
        hub = Hub(store)
        self._closing.callback(hub.hub.close)
        return hub

    def kill(self, visibility_timeout: str = "00:00:00") -> Hub:
        shutil.copytree(self._folder / str(self._count), self._folder / str(self._count + 1))
        self._count += 1
        return self.start(visibility_timeout)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with ExitStack() as closing:
        yield Hosts(tmp_path, closing)


async def test_an_instance_that_was_accepted_is_started_by_the_next_host(hosts: Hosts) -> None:
    hosts.start().start()
    hub = hosts.kill()
    assert hub.status() == "Pending"
    item = await hub.item()
    assert new_kinds(item) == ["orchestratorStarted", "executionStarted"]
    assert item.orchestratorRequest.newEvents[1].executionStarted.input.value == '"in"'
    assert hub.hub.trace_context("one") == TRACE


async def test_a_finished_instance_keeps_all_that_its_status_shows(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), COMPLETED, status='"nearly"')
    before = hub.hub.get("one")
    hub = hosts.kill()
    assert hub.hub.get("one") == before
    assert hub.history() == ["orchestratorStarted", "executionStarted", "orchestratorCompleted", "executionCompleted"]
    assert await hub.is_idle()


async def test_a_failed_instance_can_be_rewound_by_the_next_host(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), activity(0))
    hub.hub.complete_activity(await hub.item(), None, pb.TaskFailureDetails(errorMessage="broken"))
    details = pb.TaskFailureDetails(errorMessage="failed")
    failing = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_FAILED, '"x"', details)
    hub.decide(await hub.item(), failing)
    hub = hosts.kill()
    instance = hub.hub.get("one")
    assert instance is not None
    assert instance.failure_details == details
    hub.hub.rewind("one", "again")
    hub = hosts.kill()
    assert hub.status() == "Running"
    item = await hub.item()
    assert new_kinds(item) == ["orchestratorStarted", "genericEvent"]
    assert not any(each.HasField("taskFailed") for each in item.orchestratorRequest.pastEvents)


async def test_a_turn_that_was_not_committed_is_done_again_with_the_same_messages(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item())
    hub.hub.raise_event("one", "a", "1")
    lost = await hub.item()
    hub.hub.raise_event("one", "b", "2")
    hub = hosts.kill()
    item = await hub.item()
    assert item.orchestratorRequest.pastEvents == lost.orchestratorRequest.pastEvents
    assert new_kinds(item) == ["orchestratorStarted", "eventRaised", "eventRaised"]
    assert await hub.is_idle()


async def test_an_activity_without_a_result_is_handed_out_again_and_counts_once(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), helpers.new_schedule_task_action(0, "First", '"given"', None), activity(1, "Second"))
    lost = await hub.item()
    hub.hub.complete_activity(await hub.item(), '"second"', None)
    hub = hosts.kill()
    handed_out = [await hub.item(), await hub.item()]
    again = next(each for each in handed_out if each.HasField("activityRequest"))
    turn = next(each for each in handed_out if each.HasField("orchestratorRequest"))
    assert again == lost
    assert [each.taskCompleted.taskScheduledId for each in turn.orchestratorRequest.newEvents][1:] == [1]
    hub.hub.complete_activity(again, '"first"', None)
    hub.hub.complete_activity(again, '"first"', None)
    hub.decide(turn)
    assert new_kinds(await hub.item()) == ["orchestratorStarted", "taskCompleted"]
    hub = hosts.kill()
    assert not (await hub.item()).HasField("activityRequest")
    assert await hub.is_idle()


async def test_what_a_killed_host_had_taken_stays_invisible_until_the_timeout(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), activity(0))
    hub.start("waiting")
    hub = hosts.kill("01:00:00")
    hub.start("new")
    assert (await hub.item()).orchestratorRequest.instanceId == "new"
    assert await hub.is_idle()
    hub = hosts.kill()
    items = [await hub.item() for _ in range(3)]
    assert {each.activityRequest.name or each.orchestratorRequest.instanceId for each in items} == {
        "Activity",
        "waiting",
        "new",
    }


async def test_an_activity_of_a_terminated_instance_runs_again_and_reaches_no_later_one(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), activity(0))
    await hub.item()
    hub.hub.terminate("one", "enough")
    hub.hub.complete_orchestrator("one", (await hub.item()).completionToken, termination('"enough"'))
    hub.start()
    hub = hosts.kill()
    turn, stale = sorted([await hub.item(), await hub.item()], key=lambda each: each.HasField("activityRequest"))
    hub.decide(turn, activity(0))
    fresh = await hub.item()
    hub.hub.complete_activity(stale, '"stale"', None)
    assert await hub.is_idle()
    hub.hub.complete_activity(fresh, '"fresh"', None)
    assert (await hub.item()).orchestratorRequest.newEvents[-1].taskCompleted.result.value == '"fresh"'


async def test_a_timer_fires_in_the_next_host_at_its_time_or_at_once_and_only_once(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    due = datetime.now(UTC) + timedelta(seconds=0.1)
    hub.decide(await hub.item(), helpers.new_create_timer_action(0, due), timer(1, 3600), timer(2, 0))
    item = await hub.item()
    hub.decide(item)
    assert item.orchestratorRequest.newEvents[1].timerFired.timerId == 2
    hub = hosts.kill("01:00:00")
    item = await hub.item()
    assert datetime.now(UTC) >= due
    assert [each.timerFired.timerId for each in item.orchestratorRequest.newEvents][1:] == [0]
    hub.decide(item)
    hub = hosts.kill()
    assert await hub.is_idle()


async def test_a_suspended_instance_stays_so_with_what_waits_for_it(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item())
    hub.hub.suspend("one", "lunch")
    hub.decide(await hub.item(), status='"held"')
    hub.hub.raise_event("one", "a", "1")
    hub = hosts.kill()
    instance = hub.hub.get("one")
    assert instance is not None
    assert (hub.status(), instance.output, instance.custom_status) == ("Suspended", '"lunch"', '"held"')
    assert await hub.is_idle()
    hub.hub.resume("one", "back")
    hub = hosts.kill()
    assert new_kinds(await hub.item()) == ["orchestratorStarted", "eventRaised", "executionResumed"]


async def test_an_instance_that_continued_as_new_has_its_new_history_alone(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), timer(0, 3600))
    hub.hub.raise_event("one", "a", "1")
    hub.decide(await hub.item(), AGAIN)
    hub = hosts.kill()
    item = await hub.item()
    assert list(item.orchestratorRequest.pastEvents) == []
    assert new_kinds(item) == ["orchestratorStarted", "executionStarted"]
    assert item.orchestratorRequest.newEvents[1].executionStarted.input.value == '"next"'
    hub.decide(item, COMPLETED)
    instance = hosts.kill().hub.get("one")
    assert instance is not None
    assert (instance.input, instance.output) == ('"next"', '"done"')


async def test_a_sub_orchestration_reports_to_its_parent_in_the_next_host(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), CHILD)
    hub = hosts.kill()
    item = await hub.item()
    assert (item.orchestratorRequest.instanceId, hub.parent_id("child")) == ("child", "one")
    hub.decide(item, COMPLETED)
    hub = hosts.kill()
    assert new_kinds(await hub.item()) == ["orchestratorStarted", "subOrchestrationInstanceCompleted"]


async def test_a_purged_instance_is_gone_and_its_id_can_be_used_again(hosts: Hosts) -> None:
    hub = hosts.start()
    hub.start()
    hub.decide(await hub.item(), COMPLETED)
    assert hub.hub.purge("one") == 1
    hub = hosts.kill()
    assert hub.hub.instances() == []
    hub.hub.start_new("Another", "one", None, version=None, trace=TraceContext())
    instance = hosts.kill().hub.get("one")
    assert instance is not None
    assert (instance.name, instance.history) == ("Another", [])


def work_on(hub: Hub, item: pb.WorkItem) -> None:
    """Do a work item: two activities, then a timer, then a sub-orchestration."""
    request = item.orchestratorRequest
    if item.HasField("activityRequest"):
        hub.hub.complete_activity(item, f'"{item.activityRequest.taskId}"', None)
        return
    seen = [str(each.WhichOneof("eventType")) for each in (*request.pastEvents, *request.newEvents)]
    if request.instanceId == "child" or "subOrchestrationInstanceCompleted" in seen:
        hub.decide(item, COMPLETED)
    elif "timerFired" in seen:
        hub.decide(item, *([] if "subOrchestrationInstanceCreated" in seen else [CHILD]))
    elif seen.count("taskCompleted") == 2:
        hub.decide(item, *([] if "timerCreated" in seen else [timer(2, 0)]))
    else:
        hub.decide(item, *([] if "taskScheduled" in seen else [activity(0), activity(1)]))


@pytest.mark.parametrize("done", range(8))
async def test_an_instance_ends_the_same_after_whatever_work_item_the_host_was_killed(hosts: Hosts, done: int) -> None:
    hub = hosts.start()
    hub.start()
    for _ in range(done):
        work_on(hub, await hub.item())
    hub = hosts.kill()
    while hub.status() != "Completed":
        work_on(hub, await hub.item())
    assert await hub.is_idle()
    kinds = hosts.kill().history()
    assert {kind: kinds.count(kind) for kind in kinds if not kind.startswith("orchestrator")} == {
        "executionStarted": 1,
        "taskScheduled": 2,
        "taskCompleted": 2,
        "timerCreated": 1,
        "timerFired": 1,
        "subOrchestrationInstanceCreated": 1,
        "subOrchestrationInstanceCompleted": 1,
        "executionCompleted": 1,
    }


async def test_no_two_turns_of_different_hosts_have_the_same_completion_token(hosts: Hosts) -> None:
    tokens = []
    hub = hosts.start()
    hub.start()
    for _ in range(3):
        item = await hub.item()
        tokens.append(item.completionToken)
        hub.decide(item)
        hub.hub.raise_event("one", "a", "1")
        hub = hosts.kill()
    assert len(set(tokens)) == len(tokens)


async def test_a_second_host_on_the_same_store_is_refused(hosts: Hosts) -> None:
    hosts.start()
    with pytest.raises(StartError, match="cannot be used: database is locked"):
        hosts.start()


async def test_a_folder_that_cannot_be_a_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "task-hub.sqlite3").write_text("something else, which is longer than a header of SQLite" * 9)
    for folder in ("file", "other"):
        with pytest.raises(StartError, match=f"the store in .*{folder} cannot be used"):
            Store(tmp_path / folder, StorageProvider())
