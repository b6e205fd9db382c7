from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from relay.app_client import AppClient
from relay.connection import Connection
from relay.errors import CommandError, ExitCode
from relay.journal import Journal
from relay.record_files import RecordFile
from relay.record_types import choose, read_record_types
from relay.rejected_file import RejectedFile, rejected_path
from relay.sending import Sending
from tests.fakes.relay_app import CREATED, RelayApp, document

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from relay.sending import SendingResult

PARCEL = choose(read_record_types(document()), None)


@pytest.fixture
def app() -> Iterator[RelayApp]:
    with RelayApp() as app:
        yield app


class Clock:
    """Goes on by what is slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def ndjson(path: Path, *ids: str) -> Path:
    path.write_text("".join(json.dumps({"parcelId": id_, "city": "Ulm"}) + "\n" for id_ in ids))
    return path


async def sent(  # noqa: PLR0913, one way to send
    app: RelayApp,
    path: Path,
    *,
    clock: Clock | None = None,
    salt: str = "",
    is_complete: bool = True,
    started: datetime | None = None,
) -> SendingResult:
    """Send a file; `is_complete=False` leaves the journal behind, as a killed process does."""
    clock = clock or Clock()
    connection = Connection(app.url, None, "", "")
    with (
        RecordFile(str(path)) as source,
        Journal.open(path.parent / "state", (app.url, "parcels", str(path)), source, salt) as journal,
        RejectedFile(rejected_path(source), source) as rejected,
    ):
        async with AppClient(connection, patience=300, sleep=clock.sleep, clock=clock) as client:
            sending = Sending(client, PARCEL, journal, rejected, window=4, started=started)
            await sending.run(source.read(PARCEL, {}))
        if is_complete:
            journal.remove()
    return sending.result


async def test_delivers_every_record_of_many_batches(app: RelayApp, tmp_path: Path) -> None:
    ids = [f"p{n}" for n in range(5_432)]
    result = await sent(app, ndjson(tmp_path / "a.ndjson", *ids))
    assert Counter(app.stored) == Counter(ids)
    assert result.counts == Counter(created=5_432)
    assert len(result.deliveries) == app.posts == 6


async def test_sets_aside_what_the_app_refuses_and_sends_the_rest(app: RelayApp, tmp_path: Path) -> None:
    app.most_faults = 1
    path = tmp_path / "a.ndjson"
    path.write_text("".join(f'{{"parcelId":"p{n}","city":"{"" if n in {1, 4} else "Ulm"}"}}\n' for n in range(6)))
    result = await sent(app, path)
    assert result.counts == Counter(created=4, invalid=2)
    assert app.stored == ["p0", "p2", "p3", "p5"]
    rejected = [json.loads(line) for line in (tmp_path / "a.rejected.ndjson").read_text().splitlines()]
    assert [record["parcelId"] for record in rejected] == ["p1", "p4"]
    assert rejected[1]["relay_rejected"] == {"line": 5, "reason": "/city: must not be empty"}


async def test_names_the_values_to_choose_from(app: RelayApp, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("parcelId,city,size\np0,Ulm,Small\np1,Ulm,small\np2,Ulm,\n")
    assert (await sent(app, path)).counts == Counter(created=2, invalid=1)
    rejected = (tmp_path / "a.rejected.csv").read_text(encoding="utf-8-sig").splitlines()
    assert rejected[1] == '2,"/size: Invalid enum value; choose from small, large",p0,Ulm,Small'


async def test_writes_the_right_record_for_each_that_the_partner_rejects(app: RelayApp, tmp_path: Path) -> None:
    app.rejected = {"p3"}
    path = tmp_path / "a.ndjson"
    path.write_text("".join(f'{{"parcelId":"p{n}","city":"{"" if n == 1 else "Ulm"}"}}\n' for n in range(5)))
    result = await sent(app, path)
    assert result.counts == Counter(created=3, invalid=1, rejected=1)
    rejected = [json.loads(line) for line in (tmp_path / "a.rejected.ndjson").read_text().splitlines()]
    assert rejected[1]["parcelId"] == "p3"
    assert rejected[1]["relay_rejected"]["reason"] == "422: the partner knows no such city"


async def test_a_mended_file_of_rejected_records_is_delivered(app: RelayApp, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("parcelId,city,grams\np0,Ulm,1\np1,,2\np2,Ulm,x\n")
    assert (await sent(app, path)).undelivered == 2
    mended = tmp_path / "a.rejected.csv"
    mended.write_text(mended.read_text(encoding="utf-8-sig").replace("p1,,", "p1,Bonn,").replace(",x", ",3"))
    assert (await sent(app, mended)).undelivered == 0
    assert sorted(app.stored) == ["p0", "p1", "p2"]


async def test_a_batch_whose_records_are_all_refused_starts_nothing(app: RelayApp, tmp_path: Path) -> None:
    result = await sent(app, ndjson(tmp_path / "a.ndjson", "", ""))
    assert result.counts == Counter(invalid=2)
    assert not app.deliveries


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_waits_while_the_app_is_busy_as_long_as_it_asks(app: RelayApp, tmp_path: Path, status: int) -> None:
    app.answers.extend([(status, {"retry-after": "7"}), (status, {})])
    clock = Clock()
    await sent(app, ndjson(tmp_path / "a.ndjson", "p1"), clock=clock)
    assert clock.slept[:2] == [7.0, 1.0]
    assert app.stored == ["p1"]


async def test_gives_up_when_the_app_asks_for_more_patience_than_there_is(app: RelayApp, tmp_path: Path) -> None:
    app.answers.append((503, {"retry-after": "3600"}))
    clock = Clock()
    with pytest.raises(CommandError) as error:
        await sent(app, ndjson(tmp_path / "a.ndjson", "p1"), clock=clock)
    assert error.value.exit_code == ExitCode.UNREACHABLE
    assert not clock.slept


async def test_a_second_run_of_the_same_file_gets_the_same_deliveries(app: RelayApp, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "a.ndjson", *(f"p{n}" for n in range(1_500)))
    first, second = await sent(app, path), await sent(app, path)
    assert sorted(first.deliveries) == sorted(second.deliveries)
    assert len(app.stored) == 1_500


async def test_equal_batches_of_one_file_are_two_deliveries(app: RelayApp, tmp_path: Path) -> None:
    ids = [f"p{n}" for n in range(1_000)]
    await sent(app, ndjson(tmp_path / "a.ndjson", *ids, *ids))
    assert len(app.deliveries) == 2


async def test_a_salt_makes_new_deliveries_also_when_that_run_is_resumed(app: RelayApp, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "a.ndjson", "p1")
    await sent(app, path)
    await sent(app, path, salt="again", is_complete=False)
    app.deliveries["parcel-1"].state = "delivering"
    await sent(app, path)
    assert len(app.deliveries) == 2


async def test_a_resumed_run_does_not_ask_for_finished_batches_and_rejects_the_same_records(
    app: RelayApp, tmp_path: Path
) -> None:
    app.rejected = {"p1"}
    path = ndjson(tmp_path / "a.ndjson", *(f"p{n}" for n in range(1_500)))
    await sent(app, path, is_complete=False)
    posts, rejected = app.posts, (tmp_path / "a.rejected.ndjson").read_text()
    result = await sent(app, path)
    assert app.posts == posts
    assert result.resumed == 1_500
    assert result.counts == Counter(created=1_499, rejected=1)
    assert (tmp_path / "a.rejected.ndjson").read_text() == rejected


async def test_a_resumed_run_sends_batches_that_were_changed_and_no_others(app: RelayApp, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "a.ndjson", *(f"p{n}" for n in range(2_500)))
    await sent(app, path, is_complete=False)
    path.write_text(path.read_text().replace('"p1500"', '"new"'))
    with (
        RecordFile(str(path)) as source,
        Journal.open(tmp_path / "state", (app.url, "parcels", str(path)), source) as journal,
    ):
        assert journal.is_changed
    result = await sent(app, path)
    assert (result.resumed, app.posts) == (1_500, 4)


async def test_a_torn_journal_is_read_as_far_as_it_goes(app: RelayApp, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "a.ndjson", *(f"p{n}" for n in range(1_500)))
    await sent(app, path, is_complete=False)
    [journal] = (tmp_path / "state").iterdir()
    journal.write_text(journal.read_text()[:-20])
    assert 0 < (await sent(app, path)).resumed < 1_500
    assert len(app.stored) == 1_500


async def test_sends_all_again_to_an_app_that_has_lost_its_deliveries(app: RelayApp, tmp_path: Path) -> None:
    path = ndjson(tmp_path / "a.ndjson", "p1")
    await sent(app, path, is_complete=False)
    app.deliveries.clear()
    assert (await sent(app, path)).resumed == 0
    assert app.stored == ["p1"]


async def test_tells_that_results_are_those_of_an_earlier_run(app: RelayApp, tmp_path: Path) -> None:
    app.rejected = {"p1"}
    path = ndjson(tmp_path / "a.ndjson", "p1")
    created = datetime.fromisoformat(CREATED)
    assert not (await sent(app, path, started=created)).is_repeated
    assert (await sent(app, path, started=created + timedelta(minutes=1))).is_repeated


@pytest.mark.parametrize("state", ["cancelled", "failed"])
async def test_records_of_a_delivery_that_was_ended_are_not_lost(app: RelayApp, tmp_path: Path, state: str) -> None:
    path = ndjson(tmp_path / "a.ndjson", "p1", "p2")
    await sent(app, path)
    app.deliveries["parcel-0"].state, app.deliveries["parcel-0"].done = state, 1
    result = await sent(app, path)
    assert result.counts == Counter(created=1, unfinished=1)
    assert "p2" in (tmp_path / "a.rejected.ndjson").read_text()


async def test_a_broken_file_ends_the_run_after_what_was_taken_is_delivered(app: RelayApp, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    records = ",".join(f'{{"parcelId":"p{n}","city":"Ulm"}}' for n in range(1_200))
    path.write_text(f"[{records},{{")
    with pytest.raises(CommandError, match="is not JSON at line 1"):
        await sent(app, path)
    assert [delivery.state for delivery in app.deliveries.values()] == ["delivered"]
