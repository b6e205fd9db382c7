"""Writes the records that were not delivered, with the reasons, in the format they came in."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Self, TextIO

from relay.record_files import REJECTED_COLUMNS, REJECTED_MEMBER

if TYPE_CHECKING:
    from relay.record_files import RecordFile, SourceRecord


def rejected_path(source: RecordFile) -> Path:
    """Return the path beside the file: customers.rejected.csv for customers.csv and customers.csv.gz."""
    if not source.path:
        return Path(f"stdin.rejected.{source.format}")
    path = Path(source.path.removesuffix(".gz"))
    return path.with_name(f"{path.stem}.rejected.{source.format}")


class RejectedFile:
    """The file that can be mended and sent again, for `with`. It is made when the first record is written.

    A file of the same name is kept under its name with "~" at the end.
    """

    def __init__(self, path: Path, source: RecordFile) -> None:
        self.path = path
        self.count = 0
        self._source = source
        self._file: TextIO | None = None

    def write(self, record: SourceRecord, reason: str) -> None:
        """Add a record.

        Raises:
            OSError: the file cannot be written.
        """
        if self._file is None:
            self._file = self._opened()
        self.count += 1
        if isinstance(record.source, str):
            # A JSON array is one text: its elements are separated by commas.
            start = "" if self._source.format == "ndjson" else "[\n" if self.count == 1 else ",\n"
            end = "\n" if self._source.format == "ndjson" else ""
            self._file.write(start + _marked(record, reason) + end)
        else:
            self._row([str(record.line), reason, *record.source])
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.write("\n]\n" if self._source.format == "json" else "")
            self._file.close()

    def _opened(self) -> TextIO:
        if self.path.exists():
            os.replace(self.path, f"{self.path}~")  # noqa: PTH105, the name is a text
        # Spreadsheets take a CSV file for UTF-8 only if it has a byte order mark; JSON has none.
        is_csv = self._source.format == "csv"
        encoding = self._source.encoding if is_csv else self._source.encoding.removesuffix("-sig")
        # A reason may have characters that the file's encoding has not.
        self._file = self.path.open("w", encoding=encoding, errors="backslashreplace", newline="")
        if is_csv:
            self._row([*REJECTED_COLUMNS, *self._source.header])
        return self._file

    def _row(self, cells: list[str]) -> None:
        csv.writer(self._file, delimiter=self._source.delimiter).writerow(cells)  # type: ignore[arg-type]


def _marked(record: SourceRecord, reason: str) -> str:
    """Return a record's text with the reason as its first member; what is no object goes in as text."""
    text = str(record.source).lstrip()
    mark: dict[str, object] = {"line": record.line, "reason": reason}
    if not text.startswith("{") or record.text == b"":
        return json.dumps({REJECTED_MEMBER: mark | {"text": text}}, ensure_ascii=False)
    rest = text[1:].lstrip()
    comma = "" if rest.startswith("}") else ", "
    return f'{{"{REJECTED_MEMBER}": {json.dumps(mark, ensure_ascii=False)}{comma}{rest}'
