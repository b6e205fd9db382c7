"""Remembers which batches of a file are finished, so that an interrupted run goes on where it stopped.

The journal spares requests; that nothing is sent twice does not depend on it. Every batch has an idempotency key that
is derived from its content, and the app answers a known key with the delivery it has.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from pathlib import Path

    from relay.record_files import RecordFile


@dataclass(frozen=True, slots=True)
class FinishedBatch:
    """A batch whose delivery has ended.

    `digest` is that of its records, `id` the delivery's, "" where nothing was left to deliver. `counts` counts records
    by state; `undelivered` has the place in the batch, the state and the reason of each other record.
    """

    index: int
    digest: str
    id: str
    counts: dict[str, int]
    undelivered: list[tuple[int, str, str]] = field(default_factory=list)


class Journal:
    """The finished batches of one file, record type and app; for `with`.

    `salt` is part of the run's idempotency keys: "" unless the user wants new deliveries of the same records.
    `is_changed` tells that the file was changed since the earlier run.
    """

    def __init__(self, path: Path | None, salt: str, finished: dict[int, FinishedBatch], *, is_changed: bool) -> None:
        self.salt = salt
        self.finished = finished
        self.is_changed = is_changed
        self._path = path
        self._file: TextIO | None = None

    @classmethod
    def open(cls, directory: Path, run: tuple[str, str, str], file: RecordFile, salt: str = "") -> Self:
        """Read the journal of an earlier run, or begin one. `run` is the app's URL, the route and the file's path.

        A `salt` begins a new one in any case. A journal that cannot be written is no error. Standard input has none.
        """
        if not file.size:
            return cls(None, salt, {}, is_changed=False)
        path = directory / (hashlib.sha256("\0".join(run).encode()).hexdigest()[:32] + ".ndjson")
        head: dict[str, Any] = {}
        finished: dict[int, FinishedBatch] = {}
        try:
            for line in path.read_text(encoding="utf-8").splitlines() if not salt else ():
                entry = json.loads(line)
                if "index" in entry:
                    finished[entry["index"]] = FinishedBatch(**entry)
                else:
                    head = entry
        except (OSError, ValueError, TypeError):
            pass  # There is none, or its last line is torn.
        journal = cls(
            path,
            salt or str(head.get("salt", "")),
            finished,
            is_changed=bool(head) and (head.get("size"), head.get("modified")) != (file.size, file.modified),
        )
        journal._begin(dict(zip(("url", "route", "file"), run, strict=True)), file)
        return journal

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def remove(self) -> None:
        """Remove the journal of a complete run: from then on the app knows best."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _begin(self, run: dict[str, str], file: RecordFile) -> None:
        """Write the journal anew: the head may have changed, and the last line may be torn."""
        if self._path is None:
            return
        new = self._path.with_suffix(".new")
        head = run | {"size": file.size, "modified": file.modified, "salt": self.salt}
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            lines = [head, *map(asdict, self.finished.values())]
            new.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            new.replace(self._path)
            self._file = self._path.open("a", encoding="utf-8")
        except OSError:
            return

    def add(self, batch: FinishedBatch) -> None:
        """Remember a finished batch."""
        if self._file is not None:
            self._file.write(json.dumps(asdict(batch)) + "\n")
            self._file.flush()


def batch_digest(*parts: str | bytes) -> str:
    """Return what tells one batch from another, 40 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        digest.update(len(encoded).to_bytes(8) + encoded)
    return digest.hexdigest()[:40]
