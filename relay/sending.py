"""Sends a file: batches in order, a few deliveries at a time, each watched to its end."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from relay.app_client import delivery_path, json_object, problem
from relay.errors import CommandError, ExitCode
from relay.journal import FinishedBatch, batch_digest
from relay.record_files import batches

if TYPE_CHECKING:
    from collections.abc import Iterable

    import httpx

    from relay.app_client import AppClient
    from relay.journal import Journal
    from relay.record_files import RecordBatch, SourceRecord
    from relay.record_types import RecordType, Schema
    from relay.rejected_file import RejectedFile

DELIVERED = ("created", "exists")
FINISHED = {"delivered", "partly", "rejected", "expired", "cancelled", "failed"}
# Seconds between two looks at a delivery: a fifth of its age, so that it is seen to end soon after it has.
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
# How often a delivery is posted again that the app has lost, as a sandbox does that was started anew.
_POSTS = 3
_INDEX = re.compile(r"#?/([0-9]+)(?=/|$)")


@dataclass(slots=True)
class SendingResult:
    """What has become of the records so far.

    `counts` counts records by state: "created", "exists", "invalid" (never sent), "rejected", "expired" and so on.
    `running` has the counts of deliveries that go on, by batch. `resumed` counts records that an interrupted run had
    finished. `is_repeated` tells that undelivered records are the results of deliveries older than this run.
    """

    read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    running: dict[int, Counter[str]] = field(default_factory=dict)
    deliveries: list[str] = field(default_factory=list)
    resumed: int = 0
    is_repeated: bool = False

    @property
    def done(self) -> Counter[str]:
        """The counts with those of running deliveries."""
        return sum(self.running.values(), start=self.counts.copy())

    @property
    def undelivered(self) -> int:
        """How many records were not delivered."""
        return self.counts.total() - sum(self.counts[state] for state in DELIVERED)


class Sending:
    """One run. `result` can be read at any time; `started` is the app's time at the start, None where unknown."""

    def __init__(  # noqa: PLR0913, wired in one place
        self,
        client: AppClient,
        type_: RecordType,
        journal: Journal,
        rejected: RejectedFile,
        *,
        window: int,
        started: datetime | None,
    ) -> None:
        self.result = SendingResult()
        self._client = client
        self._type = type_
        self._journal = journal
        self._rejected = rejected
        self._window = window
        self._started = started

    async def run(self, records: Iterable[SourceRecord]) -> None:
        """Send the records, and return when every delivery has ended. At most `window` batches are in memory.

        Raises:
            CommandError: the file or the app failed. Batches that the app has taken are watched to their end, unless
                it was the app that failed.
        """
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self._forget_lost()
            read = batches(records)
            # In a thread: standard input may be slow, and the deliveries go on.
            while batch := await asyncio.to_thread(next, read, None):
                self.result.read += len(batch.records) + len(batch.unusable)
                tasks.add(asyncio.create_task(self._batch(batch)))
                # A batch that has ended makes room for the next one.
                tasks = await self._ended(tasks) if len(tasks) >= self._window else tasks
            while tasks:
                tasks = await self._ended(tasks)
        except CommandError as exc:
            if exc.exit_code == ExitCode.USAGE:
                await asyncio.gather(*tasks)
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @staticmethod
    async def _ended(tasks: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
        ended, going_on = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
        return going_on

    async def _forget_lost(self) -> None:
        """Forget what the journal says if the app no longer knows it: a sandbox that was started anew knows nothing."""
        ids = [batch.id for batch in self._journal.finished.values() if batch.id]
        if ids:
            answer = await self._client.call("GET", delivery_path(ids[-1]), expected=frozenset({404}))
            if not answer.is_success:
                self._journal.finished.clear()
                self._client.notice("The app no longer has the deliveries of the interrupted run: all is sent again")

    async def _batch(self, batch: RecordBatch) -> None:
        digest = self._key(batch.index, batch.records)
        finished = self._journal.finished.get(batch.index)
        if finished is not None and finished.digest == digest:
            self.result.resumed += len(batch.records)
        else:
            finished = await self._delivered(batch, digest)
        self.result.running.pop(batch.index, None)
        self.result.counts.update(finished.counts)
        self.result.counts["invalid"] += len(batch.unusable)
        for record in batch.unusable:
            self._rejected.write(record, str(record.fault))
        if finished.id:
            self.result.deliveries.append(finished.id)
        for place, state, reason in finished.undelivered:
            text = reason if state in {"invalid", "rejected"} else f"{state}: {reason}".removesuffix(": ")
            self._rejected.write(batch.records[place], text)
        # Last: a batch in the journal has its rejected records in the file.
        self._journal.add(finished)

    async def _delivered(self, batch: RecordBatch, digest: str) -> FinishedBatch:
        """Deliver a batch, and return what has become of it."""
        places = list(range(len(batch.records)))
        undelivered: list[tuple[int, str, str]] = []
        delivery: dict[str, Any] = {}
        posts = 0
        while places:
            answer = await self._post(batch, places)
            if not answer.is_success:
                faults = _faults(answer, len(places), self._type.schema)
                undelivered += [(places[index], "invalid", reason) for index, reason in faults.items()]
                # The app has started nothing. The rest has another content, and so another key.
                places = [place for index, place in enumerate(places) if index not in faults]
                continue
            posts += 1
            ended = await self._watched(batch.index, json_object(answer))
            if ended is not None:
                delivery = ended
                break
            if posts == _POSTS:
                raise CommandError(ExitCode.REFUSED, "The app loses deliveries.", "`relay doctor` finds out why.")
        counts = Counter({"invalid": len(undelivered)})
        if delivery.get("state") == "delivered":
            counts += _counts(delivery)
        for record in delivery.get("records", []):
            state = "unfinished" if record["state"] == "pending" else record["state"]
            counts[state] += 1
            if state not in DELIVERED:
                undelivered.append((places[record["index"]], state, _reason(record)))
        return FinishedBatch(batch.index, digest, str(delivery.get("id", "")), dict(+counts), undelivered)

    async def _post(self, batch: RecordBatch, places: list[int]) -> httpx.Response:
        """Post the records at these places; the answer is a success, or names the records that break rules."""
        records = [batch.records[place] for place in places]
        return await self._client.call(
            "POST",
            f"{self._type.route}/batch",
            content=_body(records),
            headers={"content-type": "application/json", "idempotency-key": f"relay-{self._key(batch.index, records)}"},
            expected=frozenset({400, 422}),
        )

    async def _watched(self, index: int, accepted: dict[str, Any]) -> dict[str, Any] | None:
        """Wait for the end of a delivery, and return it; None if the app no longer knows it.

        It has its records unless all were delivered: to list them costs the app time.
        """
        path, begun = delivery_path(str(accepted["id"])), self._client.clock()
        while True:
            answer = await self._client.call("GET", path, expected=frozenset({404}))
            if answer.status_code == 404:  # noqa: PLR2004, RFC 9110 section 15.5.5
                return None
            delivery = json_object(answer)
            if delivery.get("state") in FINISHED:
                break
            self.result.running[index] = _counts(delivery)
            age = self._client.clock() - begun
            await self._client.sleep(min(max(age / 5, _SHORTEST_PAUSE), _LONGEST_PAUSE))
        if delivery["state"] != "delivered":
            delivery = await self._client.json("GET", path, {"records": "true"})
        self._note_age(delivery)
        return delivery

    def _note_age(self, delivery: dict[str, Any]) -> None:
        created = str(delivery.get("createdTime", ""))
        if delivery.get("state") == "delivered" or self._started is None or not created:
            return
        # The Date header has whole seconds.
        if datetime.fromisoformat(created) < self._started - timedelta(seconds=1):
            self.result.is_repeated = True

    def _key(self, index: int, records: list[SourceRecord]) -> str:
        return batch_digest(self._journal.salt, self._type.route, str(index), _body(records))


def _body(records: list[SourceRecord]) -> bytes:
    return b"[" + b",".join(record.text for record in records) + b"]"


def _counts(delivery: dict[str, Any]) -> Counter[str]:
    """Return the counts that a running or finished delivery reports."""
    names = (*DELIVERED, "rejected", "expired")
    return +Counter({name: delivery[name] for name in names if isinstance(delivery.get(name), int)})


def _faults(answer: httpx.Response, count: int, schema: Schema) -> dict[int, str]:
    """Return the reasons by the index of the record, from pointers such as "#/17/name", with the values to choose from.

    Raises:
        CommandError: the app refuses the batch for another reason.
    """
    details = problem(answer)
    faults: dict[int, str] = {}
    for error in details.get("errors") or []:
        found = _INDEX.match(pointer := unquote(str(error.get("pointer", ""))))
        if found and int(found[1]) < count:
            member = pointer[found.end() :]
            reason = f"{member}: {error.get('detail')}" if member else str(error.get("detail"))
            if (at := schema.at(member)) is not None and at.choices:
                reason += f"; choose from {', '.join(map(str, at.choices))}"
            index = int(found[1])
            faults[index] = f"{faults[index]}; {reason}" if index in faults else reason
    if not faults:
        detail = details.get("detail") or details.get("title") or answer.reason_phrase
        raise CommandError(ExitCode.REFUSED, f"The app answers {answer.status_code}: {detail}")
    return faults


def _reason(record: dict[str, Any]) -> str:
    """Return what is known of a record that was not delivered, in one line."""
    status = f"{record['status']}: " if record.get("status") else ""
    details = record.get("problem") or {}
    said = " ".join(str(details[name]) for name in ("title", "detail") if details.get(name))
    uncertain = " (it may have arrived)" if record.get("uncertain") else ""
    return f"{status}{record.get('reason') or said or record['state']}{uncertain}"
