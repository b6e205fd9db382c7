from __future__ import annotations

import csv
import gzip
import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from relay.errors import CommandError
from relay.record_files import RecordFile, SourceRecord, batches
from relay.record_types import choose, read_record_types
from relay.rejected_file import RejectedFile, rejected_path
from tests.fakes.relay_app import document

if TYPE_CHECKING:
    from pathlib import Path

PARCEL = choose(read_record_types(document()), None)


def read(path: Path, format_: str | None = None, **options: str) -> list[SourceRecord]:
    with RecordFile(str(path), format_, **options) as source:
        return list(source.read(PARCEL, {}))


def written(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def texts(records: list[SourceRecord]) -> list[str]:
    return [record.text.decode() for record in records]


def test_reads_csv_with_the_line_of_each_record(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'parcelId,city\r\np1,"New\nYork"\r\n\r\np2,Ulm\r\np3\r\n')
    records = read(path)
    assert [record.line for record in records] == [2, 5, 6]
    assert json.loads(records[0].text)["city"] == "New\nYork"
    assert records[2].fault == "has 1 cells, the header has 2"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_finds_the_delimiter(tmp_path: Path, delimiter: str) -> None:
    path = written(tmp_path / "a.csv", f"\ufeffparcelId{delimiter}city\np1{delimiter}Ulm\n")
    assert texts(read(path)) == ['{"parcelId":"p1","city":"Ulm"}']


def test_reads_a_compressed_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv.gz", gzip.compress(b"parcelId,city\np1,Ulm\n"))
    assert texts(read(path)) == ['{"parcelId":"p1","city":"Ulm"}']


def test_reports_a_compressed_file_that_is_cut_off(tmp_path: Path) -> None:
    content = gzip.compress(b"parcelId,city\n" + b"".join(b"p%d,Ulm\n" % n for n in range(9999)))
    with pytest.raises(CommandError, match="cannot be read to its end"):
        read(written(tmp_path / "a.csv.gz", content[:-100]))


def test_a_file_in_another_encoding_is_read_if_it_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "parcelId,city\np1,Köln\n".encode("cp1252"))
    with pytest.raises(CommandError, match="is not utf-8") as error:
        read(path)
    assert "--encoding cp1252" in error.value.advice
    assert json.loads(read(path, encoding="cp1252")[0].text)["city"] == "Köln"


def test_finds_utf_16_and_writes_it_again(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "parcelId\tcity\r\np1\tKöln\r\np2\r\n".encode("utf-16"))
    with RecordFile(str(path)) as source, RejectedFile(tmp_path / "a.rejected.csv", source) as rejected:
        sent, cut = source.read(PARCEL, {})
        rejected.write(cut, str(cut.fault))

    assert json.loads(sent.text)["city"] == "Köln"
    assert read(rejected.path)[0].fault == "has 1 cells, the header has 2"


def test_says_that_a_file_has_no_columns(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="has no first line with the names of its columns"):
        read(written(tmp_path / "a.csv", ""))


def test_names_the_line_of_a_quotation_mark_left_open(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'parcelId,city\np1,"Ulm\n' + "p2,Ulm\n" * 30_000)
    with pytest.raises(CommandError, match="is not CSV at line"):
        read(path)


@pytest.mark.parametrize("chunk", ["", " " * 65_530])
def test_reads_a_json_array_and_keeps_each_text(tmp_path: Path, chunk: str) -> None:
    elements = ['{"a": 1.10, "b":"\\u00e9"}', '{\n"a":1E2}', "{}"]
    path = written(tmp_path / "a.json", f"{chunk}[{elements[0]} ,\n {elements[1]},{elements[2]}]\n")
    records = read(path)
    assert texts(records) == elements
    assert [record.line for record in records] == [1, 2, 3]


def test_reads_a_json_array_across_every_boundary_of_its_pieces(tmp_path: Path) -> None:
    elements = [json.dumps({"n": n, "text": "x" * (n % 700)}) for n in range(2_000)]
    assert texts(read(written(tmp_path / "a.json", "[" + ",".join(elements) + "]"))) == elements


def test_reads_a_single_json_record(tmp_path: Path) -> None:
    assert texts(read(written(tmp_path / "a.json", '{"a": 1}\n'))) == ['{"a": 1}']


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a":1},\n{"a":]', "line 2"),
        ('[{"a":1}\n{"a":1}]', "line 2: expected a comma"),
        ('[{"a":1}', "line 1"),
        ('{"a":1}\n{"a":2}', "pass --format ndjson"),
        ('[{"a":NaN}]', "NaN is not a JSON value"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_reports_a_json_file_that_is_broken(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        read(written(tmp_path / "a.json", content))


def test_sets_a_line_of_ndjson_aside_that_is_no_object(tmp_path: Path) -> None:
    path = written(tmp_path / "a.ndjson", '{"a": 1}\n\n{"a": \n[1]\n{"b":2}')
    records = read(path)
    assert [(record.line, record.fault is None) for record in records] == [(1, True), (3, False), (4, False), (5, True)]


def test_sets_a_record_aside_that_is_too_large(tmp_path: Path) -> None:
    limit = 64 * 1024
    rows = ['{"a":"' + "x" * (limit - 8 + more) + '"}' for more in (0, 1)]
    records = read(written(tmp_path / "a.ndjson", "\n".join(rows)))
    assert [record.fault for record in records] == [None, f"has {limit + 1} bytes, more than the {limit} allowed"]


@pytest.mark.parametrize("name", ["a.txt", "a", "-"])
def test_asks_for_the_format_where_the_name_does_not_tell(name: str) -> None:
    with pytest.raises(CommandError) as error:
        RecordFile(name)
    assert "--format" in error.value.advice


def test_batches_keep_the_limits_of_the_app() -> None:
    small = [SourceRecord(n, b"{}", "") for n in range(2_500)]
    assert [len(batch.records) for batch in batches(small)] == [1000, 1000, 500]
    large = [SourceRecord(n, b"x" * 64 * 1024, "") for n in range(40)]
    made = list(batches(large))
    assert sum(len(batch.records) for batch in made) == len(large)
    assert all(2 + sum(len(record.text) + 1 for record in batch.records) <= 1024 * 1024 for batch in made)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(count: int, bad: str) -> int:
        rows = "".join(f"p{n},Ulm,{bad}\n" for n in range(count))
        with RecordFile(str(written(tmp_path / "a.csv", "parcelId,city,grams\n" + rows))) as source:
            tracemalloc.start()
            for _ in batches(source.read(PARCEL, {})):
                pass
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return most

    for cell in ("1", "x"):
        assert peak(4_000, cell) < 1.2 * peak(2_000, cell)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "parcelId;city;grams\np1;Ulm;x\np2;Ulm;2\np3;Ulm\n"),
        ("a.ndjson", '{"parcelId": "p1",  "n":1.10}\n{"a": \n{}\n'),
        ("a.json", '[{"parcelId": "p1",\n "n":1.10}, 5, {}]'),
    ],
)
def test_rejected_records_are_read_again_as_they_were(tmp_path: Path, name: str, content: str) -> None:
    path = written(tmp_path / name, content)
    with RecordFile(str(path)) as source, RejectedFile(rejected_path(source), source) as rejected:
        first = list(source.read(PARCEL, {}))
        for record in first:
            rejected.write(record, record.fault or "no such [city]")

    assert rejected.path.name == f"a.rejected.{source.format}"
    assert "no such [city]" in rejected.path.read_text(encoding="utf-8-sig")
    again = read(rejected.path)
    assert [(record.text, record.source, record.fault) for record in again] == [
        (record.text, record.source, record.fault) for record in first
    ]


def test_a_reason_may_have_characters_that_the_encoding_of_the_file_has_not(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "parcelId,city\np1,Köln\n".encode("cp1252"))
    with RecordFile(str(path), encoding="cp1252") as source, RejectedFile(rejected_path(source), source) as rejected:
        for record in source.read(PARCEL, {}):
            rejected.write(record, "城市")
    assert "p1,Köln" in rejected.path.read_text(encoding="cp1252")


def test_a_rejected_row_says_why_before_its_cells(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv.gz", gzip.compress(b"parcelId,city\np1,Ulm\n"))
    with RecordFile(str(path)) as source, RejectedFile(rejected_path(source), source) as rejected:
        written(rejected.path, "half mended")
        for record in source.read(PARCEL, {}):
            rejected.write(record, "no, never")
    with rejected.path.open(encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file)) == [
            ["relay_line", "relay_reason", "parcelId", "city"],
            ["2", "no, never", "p1", "Ulm"],
        ]
    assert (tmp_path / "a.rejected.csv~").read_text() == "half mended"
