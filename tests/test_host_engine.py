"""The task hub and its engine, with no worker process: the tests are the dispatcher."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from durabletask.internal import helpers
from durabletask.internal import orchestrator_service_pb2 as pb

from sandbox.host.durable.decisions import termination
from sandbox.host.durable.task_hub import InstanceFilter
from sandbox.host.errors import EngineError
from sandbox.host.messages import TraceContext
from tests.fakes.dispatcher import COMPLETED, TRACE, Hub, activity, kinds, new_kinds, timer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def hub() -> AsyncIterator[Hub]:
    made = Hub()
    yield made
    made.hub.close()


async def test_an_instance_goes_from_pending_to_completed(hub: Hub) -> None:
    hub.start()
    assert hub.status() == "Pending"
    item = await hub.item()
    assert new_kinds(item) == ["orchestratorStarted", "executionStarted"]
    hub.decide(item, COMPLETED)
    instance = hub.hub.get("one")
    assert instance is not None
    assert (hub.status(), instance.input, instance.output) == ("Completed", '"in"', '"done"')
    assert hub.history() == ["orchestratorStarted", "executionStarted", "orchestratorCompleted", "executionCompleted"]


async def test_every_event_has_the_time_at_which_it_came(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), activity(0), timer(1, 0))
    work = await hub.item()
    hub.hub.complete_activity(work, "1", None)
    item = await hub.item()
    while "timerFired" not in new_kinds(item):
        hub.decide(item)
        item = await hub.item()
    hub.decide(item, COMPLETED)
    seconds = [event.timestamp.ToMicroseconds() for event in hub.events("one")]
    assert len(seconds) >= 9
    assert all(abs(second / 1e6 - datetime.now(UTC).timestamp()) < 60 for second in seconds)


async def test_no_thread_is_started_for_timers_or_sub_orchestrations(hub: Hub) -> None:
    before = threading.active_count()
    hub.start()
    child = helpers.new_create_sub_orchestration_action(500, "Child", "child", None, None)
    hub.decide(await hub.item(), *(timer(number, 3600) for number in range(500)), child)
    assert threading.active_count() == before


async def test_a_busy_instance_is_handed_out_again_only_when_it_is_done(hub: Hub) -> None:
    hub.start()
    item = await hub.item()
    hub.hub.raise_event("one", "a", "1")
    hub.hub.raise_event("one", "b", "2")
    assert await hub.is_idle()
    hub.decide(item)
    assert new_kinds(await hub.item()) == ["orchestratorStarted", "eventRaised", "eventRaised"]


async def test_a_custom_status_stays_until_another_is_set(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), status='"first"')
    hub.hub.raise_event("one", "a", "1")
    hub.decide(await hub.item())
    instance = hub.hub.get("one")
    assert instance is not None
    assert instance.custom_status == '"first"'


async def test_what_comes_after_the_end_is_dropped(hub: Hub) -> None:
    hub.start()
    item = await hub.item()
    hub.hub.raise_event("one", "a", "1")
    hub.decide(item, COMPLETED)
    hub.hub.raise_event("one", "b", "2")
    hub.hub.suspend("one", "too late")
    hub.hub.terminate("one", "too late")
    assert await hub.is_idle()
    assert "eventRaised" not in hub.history()
    assert hub.status() == "Completed"


async def test_a_late_activity_does_not_wake_a_terminated_instance(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), activity(0))
    work = await hub.item()
    hub.hub.terminate("one", "enough")
    item = await hub.item()
    assert new_kinds(item)[-1] == "executionTerminated"
    hub.hub.complete_orchestrator("one", item.completionToken, termination('"enough"'))
    hub.hub.complete_activity(work, "1", None)
    assert await hub.is_idle()
    assert hub.status() == "Terminated"


async def test_a_late_activity_does_not_reach_the_next_instance_of_the_same_id(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), activity(0))
    stale = await hub.item()
    hub.hub.terminate("one", "enough")
    item = await hub.item()
    hub.hub.complete_orchestrator("one", item.completionToken, termination('"enough"'))
    assert hub.hub.purge("one") == 1
    hub.start()
    hub.decide(await hub.item(), activity(0))
    fresh = await hub.item()
    hub.hub.complete_activity(stale, '"stale"', None)
    assert await hub.is_idle()
    hub.hub.complete_activity(fresh, '"fresh"', None)
    results = [event.taskCompleted.result.value for event in (await hub.item()).orchestratorRequest.newEvents]
    assert results == ["", '"fresh"']


async def test_an_activity_counts_once(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), activity(0))
    work = await hub.item()
    hub.hub.complete_activity(work, "1", None)
    hub.hub.complete_activity(work, "2", None)
    assert new_kinds(await hub.item()).count("taskCompleted") == 1


async def test_a_purged_instance_takes_nothing_any_more(hub: Hub) -> None:
    hub.start()
    item = await hub.item()
    hub.decide(item, COMPLETED)
    assert hub.hub.purge("one") == 1
    hub.decide(item, COMPLETED)
    assert hub.hub.get("one") is None
    assert hub.history() == []
    assert hub.hub.trace_context("one") == TraceContext()


async def test_an_instance_that_is_not_finished_is_not_purged(hub: Hub) -> None:
    hub.start()
    assert hub.hub.purge("one") == 0
    assert hub.hub.purge_all(InstanceFilter()) == 0


async def test_a_timer_fires_when_it_is_due_however_often_it_looks_at_the_clock(hub: Hub) -> None:
    hub.start()
    due = datetime.now(UTC) + timedelta(seconds=0.05)
    hub.decide(await hub.item(), helpers.new_create_timer_action(0, due))
    item = await hub.item()
    assert datetime.now(UTC) >= due
    assert new_kinds(item) == ["orchestratorStarted", "timerFired"]


async def test_continuing_as_new_begins_a_new_history_and_drops_the_timers(hub: Hub) -> None:
    hub.start()
    item = await hub.item()
    hub.hub.raise_event("one", "late", "1")
    again = helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, '"next"')
    hub.decide(item, timer(0, 0), again)
    item = await hub.item()
    assert list(item.orchestratorRequest.pastEvents) == []
    assert new_kinds(item) == ["orchestratorStarted", "executionStarted", "eventRaised"]
    assert item.orchestratorRequest.newEvents[1].executionStarted.input.value == '"next"'
    assert all(event.timestamp.seconds for event in item.orchestratorRequest.newEvents)
    hub.decide(item)
    assert await hub.is_idle()


async def test_a_suspended_instance_is_only_woken_by_what_ends_the_suspension(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), activity(0))
    work = await hub.item()
    hub.hub.suspend("one", "lunch")
    hub.decide(await hub.item())
    assert hub.status() == "Suspended"
    hub.hub.complete_activity(work, "1", None)
    hub.hub.raise_event("one", "a", "1")
    assert await hub.is_idle()
    hub.hub.resume("one", "back")
    item = await hub.item()
    assert new_kinds(item) == ["orchestratorStarted", "taskCompleted", "eventRaised", "executionResumed"]
    hub.decide(item)
    assert hub.status() == "Running"


@pytest.mark.parametrize("operation", ["resume", "terminate"])
async def test_what_ends_a_suspension_is_not_lost_while_the_suspension_is_at_work(hub: Hub, operation: str) -> None:
    hub.start()
    hub.decide(await hub.item())
    hub.hub.suspend("one", "lunch")
    suspending = await hub.item()
    getattr(hub.hub, operation)("one", "back")
    hub.decide(suspending)
    assert new_kinds(await hub.item())[-1] in {"executionResumed", "executionTerminated"}


async def test_postponed_events_come_back_before_later_ones(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item())
    for number in range(3):
        hub.hub.raise_event("one", str(number), "1")
    item = await hub.item()
    hub.hub.raise_event("one", "3", "1")
    hub.hub.postpone("one", 2)
    hub.decide(item)
    assert [each.eventRaised.name for each in (await hub.item()).orchestratorRequest.newEvents] == ["", "1", "2", "3"]


async def start_child(hub: Hub) -> pb.WorkItem:
    hub.start()
    hub.decide(await hub.item(), helpers.new_create_sub_orchestration_action(0, "Child", "child", '"to child"', None))
    return await hub.item()


async def test_a_sub_orchestration_has_its_parents_trace_and_reports_its_result(hub: Hub) -> None:
    item = await start_child(hub)
    assert item.orchestratorRequest.instanceId == "child"
    assert hub.parent_id("child") == "one"
    assert hub.hub.trace_context("child") == TRACE
    hub.decide(item, COMPLETED)
    reported = (await hub.item()).orchestratorRequest.newEvents[-1]
    assert reported.subOrchestrationInstanceCompleted.result.value == '"done"'
    assert reported.subOrchestrationInstanceCompleted.taskScheduledId == 0


async def test_a_sub_orchestration_that_continues_as_new_still_reports(hub: Hub) -> None:
    item = await start_child(hub)
    hub.decide(item, helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_CONTINUED_AS_NEW, "1"))
    assert hub.parent_id("child") == "one"
    hub.decide(await hub.item(), COMPLETED)
    assert new_kinds(await hub.item())[-1] == "subOrchestrationInstanceCompleted"


async def test_a_sub_orchestration_reports_its_failure(hub: Hub) -> None:
    item = await start_child(hub)
    details = pb.TaskFailureDetails(errorMessage="broken", stackTrace=helpers.get_string_value("where"))
    hub.decide(item, helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_FAILED, '"x"', details))
    failed = (await hub.item()).orchestratorRequest.newEvents[-1].subOrchestrationInstanceFailed.failureDetails
    assert (failed.errorMessage, failed.stackTrace.value) == ("broken", "where")


async def test_a_sub_orchestration_whose_parent_is_gone_reports_to_nobody(hub: Hub) -> None:
    item = await start_child(hub)
    hub.hub.terminate("one", "enough")
    parent = await hub.item()
    hub.hub.complete_orchestrator("one", parent.completionToken, termination('"enough"'))
    hub.decide(item, COMPLETED)
    assert await hub.is_idle()
    assert hub.status("child") == "Completed"


async def test_a_sub_orchestration_with_the_id_of_a_live_instance_fails(hub: Hub) -> None:
    hub.start("child")
    live = await hub.item()
    hub.start()
    hub.decide(await hub.item(), helpers.new_create_sub_orchestration_action(0, "Child", "child", None, None))
    assert new_kinds(await hub.item())[-1] == "subOrchestrationInstanceFailed"
    hub.decide(live, COMPLETED)
    assert await hub.is_idle()


async def test_a_live_id_cannot_be_started_again_and_a_finished_one_can(hub: Hub) -> None:
    hub.start()
    with pytest.raises(EngineError):
        hub.start()
    hub.decide(await hub.item(), COMPLETED)
    hub.start()
    assert hub.status() == "Pending"


async def test_an_instance_without_an_id_gets_one(hub: Hub) -> None:
    made = {hub.hub.start_new("Orchestrator", None, None, version=None, trace=TRACE) for _ in range(2)}
    assert len(made) == 2


def ids(hub: Hub, wanted: InstanceFilter, top: int = 10, token: str = "") -> tuple[list[str], str]:
    found, next_token = hub.hub.page(wanted, top=top, token=token)
    return [each.instance_id for each in found], next_token


async def test_lists_page_by_page_in_the_order_of_the_ids(hub: Hub) -> None:
    for instance_id in ("b-1", "a-2", "a-1"):
        hub.start(instance_id)
    first, token = ids(hub, InstanceFilter(), top=2)
    second, end = ids(hub, InstanceFilter(), top=2, token=token)
    assert (first, second, end) == (["a-1", "a-2"], ["b-1"], "")
    assert ids(hub, InstanceFilter(prefix="a-"), top=2) == (["a-1", "a-2"], "")


async def test_a_filtered_page_may_be_empty_and_still_have_a_next_one(hub: Hub) -> None:
    for instance_id in ("a", "b"):
        hub.start(instance_id)
    hub.decide(await hub.item())
    hub.decide(await hub.item(), COMPLETED)
    wanted = InstanceFilter(statuses=["Completed"])
    found, token = ids(hub, wanted, top=1)
    assert found == []
    assert ids(hub, wanted, top=1, token=token) == (["b"], "")


async def test_lists_and_purges_by_time(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), COMPLETED)
    past, future = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
    assert ids(hub, InstanceFilter(created_from=past, created_to=future))[0] == ["one"]
    assert ids(hub, InstanceFilter(created_from=future))[0] == ids(hub, InstanceFilter(created_to=past))[0] == []
    assert hub.hub.purge_all(InstanceFilter(created_from=future)) == 0
    assert hub.hub.purge_all(InstanceFilter(created_from=past, created_to=future)) == 1


def failing(item: pb.WorkItem) -> pb.OrchestratorAction:
    details = pb.TaskFailureDetails(errorMessage=f"{item.orchestratorRequest.instanceId} failed")
    return helpers.new_complete_orchestration_action(-1, pb.ORCHESTRATION_STATUS_FAILED, '"x"', details)


async def test_rewinding_takes_failed_activities_out_of_the_history_and_keeps_the_others(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), activity(0), activity(1))
    good, bad = await hub.item(), await hub.item()
    hub.hub.complete_activity(good, "1", None)
    hub.hub.complete_activity(bad, None, pb.TaskFailureDetails(errorMessage="broken"))
    item = await hub.item()
    hub.decide(item, failing(item))
    hub.hub.rewind("one", "again")
    item = await hub.item()
    past = item.orchestratorRequest.pastEvents
    assert [(each.eventId, each.taskScheduled.name) for each in past if each.HasField("taskScheduled")] == [
        (0, "Activity")
    ]
    assert not {"taskFailed", "executionCompleted"} & set(kinds(past))
    assert [each.genericEvent.data.value for each in item.orchestratorRequest.newEvents][-1] == "again"
    assert hub.status() == "Running"
    hub.decide(item, COMPLETED)
    assert hub.status() == "Completed"


async def test_rewinding_rewinds_the_failed_sub_orchestration_which_reports_again(hub: Hub) -> None:
    child = await start_child(hub)
    hub.decide(child, failing(child))
    parent = await hub.item()
    hub.decide(parent, failing(parent))
    hub.hub.rewind("one", "again")
    child = await hub.item()
    assert child.orchestratorRequest.instanceId == "child"
    assert await hub.is_idle()
    hub.decide(child, COMPLETED)
    assert new_kinds(await hub.item())[-1] == "subOrchestrationInstanceCompleted"


async def test_rewinding_starts_a_sub_orchestration_again_that_is_gone(hub: Hub) -> None:
    child = await start_child(hub)
    hub.decide(child, failing(child))
    parent = await hub.item()
    hub.decide(parent, failing(parent))
    hub.hub.purge("child")
    hub.hub.rewind("one", "again")
    assert "subOrchestrationInstanceCreated" not in kinds((await hub.item()).orchestratorRequest.pastEvents)


async def test_nothing_fires_after_the_hub_is_closed(hub: Hub) -> None:
    hub.start()
    hub.decide(await hub.item(), timer(0, 0))
    hub.hub.close()
    assert await hub.is_idle()
