"""Reads records from files of any size: JSON, NDJSON and CSV, compressed or not."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import json
import os
import re
import zlib
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Never, Self, TextIO

from relay.csv_record import csv_record
from relay.errors import usage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from relay.record_types import RecordType

FORMATS = ("json", "ndjson", "csv")
# With or without a byte order mark.
UTF_8 = "utf-8-sig"
# The app's limits: bytes of one record, bytes and records of one batch.
MAX_RECORD_BYTES = 64 * 1024
MAX_BATCH_BYTES = 1024 * 1024
MAX_RECORDS = 1000
# Columns and member that a file of rejected records has in addition. They are dropped when it is read.
REJECTED_COLUMNS = ["relay_line", "relay_reason"]
REJECTED_MEMBER = "relay_rejected"

_CHUNK = 64 * 1024
# A longer line or element is no record.
_LONGEST = 16 * 1024 * 1024
_SPACE = re.compile(r"[ \t\r\n]*")
_REJECTED = re.compile(rf'\s*\{{\s*"{REJECTED_MEMBER}"\s*:\s*')
_COMMA = re.compile(r"\s*,?\s*")


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A record of a file: its line, its JSON text, what stands in the file, and what keeps it from being sent."""

    line: int
    text: bytes
    source: str | Sequence[str]
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Records that are sent in one request. `index` counts the batches of a file; `unusable` are not sent."""

    index: int
    records: list[SourceRecord] = field(default_factory=list)
    unusable: list[SourceRecord] = field(default_factory=list)


class RecordFile:
    """An open file of records, for `with`; "-" is standard input.

    `format` is one of `FORMATS`, `header` and `delimiter` are those of a CSV file once it is read.
    """

    def __init__(
        self, path: str, format_: str | None = None, *, encoding: str = UTF_8, delimiter: str | None = None
    ) -> None:
        self.name = "standard input" if path == "-" else path
        self.path = "" if path == "-" else os.path.realpath(path)
        self.format = format_ or _format(path)
        self.encoding = encoding
        self.delimiter = delimiter or ""
        self.header: list[str] = []
        try:
            codecs.lookup(encoding)
            self._raw = open(0 if path == "-" else path, "rb", closefd=path != "-")  # noqa: SIM115, see close
        except LookupError:
            raise usage_error(f"--encoding {encoding} is not known.", "Try utf-8 or cp1252.") from None
        except OSError as exc:
            raise usage_error(f"{path} cannot be read: {exc.strerror}.") from exc
        status = os.fstat(self._raw.fileno())
        self.size = status.st_size if path != "-" else 0
        self.modified = status.st_mtime_ns
        start = self._raw.peek(2)[:2]
        # Excel's "Unicode text".
        if encoding == UTF_8 and start in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE}:
            self.encoding = "utf-16"
        self._stream = gzip.GzipFile(fileobj=self._raw) if start == b"\x1f\x8b" else self._raw

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    @property
    def share(self) -> float | None:
        """The part of the file that was read, from 0 to 1; None where its size is unknown."""
        return min(1.0, self._raw.tell() / self.size) if self.size else None

    def read(
        self, type_: RecordType, mapping: Mapping[str, str], notice: Callable[[str], None] = lambda _: None
    ) -> Iterator[SourceRecord]:
        """Yield the records; one that cannot be sent has a fault. `notice` hears of columns without a member.

        Raises:
            CommandError: the file cannot be read to its end, or its columns do not fit the record type.
        """
        if mapping and self.format != "csv":
            raise usage_error(f"--map is for CSV, and {self.name} is {self.format}.")
        text = io.TextIOWrapper(self._stream, encoding=self.encoding, newline="")
        try:
            if self.format == "csv":
                records = self._csv(text, type_, mapping, notice)
            else:
                records = _JsonText(text, self.name).records() if self.format == "json" else _ndjson(text, self.name)
            yield from map(_checked, records)
        except UnicodeDecodeError as exc:
            advice = "Pass --encoding, for example --encoding cp1252."
            raise usage_error(
                f"{self.name} is not {self.encoding.removesuffix('-sig')}: {exc.reason}.", advice
            ) from exc
        except (OSError, EOFError, zlib.error) as exc:
            raise usage_error(f"{self.name} cannot be read to its end: {exc}.") from exc
        finally:
            text.detach()

    def _csv(
        self, text: TextIO, type_: RecordType, mapping: Mapping[str, str], notice: Callable[[str], None]
    ) -> Iterator[SourceRecord]:
        first = text.readline()
        if not first.strip():
            raise usage_error(f"{self.name} has no first line with the names of its columns.")
        self.delimiter = self.delimiter or max(",;\t|", key=first.count)
        rows = csv.reader(itertools.chain([first], text), delimiter=self.delimiter, strict=True)
        try:
            header = next(rows, [])
            skip = len(REJECTED_COLUMNS) if header[: len(REJECTED_COLUMNS)] == REJECTED_COLUMNS else 0
            self.header = header[skip:]
            csv_records = csv_record(type_, self.header, mapping, REJECTED_COLUMNS)
            for message in csv_records.notices:
                notice(message)
            last = rows.line_num
            for row in rows:
                line, last, cells = last + 1, rows.line_num, row[skip:]
                if len(cells) == len(self.header):
                    record, fault = csv_records.convert(cells)
                    yield SourceRecord(line, record, cells, fault)
                elif row:
                    fault = f"has {len(cells)} cells, the header has {len(self.header)}"
                    yield SourceRecord(line, b"", cells, fault)
        except csv.Error as exc:
            advice = "Is a quotation mark left open before that line?"
            raise usage_error(f"{self.name} is not CSV at line {rows.line_num}: {exc}.", advice) from exc


def batches(records: Iterable[SourceRecord]) -> Iterator[RecordBatch]:
    """Group records into batches within the app's limits.

    The same records always make the same batches, so an interrupted run can go on with the batch it was at.
    """
    batch, size = RecordBatch(0), 2
    for record in records:
        length = len(record.text) + 1
        is_full = len(batch.records) == MAX_RECORDS or size + length > MAX_BATCH_BYTES
        if len(batch.unusable) == MAX_RECORDS or (is_full and record.fault is None):
            yield batch
            batch, size = RecordBatch(batch.index + 1), 2
        if record.fault is None:
            batch.records.append(record)
            size += length
        else:
            batch.unusable.append(record)
    if batch.records or batch.unusable:
        yield batch


def _ndjson(text: TextIO, name: str) -> Iterator[SourceRecord]:
    for number in itertools.count(1):
        line = text.readline(_LONGEST)
        if not line:
            return
        if len(line) == _LONGEST:
            raise usage_error(f"{name}: line {number} is too long for NDJSON.", "Is the file JSON? Pass --format json.")
        if source := line.strip():
            yield _record(number, source)


class _JsonText:
    """A JSON array of records, or one record, that is read piece by piece."""

    def __init__(self, text: TextIO, name: str) -> None:
        self._text = text
        self._name = name
        self._buffer = ""
        self._at = 0
        self._line = 1

    def records(self) -> Iterator[SourceRecord]:
        if self._next() != "[":
            if self._next():
                yield self._record()
        else:
            self._advance(self._at + 1)
            while self._next() != "]":
                yield self._record()
                if self._next() == ",":
                    self._advance(self._at + 1)
                elif self._next() != "]":
                    self._fail("expected a comma or the end of the array")
            self._advance(self._at + 1)
        if self._next():
            self._fail("more follows after the end of the JSON text; if it is one record a line, pass --format ndjson")

    def _record(self) -> SourceRecord:
        while True:
            try:
                value, end = _DECODER.raw_decode(self._buffer, self._at)
            except RecursionError:
                self._fail("it is nested too deeply")
            except ValueError as exc:
                # It may only be cut off by the end of the buffer.
                if len(self._buffer) - self._at > _LONGEST or not self._more():
                    self._fail(getattr(exc, "msg", str(exc)))
                continue
            # A number could go on after the end of the buffer.
            if end < len(self._buffer) or not self._more():
                break
        line, source = self._line, self._buffer[self._at : end]
        self._advance(end)
        return _record(line, source, value)

    def _next(self) -> str:
        """Return the next character that is not white space, "" at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._advance(match.end() if match else self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        # As much again as is there: then a long element costs a constant number of attempts for each byte.
        piece = self._text.read(max(_CHUNK, len(self._buffer) - self._at))
        self._buffer, self._at = self._buffer[self._at :] + piece, 0
        return bool(piece)

    def _advance(self, to: int) -> None:
        self._line += self._buffer.count("\n", self._at, to)
        self._at = to

    def _fail(self, reason: str) -> Never:
        advice = "Mend it and run the command again: what was delivered is not sent twice."
        raise usage_error(f"{self._name} is not JSON at line {self._line}: {reason}.", advice)


def _refuse_constant(name: str) -> Never:
    raise ValueError(f"{name} is not a JSON value")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _record(line: int, source: str, value: object = None) -> SourceRecord:
    """Return the record with this text, which `value` is if it was decoded.

    The member that `RejectedFile` puts first is taken out; the rest of the text stays as it is.
    """
    try:
        value = _DECODER.decode(source) if value is None else value
    except (ValueError, RecursionError) as exc:
        return SourceRecord(line, b"", source, f"is not JSON: {exc}")
    if not isinstance(value, dict):
        return SourceRecord(line, b"", source, "must be a JSON object")
    if mark := _REJECTED.match(source):
        what, end = _DECODER.raw_decode(source, mark.end())
        if isinstance(what, dict) and isinstance(text := what.get("text"), str):
            return _record(line, text)
        comma = _COMMA.match(source, end)
        source = "{" + source[comma.end() if comma else end :]
    return SourceRecord(line, source.encode(), source)


def _checked(record: SourceRecord) -> SourceRecord:
    if record.fault is None and len(record.text) > MAX_RECORD_BYTES:
        fault = f"has {len(record.text)} bytes, more than the {MAX_RECORD_BYTES} allowed"
        return SourceRecord(record.line, record.text, record.source, fault)
    return record


def _format(path: str) -> str:
    advice = f"Pass --format {' or --format '.join(FORMATS)}."
    if path == "-":
        raise usage_error("The format of standard input is not known.", advice)
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes if suffix.lower() != ".gz"]
    ending = suffixes[-1][1:] if suffixes else ""
    ending = {"jsonl": "ndjson", "tsv": "csv"}.get(ending, ending)
    if ending not in FORMATS:
        raise usage_error(f"The format of {path} is not known by its name.", advice)
    return ending
