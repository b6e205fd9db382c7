from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from shared.delivery import purge
from shared.delivery.purge import purge_history

NOW = datetime(2026, 3, 1, 3, 30, tzinfo=UTC)
FINISHED = ["Completed", "Failed", "Terminated"]


@dataclass
class Result:
    instances_deleted: int


@dataclass
class Host:
    """Purges at most `page` of its instances a call; each is when it was created and its status."""

    instances: list[tuple[datetime, str]]
    page: int = 1_000_000
    calls: int = 0
    fails_at: int = 0
    spans: set[tuple[datetime | None, datetime | None]] = field(default_factory=set)

    async def purge_instance_history_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: list[str] | None = None,
    ) -> Result:
        self.calls += 1
        if self.calls == self.fails_at:
            raise ConnectionError("storage is away")
        assert created_time_from is not None
        assert created_time_to is not None
        self.spans.add((created_time_from, created_time_to))
        old = [
            instance
            for instance in self.instances
            if created_time_from <= instance[0] <= created_time_to and instance[1] in (runtime_status or ())
        ][: self.page]
        for instance in old:
            self.instances.remove(instance)
        return Result(len(old))


def ago(days: float, status: str = "Completed") -> tuple[datetime, str]:
    return NOW - timedelta(days=days), status


async def test_what_has_finished_and_is_old_is_purged_and_nothing_else() -> None:
    kept = [ago(29.99), ago(0, "Failed"), ago(400, "Running"), ago(31, "Pending"), ago(31, "Suspended")]
    host = Host([*kept, ago(30.01), ago(31, "Failed"), ago(4_000, "Terminated")])

    assert await purge_history(host, 30, FINISHED, NOW) == 3
    assert host.instances == kept


async def test_a_host_that_purges_page_by_page_is_asked_until_nothing_is_left() -> None:
    host = Host([ago(31 + number) for number in range(250)], page=100)

    assert await purge_history(host, 30, FINISHED, NOW) == 250
    assert (host.instances, host.calls) == ([], 4)


async def test_every_page_is_asked_for_by_the_same_times() -> None:
    host = Host([ago(40)] * 3, page=1)

    await purge_history(host, 7.5, FINISHED, NOW)
    [(first, last)] = host.spans
    assert last == NOW - timedelta(days=7.5)
    assert first is not None
    assert first < datetime(2015, 1, 1, tzinfo=UTC)
    assert first.tzinfo is UTC


async def test_a_host_with_nothing_to_purge_is_asked_once() -> None:
    host = Host([])

    assert await purge_history(host, 30, FINISHED, NOW) == 0
    assert host.calls == 1


async def test_a_host_that_always_finds_more_is_left_to_the_next_run() -> None:
    class Endless(Host):
        async def purge_instance_history_by(self, *_: object, **__: object) -> Result:
            self.calls += 1
            return Result(2)

    host = Endless([])
    assert await purge_history(host, 30, FINISHED, NOW) == 2 * purge.MAX_PAGES
    assert host.calls == purge.MAX_PAGES


async def test_a_purge_that_fails_fails_the_run_so_that_the_host_tells_of_it() -> None:
    host = Host([ago(31)] * 5, page=2, fails_at=2)

    with pytest.raises(ConnectionError):
        await purge_history(host, 30, FINISHED, NOW)
    assert await purge_history(host, 30, FINISHED, NOW) == 3


async def test_a_purge_says_how_many_it_has_purged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "shared.delivery.purge")

    await purge_history(Host([ago(31)] * 5), 30, FINISHED, NOW)
    [line] = caplog.records
    assert (line.getMessage(), vars(line)["instances"], vars(line)["older_than_days"]) == ("history purged", 5, 30)
