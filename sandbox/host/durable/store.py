"""The store of a task hub: instances and scheduled activities in an SQLite database, where a killed host leaves them.

A row of `instances` is an instance with the messages that wait for it, and its history. A row of `activities` is an
activity that was handed out, or will be, and has no result yet. Timers and sub-orchestrations stand in the histories.
"""

from __future__ import annotations

import sqlite3
from contextlib import ExitStack
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.testing.in_memory_backend import ActivityWorkItem, OrchestrationInstance

from sandbox.host.errors import StartError
from sandbox.host.schedule import parse_time_span

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from sandbox.host.settings import StorageProvider

# An activity that has no result yet, and when the instance that scheduled it was created.
ScheduledActivity = tuple[ActivityWorkItem, datetime]
# The completion token of the orchestrator's turn that scheduled an activity, and the activity's number.
ActivityKey = tuple[str, int]

_encode = msgspec.msgpack.Encoder(enc_hook=lambda message: message.SerializeToString()).encode

_SCHEMA = """
    PRAGMA locking_mode = EXCLUSIVE;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS instances (id TEXT PRIMARY KEY, record BLOB NOT NULL, history BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS activities (token TEXT, number INTEGER, activity BLOB NOT NULL,
                                           PRIMARY KEY (token, number));
"""


def _events(serialized: Collection[bytes]) -> list[pb.HistoryEvent]:
    return [pb.HistoryEvent.FromString(each) for each in serialized]


def _record(instance: OrchestrationInstance) -> bytes:
    """Return an instance without its history. A message that was handed out waits until its turn is committed."""
    messages = [*instance.dispatched_events, *instance.pending_events]
    return _encode(vars(instance) | {"pending_events": messages, "dispatched_events": [], "history": []})


def _instance(record: bytes, history: bytes) -> OrchestrationInstance:
    fields: dict[str, Any] = msgspec.msgpack.decode(record)
    past, messages = _events(msgspec.msgpack.decode(history)), _events(fields["pending_events"])
    # The start of a turn is no message: the engine writes one when it hands out the messages of a later turn.
    messages = [each for each in messages if not (past and each.HasField("orchestratorStarted"))]
    fields |= {"history": past, "pending_events": messages}
    if fields["failure_details"] is not None:
        fields["failure_details"] = pb.TaskFailureDetails.FromString(fields["failure_details"])
    return OrchestrationInstance(**fields)


class Store:
    """The database in a folder, which is made where it is missing. One host at a time can use it.

    What a host had taken when it was killed is handed out again so many seconds after the next one has started:
    `activities_after` and `messages_after`. A commit survives the end of the process, not that of the machine.

    Raises:
        StartError: the folder or the database cannot be used, or another host uses it.
    """

    def __init__(self, folder: Path, provider: StorageProvider) -> None:
        self.activities_after, self.messages_after = (
            span.total_seconds() if (span := parse_time_span(timeout)) else 0.0
            for timeout in (provider.work_item_queue_visibility_timeout, provider.control_queue_visibility_timeout)
        )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as closing:
                self._database = sqlite3.connect(folder / "task-hub.sqlite3", timeout=0.0)
                closing.callback(self._database.close)
                self._database.executescript(_SCHEMA)
                closing.pop_all()
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"the store in {folder} cannot be used: {error}") from error

    def load(self) -> tuple[dict[str, OrchestrationInstance], dict[ActivityKey, ScheduledActivity]]:
        """Return the instances by their ids, and the activities without a result."""
        instances = [_instance(*row) for row in self._database.execute("SELECT record, history FROM instances")]
        activities = {
            (token, number): msgspec.msgpack.decode(activity, type=ScheduledActivity)
            for token, number, activity in self._database.execute("SELECT token, number, activity FROM activities")
        }
        return {each.instance_id: each for each in instances}, activities

    def commit(
        self,
        instances: Mapping[str, tuple[OrchestrationInstance | None, bool]],
        activities: Mapping[ActivityKey, ScheduledActivity | None],
    ) -> None:
        """Write these instances and activities in one transaction, and delete those that are None.

        With an instance comes whether its history has changed. An empty one is written in any case.
        """
        with self._database as database:
            for id_, (instance, history_has_changed) in instances.items():
                if instance is None:
                    database.execute("DELETE FROM instances WHERE id = ?", (id_,))
                elif instance.history and not history_has_changed:
                    database.execute("UPDATE instances SET record = ? WHERE id = ?", (_record(instance), id_))
                else:
                    row = id_, _record(instance), _encode(instance.history)
                    database.execute("REPLACE INTO instances VALUES (?, ?, ?)", row)
            for key, activity in activities.items():
                if activity is None:
                    database.execute("DELETE FROM activities WHERE token = ? AND number = ?", key)
                else:
                    database.execute("REPLACE INTO activities VALUES (?, ?, ?)", (*key, _encode(activity)))

    def close(self) -> None:
        """Close the database."""
        self._database.close()
